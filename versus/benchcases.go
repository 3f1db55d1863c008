package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/interop/peer"
)

// benchLoad is one job that fio and vmdisk bench do on the same target.
type benchLoad struct {
	name, what string
	options    []string
	fio        []string // more for fio alone, after the engine they belong to
	limit      float64  // our rate to fio's, at least
}

var benchLoads = []benchLoad{
	{"bench/cached-4k-qd32", "vmdisk bench and fio's io_uring engine with fixed buffers and file: 4 KiB random reads of a page-cached file",
		[]string{"--rw=randread", "--bs=4k", "--iodepth=32", "--ioengine=io_uring", "--invalidate=0", "--norandommap"}, []string{"--fixedbufs=1", "--registerfiles=1"}, 1.0},
	{"bench/null-4k-qd1", "vmdisk bench and fio with the null engine, which does nothing: the cost of the harness itself",
		[]string{"--rw=randread", "--bs=4k", "--ioengine=null", "--norandommap"}, nil, 1.0},
	{"bench/nulldisk-4k-qd1", "vmdisk bench on the disk null:, whose reads are zeros, and fio's null engine, which leaves the buffer alone",
		[]string{"--rw=randread", "--bs=4k", "--ioengine=null", "--norandommap"}, nil, 1.0},
	{"bench/limited-4k-qd32", "vmdisk bench and fio's io_uring engine with O_DIRECT on a block device that the kernel limits to 20,000 reads per second",
		[]string{"--rw=randread", "--bs=4k", "--iodepth=32", "--ioengine=io_uring", "--direct=1", "--norandommap"}, []string{"--fixedbufs=1", "--registerfiles=1"}, 0.97},
	{"bench/direct-4k-qd32", "vmdisk bench and fio's io_uring engine with O_DIRECT: the device is the limit",
		[]string{"--rw=randread", "--bs=4k", "--iodepth=32", "--ioengine=io_uring", "--direct=1", "--norandommap"}, []string{"--fixedbufs=1", "--registerfiles=1"}, 0.97},
}

// benchCases compare the benchmark engine with fio on one and the same target, so
// the target's own speed is in both.
func benchCases() []Case {
	var list []Case
	for _, l := range benchLoads {
		list = append(list, Case{Name: l.name, What: l.what, Unit: Rate, Short: true, Goals: []Goal{faster(l.limit)},
			Prepare: func(_ context.Context, e *Env) ([]Contender, error) { return l.contenders(e) }})
	}
	return list
}

func (l benchLoad) contenders(e *Env) ([]Contender, error) {
	ours, theirs := []string{"--disk", "null:100G"}, "--size=100g"
	switch l.name {
	case "bench/nulldisk-4k-qd1":
	case "bench/null-4k-qd1":
		ours = []string{theirs}
	default:
		image, err := fullDisk(e)
		if err != nil {
			return nil, err
		}
		if strings.Contains(l.name, "limited") {
			if image, err = e.limitedReads(image, limitedIOPS); err != nil {
				return nil, err
			}
		}
		ours, theirs = []string{"--disk", "raw:" + image}, "--filename="+image
		if strings.Contains(l.name, "cached") {
			if err := exec.Command("cat", image).Run(); err != nil {
				return nil, fmt.Errorf("read %s into the page cache: %w", image, err)
			}
		}
	}
	out := e.Path("out.json")
	common := append([]string{"--name=b", "--time_based", fmt.Sprintf("--runtime=%dms", e.Runtime.Milliseconds()), "--output-format=json", "--output=" + out}, l.options...)
	run := func(name string, args ...string) func(context.Context, int) (Sample, error) {
		return func(ctx context.Context, _ int) (Sample, error) {
			if _, err := peer.Run(ctx, append([]string{name}, args...)...); err != nil {
				return Sample{}, err
			}
			st, err := readFio(out)
			if err != nil {
				return Sample{}, err
			}
			return Sample{Value: st.rate, ClientCPU: time.Duration(float64(st.cpu) / st.ops)}, nil
		}
	}
	return []Contender{
		{Name: oursName + " bench", Run: run(e.Bin, slices.Concat([]string{"bench"}, ours, common)...)},
		{Name: "fio", Run: run("fio", slices.Concat([]string{theirs}, common, l.fio)...)},
	}, nil
}

// limitedIOPS is far below what a loop device over cached pages can do.
const limitedIOPS = 20000

// limitedReads returns a loop device over image that the kernel lets do so many
// reads per second. A real disk that other work shares varies more from run to run
// than the three percent that are asked for; this one does not.
func (e *Env) limitedReads(image string, iops int) (string, error) {
	const limit = "/sys/fs/cgroup/blkio/blkio.throttle.read_iops_device"
	if os.Geteuid() != 0 {
		return "", fmt.Errorf("%w: needs root for a loop device", errSkip)
	}
	if _, err := os.Stat(limit); err != nil {
		return "", fmt.Errorf("%w: needs the kernel's blkio controller: %w", errSkip, err)
	}
	out, err := exec.Command("losetup", "--find", "--show", image).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("losetup %s: %w: %s", image, err, out)
	}
	dev := strings.TrimSpace(string(out))
	e.Defer(func() error { return exec.Command("losetup", "--detach", dev).Run() })
	var st unix.Stat_t
	if err := unix.Stat(dev, &st); err != nil {
		return "", err
	}
	set := func(iops int) error {
		return os.WriteFile(limit, fmt.Appendf(nil, "%d:%d %d", unix.Major(st.Rdev), unix.Minor(st.Rdev), iops), 0)
	}
	e.Defer(func() error { return set(0) })
	return dev, set(iops)
}
