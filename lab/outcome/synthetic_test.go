package outcome

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/vmdisk/vmdisk/bench/hist"
	"github.com/vmdisk/vmdisk/lab/agent"
	"github.com/vmdisk/vmdisk/lab/monitor"
	"github.com/vmdisk/vmdisk/lab/spec"
)

// made describes a cell of made-up results.
type made struct {
	backing string
	iops    []float64 // per node, one for each repeat
	reads   bool
	busy    float64 // of the guests' CPUs
	host    float64
	device  float64
	server  float64 // CPUs
	bound   string
	block   float64 // bytes, 0: 4096
	stall   int     // nodes that stall, each repeat, at overlapping times
	runtime int     // seconds, 0: 10
}

// madeRun is one repeat of a cell with nodes a, b, c….
func madeRun(m made, repeat, nodes int) Run {
	r := rand.New(rand.NewPCG(uint64(repeat), uint64(len(m.backing))))
	seconds := max(m.runtime, 1)
	if m.runtime == 0 {
		seconds = 10
	}
	run := Run{Repeat: repeat, Started: time.Date(2026, 3, 4, 5, 6, 0, 0, time.UTC).Add(time.Duration(repeat) * time.Minute),
		WindowAtNS: 5e6, WindowNS: int64(seconds) * 1e9, SpreadNS: 5e6}
	for i := range nodes {
		run.Nodes = append(run.Nodes, madeNode(m, r, repeat, i, seconds))
	}
	run.Host = madeHost(m, nodes, seconds)
	return run
}

func madeNode(m made, r *rand.Rand, repeat, i, seconds int) Node {
	dir, block := 1, m.block
	if m.reads {
		dir = 0
	}
	if block == 0 {
		block = 4096
	}
	iops := m.iops[repeat-1]
	n := Node{Name: string(rune('a' + i)), AtNS: int64(i) * 1e6}
	job := agent.JobResult{Name: "random-write", Jobs: 4}
	var h hist.Histogram
	for s := range seconds {
		rate := iops * (0.95 + 0.1*r.Float64())
		at := int64(s+1) * 1e9
		if i < m.stall && s >= 3 && s < 5 {
			rate = 0
		}
		p := agent.Point{AtNS: at, TookNS: 1e9}
		p.IOs[dir], p.Bytes[dir] = uint64(rate), uint64(rate*block)
		job.Points = append(job.Points, p)
		for range 200 {
			h.Add(int64(8e9 / iops * math.Exp(r.NormFloat64()*0.4)))
		}
	}
	if i < m.stall {
		job.Stalls = []agent.Stall{{AtNS: 3e9 + int64(i)*2e8, TookNS: 2e9}}
	}
	lat := agent.Latency{N: h.N(), Min: h.Min(), Max: h.Max(), Mean: h.Mean(), Stddev: h.Stddev(), Bins: h.Bins()}
	job.Hists = []agent.HistPoint{{AtNS: 1e9, TookNS: 1e9, Dir: uint8(dir), Bins: h.Bins()}}
	job.Dirs[dir] = agent.DirResult{IOs: uint64(iops) * uint64(seconds), Bytes: uint64(iops*block) * uint64(seconds), IOPS: iops, BW: iops * block * 0.9, Clat: lat}
	n.Window[dir] = Figures{IOs: uint64(iops) * uint64(seconds), Bytes: uint64(iops*block) * uint64(seconds), IOPS: iops, BW: iops * block, Lat: lat}
	n.Result = &agent.Result{StartNS: 1e9, EndNS: 1e9 + int64(seconds)*1e9, Jobs: []agent.JobResult{job}, Stalls: job.Stalls, CPUBusy: m.busy, Bound: m.bound, JSON: []byte(`{"jobs":[]}`)}
	return n
}

