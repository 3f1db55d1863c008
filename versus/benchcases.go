package main

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

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
		ours, theirs = []string{"--disk", "raw:" + image}, "--filename="+image
		if !strings.Contains(l.name, "direct") {
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
