package outcome

import (
	"math"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/lab/monitor"
	"github.com/vmdisk/vmdisk/lab/spec"
)

func judged(t *testing.T, r *Results) Verdict {
	t.Helper()
	v := Judge(r, "backing", "4k")
	if len(v) != 1 {
		t.Fatalf("%d verdicts", len(v))
	}
	return v[0]
}

func want(t *testing.T, v Verdict, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(v.Text+" "+v.Ceiling, p) {
			t.Errorf("%q lacks %q", v.Text+" "+v.Ceiling, p)
		}
	}
}

func TestSureWinner(t *testing.T) {
	t.Parallel()
	v := judged(t, madeResults(4,
		made{backing: "copy", iops: around(1200, 5), host: 0.4, device: 0.97},
		made{backing: "reflink", iops: around(6000, 5), host: 0.98}))
	if v.Winner != "reflink" || !v.Sure || v.Worst != "copy" || math.Abs(v.Ratio-5) > 0.2 || v.P > 0.05 || v.None != "" {
		t.Errorf("%+v", v)
	}
	want(t, v, "reflink wins with ", "a ratio of 5.0", "reflink: the host's CPUs were the limit (98 % busy, QEMU used 1.6 of 2 CPUs)",
		"copy: the device loop3 was the limit (97 % busy)", "CPU ceiling: reached by reflink (host's CPUs; the host was 98 % busy)")
}

// TestTooFewRepeats: with three repeats no test can tell; more cells need more.
func TestTooFewRepeats(t *testing.T) {
	t.Parallel()
	v := judged(t, madeResults(1, made{backing: "copy", iops: around(1000, 3)}, made{backing: "reflink", iops: around(5000, 3)}))
	if v.Winner != "" || v.Best != "reflink" || v.Sure || v.P != -1 {
		t.Errorf("%+v", v)
	}
	want(t, v, "There are too few repeats to tell (3; at least 4 are needed). Measured were 4", "CPU ceiling: not reached")
	var cells []made
	for i, b := range []string{"a", "b", "c", "d"} {
		cells = append(cells, made{backing: b, iops: around(1000*float64(i+1), 4)})
	}
	v = judged(t, madeResults(1, cells...))
	if v.Sure {
		t.Errorf("four cells with four repeats: %+v", v)
	}
	want(t, v, "There are too few repeats to tell (4; at least 5 are needed)")
	for i := range cells {
		cells[i].iops = around(1000*float64(i+1), 5)
	}
	if v = judged(t, madeResults(1, cells...)); !v.Sure || v.Winner != "d" {
		t.Errorf("four cells with five repeats: %+v", v)
	}
}

func TestTie(t *testing.T) {
	t.Parallel()
	same := []float64{100, 104, 102, 98, 101}
	v := judged(t, madeResults(1, made{backing: "copy", iops: same}, made{backing: "reflink", iops: same}))
	if v.Sure || v.P < 0.5 || len(v.Ties) != 1 {
		t.Errorf("%+v", v)
	}
	want(t, v, "No difference is visible between copy and reflink (p = ", "would have shown one of ")
	if v.Visible < 2 || v.Visible > 12 {
		t.Errorf("values from 98 to 104: a difference of %v %% would have shown", v.Visible)
	}
	v = judged(t, madeResults(1, made{backing: "copy", iops: same}, made{backing: "reflink", iops: same}, made{backing: "slow", iops: []float64{10, 11, 12, 13, 14}}))
	if v.Sure || v.Winner != "" || len(v.Ties) != 1 || v.Worst != "slow" {
		t.Errorf("%+v", v)
	}
	want(t, v, "No difference is visible between copy and reflink", "Surely behind them is slow")
}

// TestVisible: what would have been seen is what the test sees.
func TestVisible(t *testing.T) {
	t.Parallel()
	scattered := []float64{80, 120, 95, 105, 100}
	a := contender{label: "a", values: scattered, median: 100}
	near := visible(a, a, 1)
	if near < 20 || near > 80 {
		t.Errorf("values from 80 to 120 would show %v %%", near)
	}
	if more := visible(a, a, 2); more < near {
		t.Errorf("two tests would show %v %%, one %v %%", more, near)
	}
	if three := []float64{1, 2, 3}; visible(contender{values: three, median: 2}, contender{values: three, median: 2}, 1) != 0 {
		t.Error("three repeats show something")
	}
}