func madeHost(m made, nodes, seconds int) monitor.Host {
	h := monitor.Host{ElapsedNS: int64(seconds) * 1e9, CPUs: 2, Busy: m.host, IOWait: 0.1, Load: [3]float64{7.12, 3.37, 2.19}, Exits: -1}
	for i := range nodes {
		h.Processes = append(h.Processes, monitor.Usage{Name: "qemu " + string(rune('a'+i)), CPUs: 1.6 * m.host / float64(nodes)})
	}
	if m.server > 0 {
		h.Processes = append(h.Processes, monitor.Usage{Name: "server a", CPUs: m.server})
	}
	h.Devices = []monitor.Device{{Name: "loop3", Utilization: m.device}}
	for s := range seconds {
		h.Points = append(h.Points, monitor.Point{AtNS: int64(s+1) * 1e9, Busy: m.host, IOWait: 0.1, Device: m.device})
	}
	return h
}

// madeResults has one sweep over backings with one workload.
func madeResults(nodes int, cells ...made) *Results {
	r := &Results{
		Schema: Schema, Experiment: "falcon-backing", Title: "Disk backings under four writers", Summary: "Random writes in all guests at the same time.",
		Started: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), Repeats: len(cells[0].iops),
		Environment: Environment{Accel: "kvm", CPUs: 2, Facts: []Fact{{Name: "CPU", Value: "Lab CPU"}, {Name: "kernel", Value: "6.1.0"}}},
		Sweeps: []Sweep{{Name: "backing", Title: "Backings", Text: "Where the disk of each guest lies.", Axes: []string{"backing"},
			Workloads: []Workload{{Name: "4k", Title: "4 KiB random writes", JobFile: "[random-write]\nrw=randwrite\nbs=4k\n"}}}},
	}
	for _, m := range cells {
		c := Cell{ID: "backing/4k/backing=" + m.backing, Sweep: "backing", Workload: "4k", Client: spec.ClientGuest, Nodes: nodes, Varied: []spec.Value{{Axis: "backing", Value: m.backing}}}
		for repeat := range m.iops {
			c.Runs = append(c.Runs, madeRun(m, repeat+1, nodes))
		}
		r.Cells = append(r.Cells, c)
	}
	return r
}

// around are n values within 2 % of v, the same for the same arguments.
func around(v float64, n int) []float64 {
	r := rand.New(rand.NewPCG(uint64(v), uint64(n)))
	out := make([]float64, n)
	for i := range out {
		out[i] = math.Round(v * (0.99 + 0.02*r.Float64()))
	}
	return out
}

// sixCells is an experiment with all that a report has to show: 4 nodes, 6 cells, 3
// repeats, stalls, cells that did not run and runs that do not count.
func sixCells() *Results {
	cells := []made{
		{backing: "copy", iops: around(6000, 3), busy: 0.6, host: 0.97, device: 0.5},
		{backing: "reflink", iops: around(5400, 3), busy: 0.6, host: 0.8, device: 0.6},
		{backing: "overlay", iops: around(2600, 3), busy: 0.4, host: 0.5, device: 0.6, stall: 2},
		{backing: "loop", iops: around(1200, 3), busy: 0.3, host: 0.4, device: 0.97, stall: 3},
		{backing: "tmpfs", iops: around(6100, 3), busy: 0.93, host: 0.9},
		{backing: "lvm", iops: around(1150, 3), busy: 0.2, host: 0.3, device: 0.4},
	}
	for i := range cells {
		cells[i].runtime = 30
	}
	r := madeResults(4, cells...)
	r.Cells = append(r.Cells, Cell{ID: "backing/4k/backing=zvol", Sweep: "backing", Workload: "4k", Client: spec.ClientGuest, Nodes: 4,
		Varied: []spec.Value{{Axis: "backing", Value: "zvol"}}, Skipped: []string{"zpool is not installed: apt-get install zfsutils-linux", "the kernel has no zfs module"}})
	r.Cells[3].Runs[1].Discarded = "node c: no sign of life for 2m0s"
	r.Cells[3].Runs[1].Console = "[   12.34] watchdog: BUG: soft lockup\n"
	r.Cells[2].Runs[0].Nodes[1].Silent = []agent.Stall{{AtNS: 12e9, TookNS: 3e9}}
	return r
}

// sixtyCells is as large as experiments get.
func sixtyCells() *Results {
	var cells []made
	for i := range 60 {
		cells = append(cells, made{backing: fmt.Sprintf("device=virtio-blk,aio=threads,n=%02d", i), iops: around(1000+float64(i)*37, 3), host: 0.5, device: 0.4, runtime: 60})
	}
	return madeResults(4, cells...)
}
