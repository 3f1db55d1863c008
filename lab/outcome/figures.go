package outcome

import (
	"github.com/vmdisk/vmdisk/bench/hist"
	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/lab/agent"
)

// Latencies are figures of a distribution in nanoseconds. All are 0 if there is none;
// those of several nodes come from their merged histograms.
type Latencies struct {
	Mean float64 `json:"mean_ns"`
	P50  int64   `json:"p50_ns"`
	P95  int64   `json:"p95_ns"`
	P99  int64   `json:"p99_ns"`
	P999 int64   `json:"p99_9_ns"`
	Max  int64   `json:"max_ns"`
}

// Rates are what was done in one direction within the window.
type Rates struct {
	IOs  uint64    `json:"ios"`
	IOPS float64   `json:"iops"`
	BW   float64   `json:"bw_bytes"`
	Lat  Latencies `json:"latency"`
}

// NodeFigures are of one node in one run.
type NodeFigures struct {
	Name string              `json:"name"`
	Dirs [jobfile.Dirs]Rates `json:"directions"` // read, write, trim
	IOPS float64             `json:"iops"`
	BW   float64             `json:"bw_bytes"`
	// FioBW is the bandwidth of the whole run as fio counts it: the time of end_fsync
	// lies inside, so it is what of the data reached the disk.
	FioBW float64 `json:"fio_bw_bytes"`
	// Stalls are times in which no job of the node got anything done.
	Stalls       int   `json:"stalls"`
	LongestStall int64 `json:"longest_stall_ns"`
	// Lockups are times without a sign of life from the whole node.
	Lockups       int   `json:"lockups"`
	LongestLockup int64 `json:"longest_lockup_ns"`
}

// RunFigures are of one run, over all its nodes.
type RunFigures struct {
	Repeat int                 `json:"repeat"`
	Nodes  []NodeFigures       `json:"nodes"`
	Dirs   [jobfile.Dirs]Rates `json:"directions"`
	IOPS   float64             `json:"iops"`
	BW     float64             `json:"bw_bytes"`
	// Cost is the host CPU time of one I/O in microseconds, by class of process (the
	// first word of its name: qemu, server, client), and "all". Empty if no process was
	// watched.
	Cost   map[string]float64 `json:"cpu_us_per_io"`
	Stalls Stalls             `json:"stalls"`

	hists [jobfile.Dirs]*hist.Histogram // merged over the nodes; nil without I/O
}

// Figures works out what a run says.
func (run *Run) Figures() RunFigures {
	f := RunFigures{Repeat: run.Repeat, Stalls: run.stalls()}
	for i := range run.Nodes {
		f.Nodes = append(f.Nodes, run.nodeFigures(i))
		f.add(run.Nodes[i].Window)
	}
	for d := range f.Dirs {
		r := &f.Dirs[d]
		r.Lat = latencies(f.hists[d], r.Lat.Mean)
		f.IOPS += r.IOPS
		f.BW += r.BW
	}
	f.Cost = run.cost(f.IOPS)
	return f
}

// add counts one node's window in.
func (f *RunFigures) add(window [jobfile.Dirs]Figures) {
	for d, w := range window {
		if w.IOs == 0 {
			continue
		}
		r := &f.Dirs[d]
		// The mean of all, for nodes that have no histogram.
		r.Lat.Mean = (r.Lat.Mean*float64(r.IOs) + w.Lat.Mean*float64(w.IOs)) / float64(r.IOs+w.IOs)
		r.IOs += w.IOs
		r.IOPS += w.IOPS
		r.BW += w.BW
		if h := histogram(w.Lat); h != nil {
			if f.hists[d] == nil {
				f.hists[d] = &hist.Histogram{}
			}
			f.hists[d].Merge(h)
		}
	}
}

func (run *Run) nodeFigures(i int) NodeFigures {
	n := &run.Nodes[i]
	f := NodeFigures{Name: n.Name}
	for d, w := range n.Window {
		if w.IOs == 0 {
			continue
		}
		f.Dirs[d] = Rates{w.IOs, w.IOPS, w.BW, latencies(histogram(w.Lat), w.Lat.Mean)}
		f.IOPS += w.IOPS
		f.BW += w.BW
	}
	if n.Result != nil {
		for _, j := range n.Result.Jobs {
			for _, d := range j.Dirs {
				f.FioBW += d.BW
			}
		}
	}
	stalls, _ := run.stallsOf(i)
	f.Stalls, f.LongestStall = sum(stalls)
	f.Lockups, f.LongestLockup = sum(union(n.Silent))
	return f
}

// histogram is nil where a node gave none, or one that does not add up.
func histogram(l agent.Latency) *hist.Histogram {
	if len(l.Bins) == 0 {
		return nil
	}
	h, err := hist.FromBins(l.Bins, l.Min, l.Max, l.Mean, l.Stddev)
	if err != nil {
		return nil
	}
	return h
}

func latencies(h *hist.Histogram, mean float64) Latencies {
	if h == nil || h.N() == 0 {
		return Latencies{Mean: mean}
	}
	p := h.Percentiles([]float64{50, 95, 99, 99.9})
	return Latencies{Mean: h.Mean(), P50: p[0], P95: p[1], P99: p[2], P999: p[3], Max: h.Max()}
}

// The classes of processes that cost is counted for; others, such as this program
// itself, are not part of the I/O path.
var costClasses = []string{"qemu", "server", "client"}

// costAll is the sum of the classes.
const costAll = "all"

// cost divides the CPUs that the processes used by the I/O rate. Both are rates, so
// that a ramp before the window, in which CPU is used and no I/O counted, does not
// matter.
func (run *Run) cost(iops float64) map[string]float64 {
	cost := map[string]float64{}
	if iops <= 0 {
		return cost
	}
	for _, p := range run.Host.Processes {
		if c := class(p.Name); c != "" {
			cost[c] += p.CPUs / iops * 1e6
			cost[costAll] += p.CPUs / iops * 1e6
		}
	}
	return cost
}