// TestEmulatedCPU: under TCG no winner is named where the CPUs of guests were the limit,
// as the guests, the engine or the host saw it, be they the slower's or the faster's.
func TestEmulatedCPU(t *testing.T) {
	t.Parallel()
	slow, fast := around(800, 5), around(1100, 5)
	for name, limited := range map[string]made{
		"guest's CPU": {busy: 0.95, host: 0.5},
		"engine":      {busy: 0.5, host: 0.5, bound: "cpu"},
		"host's CPU":  {busy: 0.5, host: 0.99},
	} {
		a, b := limited, limited
		a.backing, a.iops, b.backing, b.iops = "copy", slow, "reflink", fast
		r := madeResults(4, a, b)
		r.Environment.Accel = "tcg"
		v := judged(t, r)
		if v.Winner != "" || v.None != "the guests' CPU was the limit (TCG): no winner is named" {
			t.Errorf("%s: %+v", name, v)
		}
		want(t, v, "The guests' CPU was the limit (TCG): no winner is named. Measured were 4", " of reflink and ", "TCG")
		r.Environment.Accel = "kvm"
		if v := judged(t, r); v.Winner != "reflink" || !v.Sure {
			t.Errorf("%s with KVM: %+v", name, v)
		}
	}
	r := madeResults(4, made{backing: "throttled", iops: around(100, 5), busy: 0.2, host: 0.3}, made{backing: "copy", iops: fast, busy: 0.97, host: 0.9})
	r.Environment.Accel = "tcg"
	v := judged(t, r)
	if v.Winner != "" || v.Sure || v.None == "" {
		t.Errorf("%+v", v)
	}
}

// TestHostClients: the CPU of a process of this host is not a guest's, with any
// accelerator.
func TestHostClients(t *testing.T) {
	t.Parallel()
	r := madeResults(4, made{backing: "copy", iops: around(800, 5), busy: 0.95, bound: "cpu"}, made{backing: "nbd", iops: around(400, 5), server: 0.99})
	r.Environment.Accel = "tcg"
	for i := range r.Cells {
		r.Cells[i].Client = spec.ClientHost
	}
	v := judged(t, r)
	if v.Winner != "copy" || !v.Sure {
		t.Errorf("%+v", v)
	}
	want(t, v, "copy: the clients' own CPU was the limit (0.95 CPUs each)", "nbd: server a was the limit (0.99 CPUs)")
}

// TestOthers: what other programs used of the CPUs decides nothing.
func TestOthers(t *testing.T) {
	t.Parallel()
	r := madeResults(1, made{backing: "copy", iops: around(800, 5), host: 0.99}, made{backing: "nbd", iops: around(400, 5), host: 0.5})
	for j := range r.Cells[0].Runs {
		r.Cells[0].Runs[j].Host.Processes[0].CPUs = 0.4
	}
	v := judged(t, r)
	if v.Winner != "" || v.None != "other programs' use of the CPUs was the limit: no winner is named" {
		t.Errorf("%+v", v)
	}
}

// TestBareLabels: a value that says nothing by itself has its axis with it.
func TestBareLabels(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{"on": "iothread=on", "4": "iothread=4", "none": "iothread=none", "reflink": "reflink"} {
		if got := label([]spec.Value{{Axis: "iothread", Value: value}}); got != want {
			t.Errorf("%s: %s, want %s", value, got, want)
		}
	}
}

