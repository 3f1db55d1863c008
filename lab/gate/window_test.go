package gate

import (
	"math"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/bench/hist"
	"github.com/vmdisk/vmdisk/lab/agent"
	"github.com/vmdisk/vmdisk/lab/outcome"
)

const second = int64(time.Second)

// finished is a node that has run from start to end, by its own clock, which is
// offset behind the host's.
func finished(t *testing.T, name string, offset, start, end int64, jobs ...agent.JobResult) *part {
	t.Helper()
	near, far := net.Pipe()
	_ = far.Close()
	conn := agent.NewConn(near)
	t.Cleanup(func() { _ = conn.Close() })
	clock := agent.Clock{AtNS: start + offset, OffsetNS: offset, ErrNS: 1000}
	after := clock
	after.AtNS = end + offset
	return &part{Node: Node{Name: name, Conn: conn}, before: clock, after: after, result: &agent.Result{StartNS: start, EndNS: end, Jobs: jobs}}
}

// each100 is a job with 100 writes of 1 KiB in every second of n, of 1 us each in
// odd seconds and of 1 ms in even ones.
func each100(n int64) agent.JobResult {
	j := agent.JobResult{Name: "j"}
	for i := int64(1); i <= n; i++ {
		p := agent.Point{AtNS: i * second, TookNS: second}
		p.IOs[write], p.Bytes[write], p.LatSumNS[write] = 100, 100<<10, 100e6
		j.Points = append(j.Points, p)
		ns := int64(1000)
		if i%2 == 0 {
			ns = 1e6
		}
		j.Hists = append(j.Hists, agent.HistPoint{AtNS: i * second, TookNS: second, Dir: write, Bins: agent.Bins{{Value: ns, Count: 100}}})
	}
	return j
}

func counted(t *testing.T, parts ...*part) *outcome.Run {
	t.Helper()
	var r outcome.Run
	count(&r, parts, 5000)
	return &r
}

// TestCommonWindow: b begins 0.5 s after a, by the host's clock, and ends last; c
// ends first.
func TestCommonWindow(t *testing.T) {
	t.Parallel()
	a := finished(t, "a", 0, 100*second, 110*second, each100(10))
	b := finished(t, "b", 50*second, 50*second+second/2, 62*second, each100(11), each100(11))
	c := finished(t, "c", -second, 101*second, 105*second+second/4, each100(4))
	r := counted(t, a, b, c)
	if r.Discarded != "" || r.SpreadNS != second/2 || r.WindowAtNS != second/2 || r.WindowNS != 15*second/4 {
		t.Fatalf("discarded %q, spread %d, window of %d at %d", r.Discarded, r.SpreadNS, r.WindowNS, r.WindowAtNS)
	}
	for i, want := range []struct {
		ios   uint64
		at    int64
		hists uint64
	}{
		// a: half of its first second, three whole ones, a quarter. Histograms are
		// of whole intervals: those that have half of their time in the window.
		{375, 0, 400},
		// b: three seconds and three quarters, by two jobs.
		{750, second / 2, 800},
		// c: half a second, three whole ones; its last 0.25 s have no point.
		{350, 0, 400},
	} {
		n := r.Nodes[i]
		f := n.Window[write]
		if f.IOs != want.ios || f.Bytes != want.ios<<10 || n.AtNS != want.at || f.Lat.N != want.hists || n.Window[0].IOs != 0 {
			t.Errorf("node %s: %+v at %d, want %+v", n.Name, f, n.AtNS, want)
		}
		if seconds := float64(r.WindowNS) / 1e9; math.Abs(f.IOPS-float64(want.ios)/seconds) > 0.01 || math.Abs(f.BW-float64(want.ios<<10)/seconds) > 10 {
			t.Errorf("node %s: %v IOPS, %v B/s", n.Name, f.IOPS, f.BW)
		}
	}
}

// TestWindowLatencies: the histograms of intervals outside do not count, and those
// inside add up.
func TestWindowLatencies(t *testing.T) {
	t.Parallel()
	a := finished(t, "a", 0, 0, 4*second, each100(4))
	b := finished(t, "b", 0, second, 3*second, each100(2)) // window: a's second and third second
	l := counted(t, a, b).Nodes[0].Window[write].Lat
	var n uint64
	for _, bin := range l.Bins {
		n += bin.Count
	}
	if l.N != 200 || n != 200 || len(l.Bins) != 2 || l.Bins[0].Count != 100 || l.Min > 1000 || l.Max < 990000 || math.Abs(l.Mean-500500) > 5000 {
		t.Errorf("%+v", l)
	}
	// A node that ends a moment after another keeps its last interval.
	a, b = finished(t, "a", 0, 0, second-1000, each100(1)), finished(t, "b", 0, 0, second, each100(1))
	if l := counted(t, a, b).Nodes[1].Window[write].Lat; l.N != 100 {
		t.Errorf("%+v", l)
	}
	// Without intervals the job's whole histogram stands, without any the mean.
	var h hist.Histogram
	for range 7 {
		h.Add(5000)
	}
	j := each100(4)
	j.Hists = nil
	j.Dirs[write].Clat = agent.Latency{N: h.N(), Min: h.Min(), Max: h.Max(), Mean: h.Mean(), Stddev: h.Stddev(), Bins: h.Bins()}
	if l := counted(t, finished(t, "a", 0, 0, 4*second, j)).Nodes[0].Window[write].Lat; l.N != 7 {
		t.Errorf("%+v", l)
	}
	j.Dirs[write].Clat = agent.Latency{}
	if l := counted(t, finished(t, "a", 0, 0, 4*second, j)).Nodes[0].Window[write].Lat; l.N != 0 || l.Mean != 1e6 {
		t.Errorf("%+v", l)
	}
	// A node's figures that contradict each other are left out.
	j.Dirs[write].Clat = agent.Latency{N: 2, Min: 9, Max: 1, Bins: agent.Bins{{Value: 5, Count: 1}, {Value: 4, Count: 1}}}
	if l := counted(t, finished(t, "a", 0, 0, 4*second, j)).Nodes[0].Window[write].Lat; l.N != 0 {
		t.Errorf("%+v", l)
	}
}

