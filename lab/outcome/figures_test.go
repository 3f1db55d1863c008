package outcome

import (
	"math"
	"testing"

	"github.com/vmdisk/vmdisk/bench/hist"
	"github.com/vmdisk/vmdisk/lab/agent"
	"github.com/vmdisk/vmdisk/lab/monitor"
)

// stalling are nodes with stalls given as {from, to} in ms of each node's own time.
func stalling(nodes ...[][2]int64) *Run {
	run := &Run{}
	for i, list := range nodes {
		n := Node{Name: string(rune('a' + i)), Result: &agent.Result{}}
		for _, s := range list {
			n.Result.Stalls = append(n.Result.Stalls, agent.Stall{AtNS: s[0] * 1e6, TookNS: (s[1] - s[0]) * 1e6})
		}
		run.Nodes = append(run.Nodes, n)
	}
	return run
}

func TestOverlappingStalls(t *testing.T) {
	t.Parallel()
	type spans = [][2]int64
	for name, c := range map[string]struct {
		run  *Run
		want Stalls
	}{
		"none":          {stalling(nil, nil), Stalls{}},
		"one alone":     {stalling(spans{{0, 2000}}, nil), Stalls{Count: 1, LongestNS: 2e9, Most: 1}},
		"of one node":   {stalling(spans{{0, 2000}, {3000, 4000}}), Stalls{Count: 2, LongestNS: 2e9, Most: 1}},
		"one by one":    {stalling(spans{{0, 2000}}, spans{{2000, 3000}}), Stalls{Count: 2, LongestNS: 2e9, Most: 1}},
		"two meet":      {stalling(spans{{0, 2000}}, spans{{1500, 3000}}), Stalls{Count: 2, LongestNS: 2e9, Overlapping: 2, OverlapNS: 5e8, Most: 2}},
		"one meets two": {stalling(spans{{0, 5000}}, spans{{500, 1500}, {3000, 5000}}), Stalls{Count: 3, LongestNS: 5e9, Overlapping: 3, OverlapNS: 2e9, Most: 2}},
		// a+b for 1 s, then a+b+c, then b+c: together without a break for 3 s.
		"three meet": {stalling(spans{{0, 3000}}, spans{{1000, 4000}}, spans{{2000, 9000}}), Stalls{Count: 3, LongestNS: 7e9, Overlapping: 3, OverlapNS: 3e9, Most: 3}},
	} {
		if got := c.run.stalls(); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// TestStallsOnOneClock: nodes that started apart are compared on the host's clock.
func TestStallsOnOneClock(t *testing.T) {
	t.Parallel()
	run := stalling([][2]int64{{0, 2000}}, [][2]int64{{0, 2000}})
	if got := run.stalls(); got.Count != 2 || got.LongestNS != 2e9 || got.OverlapNS != 2e9 {
		t.Errorf("at the same time: %+v", got)
	}
	run.Nodes[1].AtNS = 2e9
	if got := run.stalls(); got.OverlapNS != 0 {
		t.Errorf("2 s apart: %+v", got)
	}
	run.Nodes[1].AtNS = 10e9
	if got := run.stalls(); got.Overlapping != 0 {
		t.Errorf("10 s apart: %+v", got)
	}
}

// TestMergedPercentiles: the percentiles of two nodes come from all their I/Os, not
// from the nodes' percentiles.
func TestMergedPercentiles(t *testing.T) {
	t.Parallel()
	var run Run
	for _, v := range []struct {
		n  int
		ns int64
	}{{990, 1000}, {10, 1000000}} {
		var h hist.Histogram
		for range v.n {
			h.Add(v.ns)
		}
		n := Node{Name: "n"}
		n.Window[0] = Figures{IOs: h.N(), Bytes: h.N() * 4096, IOPS: float64(v.n), BW: float64(v.n) * 4096,
			Lat: agent.Latency{N: h.N(), Min: h.Min(), Max: h.Max(), Mean: h.Mean(), Bins: h.Bins()}}
		run.Nodes = append(run.Nodes, n)
	}
	f := run.Figures()
	lat := f.Dirs[0].Lat
	if want := (990*1000.0 + 10*1e6) / 1000; math.Abs(lat.Mean-want) > 1 {
		t.Errorf("mean %v, want %v", lat.Mean, want)
	}
	// Of 1000 I/Os the 990th is a fast one, the 999th a slow one.
	if lat.P99 > 1100 || lat.P999 < 990000 || lat.Max != 1000000 {
		t.Errorf("%+v", lat)
	}
	if f.IOPS != 1000 || f.BW != 1000*4096 || f.Dirs[1].IOs != 0 {
		t.Errorf("%+v", f)
	}
}

// TestCost: the CPU of an I/O is by what the process does, and this program itself is
// no part of it.
func TestCost(t *testing.T) {
	t.Parallel()
	run := Run{Host: monitor.Host{Processes: []monitor.Usage{{Name: "qemu a", CPUs: 0.5}, {Name: "qemu b", CPUs: 0.3}, {Name: "server a", CPUs: 0.2}, {Name: "vmdisk", CPUs: 1}}}}
	cost := run.cost(10000)
	for class, want := range map[string]float64{"qemu": 80, "server": 20, "all": 100} {
		if math.Abs(cost[class]-want) > 1e-9 {
			t.Errorf("%s: %v us, want %v", class, cost[class], want)
		}
	}
	if len(cost) != 3 || len(run.cost(0)) != 0 {
		t.Errorf("%v, %v", cost, run.cost(0))
	}
}

// TestDiscardedRunsDoNotCount, nor does the time that fio adds for end_fsync hide.
func TestDiscardedRunsDoNotCount(t *testing.T) {
	t.Parallel()
	r := madeResults(2, made{backing: "copy", iops: []float64{100, 900, 120}})
	r.Cells[0].Runs[1].Discarded = "the clock drifted"
	f := r.Cells[0].Figures("kvm")
	if m := f.Metric(Total, "iops"); len(m.Values) != 2 || m.Median != 220 {
		t.Errorf("%+v", m)
	}
	if n := f.Runs[0].Nodes[0]; math.Abs(n.FioBW-0.9*n.BW) > 1 {
		t.Errorf("as fio counts it %v, in the window %v", n.FioBW, n.BW)
	}
	if m := f.Metric("write", "lat_p99"); m == nil || m.Median <= 0 || f.Metric("read", "lat_p99") != nil {
		t.Error("latencies of directions")
	}
	if f := (&Cell{}).Figures("kvm"); len(f.Metrics) != 0 {
		t.Errorf("a cell without runs: %+v", f)
	}
}

// TestInterval: six repeats bound the median, five do not.
func TestInterval(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]bool{5: false, 6: true} {
		f := madeResults(1, made{backing: "copy", iops: around(1000, n)}).Cells[0].Figures("kvm")
		m := f.Metric(Total, "iops")
		if got := m.Lo != nil && *m.Lo <= m.Median && m.Median <= *m.Hi; got != want {
			t.Errorf("%d repeats: %+v", n, m)
		}
	}
}