// TestBusyHost: an engine that says "cpu" with little CPU of its own means the
// machine's; what others used of it is said, and what was stolen counts as used.
func TestBusyHost(t *testing.T) {
	t.Parallel()
	r := madeResults(1, made{backing: "copy", iops: around(800, 5), busy: 0.2, bound: "cpu", host: 0.7}, made{backing: "loop", iops: around(400, 5), host: 0.6})
	for i := range r.Cells {
		r.Cells[i].Client = spec.ClientHost
		for j := range r.Cells[i].Runs {
			h := &r.Cells[i].Runs[j].Host
			h.Processes[0] = monitor.Usage{Name: "client a", CPUs: 0.2}
			h.Steal = 0.36 * float64(i)
		}
	}
	v := judged(t, r)
	want(t, v, "copy: the host's CPUs were the limit, as the clients saw it (70 % busy over the whole run); programs outside the experiment and the kernel's own threads used 1.2 of 2 CPUs",
		"loop: the host's CPUs were the limit (96 % busy)", "the host's own hypervisor took 36 % of its CPUs away (steal)", "loop (host's CPUs; the host was 96 % busy)")
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	// Fewer but larger I/Os move more.
	r := madeResults(1, made{backing: "copy", iops: around(400, 5), block: 65536}, made{backing: "small", iops: around(500, 5), block: 32768})
	v := judged(t, r)
	if v.Metric != MetricBW || v.Winner != "copy" {
		t.Errorf("blocks of 64 KiB: %+v", v)
	}
	want(t, v, "MiB/s against")
	// Fewer IOPS, but shorter reads: the made-up latency is 8 s / IOPS, so turn it round.
	r = madeResults(1, made{backing: "mq", iops: around(400, 5), reads: true}, made{backing: "cfq", iops: around(4000, 5), reads: true})
	r.Sweeps[0].Workloads[0].Metric = MetricReadP99
	v = judged(t, r)
	if v.Winner != "cfq" || !v.Sure || v.Ratio < 5 {
		t.Errorf("p99 of reads: %+v", v)
	}
	want(t, v, "cfq wins with a p99 of reads of", "ms")
}

// TestLoadAxes: cells with other work are not compared; one verdict for each kind.
func TestLoadAxes(t *testing.T) {
	t.Parallel()
	r := madeResults(1, made{backing: "copy", iops: around(1000, 5)}, made{backing: "reflink", iops: around(2000, 5)},
		made{backing: "copy", iops: around(9000, 5)}, made{backing: "reflink", iops: around(7000, 5)})
	r.Sweeps[0].Axes = append(r.Sweeps[0].Axes, "iodepth")
	for i := range r.Cells {
		depth := []string{"1", "1", "8", "8"}[i]
		r.Cells[i].Varied = append(r.Cells[i].Varied, spec.Value{Axis: "iodepth", Value: depth})
		r.Cells[i].ID += ",iodepth=" + depth
	}
	v := Judge(r, "backing", "4k")
	if len(v) != 2 || v[0].Load != "iodepth=1" || v[0].Winner != "reflink" || v[1].Load != "iodepth=8" || v[1].Winner != "copy" {
		t.Errorf("%+v", v)
	}
	want(t, v[1], "iodepth=8: copy wins")
}

func TestNothingToJudge(t *testing.T) {
	t.Parallel()
	r := madeResults(1, made{backing: "copy", iops: around(1000, 2)}, made{backing: "reflink", iops: around(1000, 2)})
	for i := range r.Cells[1].Runs {
		r.Cells[1].Runs[i].Discarded = "node a: it broke"
	}
	if v := judged(t, r); v.Winner != "" || v.None != "only copy ran, there is nothing to compare it with" {
		t.Errorf("%+v", v)
	}
	r.Cells[0].Runs = nil
	if v := judged(t, r); v.Winner != "" || v.None != "no run counts" || v.Text != "No run counts." {
		t.Errorf("%+v", v)
	}
}

func TestHolm(t *testing.T) {
	t.Parallel()
	got := holm([]float64{0.04, 0.01, 0.03})
	for i, w := range []float64{0.06, 0.03, 0.06} {
		if math.Abs(got[i]-w) > 1e-12 {
			t.Errorf("%v", got)
		}
	}
	for n, w := range map[int]int{2: 4, 3: 5, 7: 5, 8: 6, 24: 6, 25: 7} {
		if got := needed(n); got != w {
			t.Errorf("%d cells need %d repeats, want %d", n, got, w)
		}
	}
}
