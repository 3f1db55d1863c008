package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/interop/peer"
	"github.com/vmdisk/vmdisk/interop/rawnbd"
)

// load is one fio job on an NBD server.
type load struct {
	rw          string
	block       int // bytes
	depth, jobs int
}

func (l load) String() string {
	return fmt.Sprintf("%s-%dk/qd%dx%d", l.rw, l.block>>10, l.depth, l.jobs)
}

// diskSize is that of the page-cached file behind the servers.
const diskSize = 1 << 30

// fio runs the load with fio's nbd engine and measures both ends.
func (l load) fio(ctx context.Context, e *Env, s *peer.Server) (Sample, error) {
	out := e.Path("fio.json")
	before, err := s.CPU()
	if err != nil {
		return Sample{}, err
	}
	_, err = peer.Run(ctx, "fio", "--name="+l.rw, "--ioengine=nbd", "--uri="+s.URI(),
		"--rw="+l.rw, fmt.Sprintf("--bs=%d", l.block), fmt.Sprintf("--iodepth=%d", l.depth), fmt.Sprintf("--numjobs=%d", l.jobs),
		fmt.Sprintf("--size=%d", int64(diskSize)), "--time_based", fmt.Sprintf("--runtime=%dms", e.Runtime.Milliseconds()),
		"--norandommap", "--group_reporting", "--output-format=json", "--output="+out)
	if err != nil {
		return Sample{}, err
	}
	after, err := s.CPU()
	if err != nil {
		return Sample{}, err
	}
	st, err := readFio(out)
	if err != nil {
		return Sample{}, err
	}
	_, rss, err := s.Memory()
	return Sample{
		Value:     st.rate,
		ClientCPU: time.Duration(float64(st.cpu) / st.ops),
		ServerCPU: time.Duration(float64(after-before) / st.ops),
		RSS:       rss,
	}, err
}

type fioStats struct {
	rate, ops float64
	cpu       time.Duration // of fio's jobs, without its start
}

func readFio(path string) (fioStats, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return fioStats{}, err
	}
	// libnbd's lines may come before the report.
	start := strings.IndexByte(string(raw), '{')
	if start < 0 {
		return fioStats{}, fmt.Errorf("fio wrote no report: %s", raw)
	}
	type side struct {
		IOPS     float64 `json:"iops"`
		TotalIOs float64 `json:"total_ios"`
	}
	var doc struct {
		Jobs []struct {
			Read    side    `json:"read"`
			Write   side    `json:"write"`
			Runtime float64 `json:"job_runtime"` // milliseconds, of all jobs together
			User    float64 `json:"usr_cpu"`     // percent of Runtime
			System  float64 `json:"sys_cpu"`
			Error   int     `json:"error"`
		} `json:"jobs"`
	}
	if err := json.Unmarshal(raw[start:], &doc); err != nil {
		return fioStats{}, fmt.Errorf("fio's report: %w", err)
	}
	if len(doc.Jobs) != 1 {
		return fioStats{}, fmt.Errorf("fio reports %d groups, want 1", len(doc.Jobs))
	}
	j := doc.Jobs[0]
	st := fioStats{rate: j.Read.IOPS + j.Write.IOPS, ops: j.Read.TotalIOs + j.Write.TotalIOs}
	st.cpu = time.Duration((j.User + j.System) / 100 * j.Runtime * float64(time.Millisecond))
	if j.Error != 0 || st.ops == 0 {
		return st, fmt.Errorf("fio did %.0f operations, error %d", st.ops, j.Error)
	}
	return st, nil
}

// nbdCases are our server and the peers' under the same loads.
func nbdCases() []Case {
	var list []Case
	for _, rw := range []string{"randread", "randwrite"} {
		for _, depth := range []int{1, 16, 64} {
			for _, jobs := range []int{1, 4} {
				l := load{rw: rw, block: 4 << 10, depth: depth, jobs: jobs}
				list = append(list, loadCase(l, smallGoals(l), depth == 16 || jobs == 1 && depth == 1))
			}
		}
	}
	for _, rw := range []string{"read", "write"} {
		for _, block := range []int{256 << 10, 1 << 20} {
			l := load{rw: rw, block: block, depth: 16, jobs: 1}
			goals := []Goal{faster(1.0), cheaper(ServerCPU, 0.6), cheaper(BothCPU, 0.6)}
			list = append(list, loadCase(l, goals, block == 256<<10))
		}
	}
	return list
}

func smallGoals(l load) []Goal {
	rate, cpu := 1.3, 0.6
	switch {
	case l.depth == 64 && l.jobs == 4:
		rate = 1.4
	case l.depth == 1:
		rate, cpu = 1.1, 0.7
	}
	return []Goal{faster(rate), cheaper(ServerCPU, cpu), cheaper(BothCPU, cpu)}
}

func loadCase(l load, goals []Goal, short bool) Case {
	return Case{
		Name: "nbd/" + l.String(), Unit: Rate, Goals: goals, Short: short,
		What: "fio's nbd engine, unix socket, page-cached 1 GiB file",
		Prepare: func(ctx context.Context, e *Env) ([]Contender, error) {
			return fileServers(e, l)
		},
	}
}