// TestDrift: clocks that run apart, as far as their measurements can tell.
func TestDrift(t *testing.T) {
	t.Parallel()
	ms := int64(time.Millisecond)
	for _, c := range []struct {
		moved, err, span int64
		ppm              float64
		discarded        bool
	}{
		{0, 0, 10 * second, 0, false},
		{ms, ms, 10 * second, 0, false},           // no more than the errors
		{2 * ms, ms, 10 * second, 0, false},       // exactly the errors
		{3 * ms, ms, 10 * second, 300, false},     // seen, and harmless
		{-3 * ms, ms, 10 * second, -300, false},   // slow
		{60 * ms, ms, 10 * second, 6000, true},    // 0.6 %
		{-60 * ms, ms, 10 * second, -6000, true},  // 0.6 % slow
		{51 * ms, ms, 10 * second, 5100, false},   // may be 0.49 %
		{60 * ms, 30 * ms, 10 * second, 0, false}, // nothing to be told
		{6 * ms, 2 * ms, second, 6000, false},     // a short run: may be 0.2 %
		{60 * ms, ms, 0, 0, false},                // no time between
		{-5 * second, ms, 10 * second, -500000, true},
	} {
		p := finished(t, "a", 0, 0, c.span, each100(1))
		p.before = agent.Clock{AtNS: 0, OffsetNS: 7 * second, ErrNS: c.err}
		p.after = agent.Clock{AtNS: c.span, OffsetNS: 7*second - c.moved, ErrNS: c.err}
		ppm, _ := p.drift()
		why := p.broken(5000)
		if math.Abs(ppm-c.ppm) > 1e-6 || (why != "") != c.discarded {
			t.Errorf("%+v: %v, %q", c, ppm, why)
		}
	}
}

// TestBroken: what a node says of itself.
func TestBroken(t *testing.T) {
	t.Parallel()
	ok := finished(t, "a", 0, 0, second, each100(1))
	stopped := finished(t, "b", 0, 0, second, each100(1))
	stopped.result.Err = "the run was stopped before its end"
	failed := finished(t, "c", 0, 0, second, agent.JobResult{Name: "w", Err: "input/output error"})
	if r := counted(t, ok, stopped, failed); r.Discarded != "node b: the run was stopped before its end" {
		t.Errorf("%q", r.Discarded)
	}
	if r := counted(t, ok, failed); r.Discarded != "node c: job w: input/output error" {
		t.Errorf("%q", r.Discarded)
	}
	if r := counted(t, ok); r.Discarded != "" {
		t.Errorf("%q", r.Discarded)
	}
	r := counted(t, ok, finished(t, "d", 0, 3*second, 4*second))
	if !strings.HasPrefix(r.Discarded, "the nodes never ran at the same time: the first had ended 2.000 s") || r.WindowNS != 0 || r.Nodes[0].Window[write].IOs != 0 {
		t.Errorf("%+v", r)
	}
}

// TestSilences: those of the run, since its begin.
func TestSilences(t *testing.T) {
	t.Parallel()
	got := silences([]agent.Stall{{AtNS: 5, TookNS: 4}, {AtNS: 8, TookNS: 4}, {AtNS: 15, TookNS: 2}, {AtNS: 19, TookNS: 9}, {AtNS: 20, TookNS: 9}}, 10, 20)
	if want := []agent.Stall{{AtNS: -2, TookNS: 4}, {AtNS: 5, TookNS: 2}, {AtNS: 9, TookNS: 9}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestOverlap(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b, from, to int64
		want           float64
	}{
		{0, 10, 0, 10, 1}, {0, 10, 5, 20, 0.5}, {0, 10, -5, 1, 0.1}, {0, 10, 4, 6, 0.2},
		{0, 10, 10, 20, 0}, {0, 10, -9, 0, 0}, {5, 5, 0, 10, 0}, {6, 5, 0, 10, 0},
	} {
		if got := overlap(c.a, c.b, c.from, c.to); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