// fullDisk is the page-cached file that servers serve.
func fullDisk(e *Env) (string, error) {
	return e.Shared("disk", func(path string) error { return filled(path, diskSize) })
}

// fileServers are ours, nbdkit and qemu-nbd, each started for each run, since
// all serve the same file: what a cached 4 KiB write costs the kernel differed
// fourfold between two files of equal size and content, by the sizes of the
// folios that their page caches happened to be made of.
func fileServers(e *Env, l load) ([]Contender, error) {
	image, err := fullDisk(e)
	if err != nil {
		return nil, err
	}
	return []Contender{
		servedBy(oursName, l, e, func() (*peer.Server, error) { return e.Our("raw:" + image) }),
		servedBy("nbdkit file", l, e, func() (*peer.Server, error) { return e.Nbdkit("file", image) }),
		servedBy("qemu-nbd", l, e, func() (*peer.Server, error) { return e.Qemu("-f", "raw", image) }),
	}, nil
}

// servedBy runs the load against a server that lives for one run.
func servedBy(name string, l load, e *Env, start func() (*peer.Server, error)) Contender {
	return Contender{Name: name, Run: func(ctx context.Context, round int) (Sample, error) {
		s, err := start()
		if err != nil {
			return Sample{}, err
		}
		defer s.Kill()
		return loadOn(name, l, e, s).Run(ctx, round)
	}}
}

func loadOn(name string, l load, e *Env, s *peer.Server) Contender {
	return Contender{Name: name, Run: func(ctx context.Context, round int) (Sample, error) {
		if strings.Contains(l.rw, "write") {
			settle()
		}
		return l.fio(ctx, e, s)
	}}
}

// nullCases measure the harness: the same loads on disks that do nothing, so
// what is left is fio, the socket and the protocol.
func nullCases() []Case {
	var list []Case
	for _, l := range []load{
		{"randread", 4 << 10, 1, 1}, {"randread", 4 << 10, 16, 1}, {"randwrite", 4 << 10, 64, 4}, {"read", 1 << 20, 16, 1},
	} {
		list = append(list, Case{
			Name: "harness/" + l.String(), Unit: Rate, Short: l.depth == 16,
			What: "fio's nbd engine on disks that do nothing: the most this harness can show",
			Prepare: func(ctx context.Context, e *Env) ([]Contender, error) {
				mine, err := e.Our("null:1G")
				if err != nil {
					return nil, err
				}
				kit, err := e.Nbdkit("null", "1G")
				if err != nil {
					return nil, err
				}
				return []Contender{loadOn(oursName+" null:", l, e, mine), loadOn("nbdkit null", l, e, kit)}, nil
			},
		})
	}
	return list
}

const idleConnections = 1000

// idleCase: memory of the servers under load with 1,000 idle connections.
func idleCase() Case {
	return Case{
		Name: "nbd/memory-1000-idle", Unit: Bytes, Short: true,
		Goals: []Goal{atMost(64 << 20)},
		What:  "peak resident memory with 1,000 idle connections, while 4 jobs read 4 KiB at depth 64, then 1 MiB at depth 16",
		Prepare: func(ctx context.Context, e *Env) ([]Contender, error) {
			image, err := fullDisk(e)
			if err != nil {
				return nil, err
			}
			idle := func(name string, start func() (*peer.Server, error)) Contender {
				return Contender{Name: name, Rounds: 1, Run: func(ctx context.Context, round int) (Sample, error) {
					s, err := start()
					if err != nil {
						return Sample{}, err
					}
					defer s.Kill()
					return idleMemory(ctx, e, s)
				}}
			}
			return []Contender{
				idle(oursName, func() (*peer.Server, error) { return peer.Vmdisk(e.Bin, e.Dir, "raw:"+image) }),
				idle("nbdkit file", func() (*peer.Server, error) { return peer.Nbdkit(e.Dir, "file", image) }),
				idle("qemu-nbd", func() (*peer.Server, error) {
					return peer.QemuNBD(e.Dir, "-e", fmt.Sprint(idleConnections+100), "-f", "raw", image)
				}),
			}, nil
		},
	}
}

func idleMemory(ctx context.Context, e *Env, s *peer.Server) (sample Sample, err error) {
	conns := make([]net.Conn, 0, idleConnections)
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for range idleConnections {
		c, _, err := rawnbd.Dial(ctx, "unix", s.Socket, "")
		if err != nil {
			return Sample{}, fmt.Errorf("after %d connections: %w", len(conns), err)
		}
		conns = append(conns, c)
	}
	if err := s.ResetPeak(); err != nil {
		return Sample{}, err
	}
	for _, l := range []load{{"randread", 4 << 10, 64, 4}, {"randwrite", 4 << 10, 64, 4}, {"read", 1 << 20, 16, 4}, {"write", 1 << 20, 16, 4}} {
		if _, err := l.fio(ctx, e, s); err != nil {
			return Sample{}, err
		}
	}
	_, peak, err := s.Memory()
	if err != nil {
		return Sample{}, err
	}
	if peak == 0 {
		return Sample{}, errors.New("the peak of the resident set is unknown")
	}
	return Sample{Value: float64(peak), RSS: peak}, nil
}
