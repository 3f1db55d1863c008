package gate

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/lab/agent"
)

const job = "[w]\nrw=randwrite\nbs=4k\nioengine=libaio\niodepth=4\ntime_based\nruntime=700ms\nrate_iops=500\n"

func run(text string) Options { return Options{Run: agent.Run{JobFile: text}} }

// generous is far above what is asked for (50 ms), so that a busy host does not fail.
const generous = time.Second

// TestTogether: nodes of three kinds start at one time and are counted over the
// time that they have in common.
func TestTogether(t *testing.T) {
	t.Parallel()
	c, _ := process(t, "c", agent.Prepare{URL: "mem:4M"})
	nodes := []Node{inside(t, "a", agent.Prepare{URL: "mem:4M"}), inside(t, "b", agent.Prepare{URL: "mem:8M"}), c}
	var started, ended atomic.Int64
	var last atomic.Pointer[agent.Progress]
	o := run(strings.ReplaceAll(job, "700ms", "2500ms"))
	o.Started, o.Ended = func() { started.Add(1) }, func() { ended.Add(1) }
	o.Progress = func(p agent.Progress) { last.Store(&p) }
	r, err := Together(t.Context(), nodes, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("spread %v, window %v", time.Duration(r.SpreadNS), time.Duration(r.WindowNS))
	if r.Discarded != "" || len(r.Nodes) != 3 || started.Load() != 1 || ended.Load() != 1 {
		t.Fatalf("discarded %q, %d nodes, started %d, ended %d", r.Discarded, len(r.Nodes), started.Load(), ended.Load())
	}
	if r.SpreadNS < 0 || r.SpreadNS > int64(generous) || r.WindowAtNS != r.SpreadNS || r.WindowNS > int64(2500*time.Millisecond+generous) || r.WindowNS < int64(time.Second) {
		t.Errorf("spread %d, window of %d at %d", r.SpreadNS, r.WindowNS, r.WindowAtNS)
	}
	for i, n := range r.Nodes {
		f := n.Window[write]
		if n.Name != nodes[i].Name || f.IOPS < 50 || f.IOPS > 600 || f.BW < 4000*f.IOPS || f.Lat.N == 0 || n.Window[0].IOs != 0 {
			t.Errorf("node %s: %+v", n.Name, f)
		}
		if n.DriftPPM != 0 && (n.DriftPPM > 5000 || n.DriftPPM < -5000) || n.AtNS < 0 || n.AtNS > r.SpreadNS {
			t.Errorf("node %s: drift %v, start %d", n.Name, n.DriftPPM, n.AtNS)
		}
	}
	if p := last.Load(); p == nil || p.Share < 0 || p.Share > 1 {
		t.Errorf("progress %+v", p)
	}
}

// TestEndsEarlier: a node with a small disk is done while another works on; only
// the time of both counts.
func TestEndsEarlier(t *testing.T) {
	t.Parallel()
	nodes := []Node{inside(t, "a", agent.Prepare{URL: "mem:1M"}), inside(t, "b", agent.Prepare{URL: "mem:3M"})}
	r, err := Together(t.Context(), nodes, run("[w]\nrw=write\nbs=16k\nrate_iops=64\nioengine=sync\n"))
	if err != nil {
		t.Fatal(err)
	}
	a, b := r.Nodes[0], r.Nodes[1]
	took := a.Result.EndNS - a.Result.StartNS
	t.Logf("a took %v, b %v, window %v", time.Duration(took), time.Duration(b.Result.EndNS-b.Result.StartNS), time.Duration(r.WindowNS))
	const clocks = int64(50 * time.Millisecond) // what their measurement may be off
	if r.Discarded != "" || r.WindowNS > took+clocks || r.WindowNS < took-int64(generous) {
		t.Errorf("discarded %q; a ran for %d, the window is %d", r.Discarded, took, r.WindowNS)
	}
	if a.Result.Jobs[0].Dirs[write].IOs != 64 || b.Result.Jobs[0].Dirs[write].IOs != 192 {
		t.Fatalf("%d and %d writes", a.Result.Jobs[0].Dirs[write].IOs, b.Result.Jobs[0].Dirs[write].IOs)
	}
	if n := b.Window[write].IOs; n < 32 || n > 128 {
		t.Errorf("%d of b's 192 writes fell into the third of its time that counts", n)
	}
}

// TestNeverTogether: a node that begins when the other has ended.
func TestNeverTogether(t *testing.T) {
	t.Parallel()
	f := &fake{result: func(start int64) agent.Result {
		return agent.Result{StartNS: start + int64(time.Minute), EndNS: start + int64(time.Hour)}
	}}
	r, err := Together(t.Context(), []Node{(&fake{result: steady(time.Second)}).start(t, "a"), f.start(t, "b")}, run(job))
	if err != nil {
		t.Fatal(err)
	}
	if r.WindowNS != 0 || !strings.HasPrefix(r.Discarded, "the nodes never ran at the same time: the first had ended 59.0") {
		t.Errorf("window %d, discarded %q", r.WindowNS, r.Discarded)
	}
}

// TestDriftDiscards: a node whose clock runs ahead of the host's by 5 %.
func TestDriftDiscards(t *testing.T) {
	t.Parallel()
	zero := agent.Monotonic()
	fast := func() int64 { now := agent.Monotonic(); return now + (now-zero)/20 }
	f := &fake{clock: fast, result: steady(time.Second)}
	started := make(chan struct{})
	o := run("")
	o.Lead, o.Started = time.Second, func() { close(started) }
	r, err := Together(t.Context(), []Node{(&fake{result: steady(time.Second)}).start(t, "a"), f.start(t, "b")}, o)
	if err != nil {
		t.Fatal(err)
	}
	if d := r.Nodes[1].DriftPPM; d < 40000 || d > 60000 || !strings.HasPrefix(r.Discarded, "node b: its clock ran +") || r.Nodes[0].DriftPPM > 5000 {
		t.Errorf("drift %v, discarded %q", d, r.Discarded)
	}
}

// free fails the test if the node does not take another run.
func free(t *testing.T, n Node) {
	t.Helper()
	x, err := n.Conn.Start(t.Context(), agent.Run{JobFile: "[w]\nrw=write\nbs=64k\nsize=64k\n"})
	if err == nil {
		_, err = x.Wait(t.Context())
	}
	if err != nil {
		t.Errorf("node %s after the failure of another: %v", n.Name, err)
	}
}

// TestFailures: the node that failed is named, the others stop in order, at
// whatever time it is.
func TestFailures(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]*fake{
		"refuses":                   {answer: func(op string) (string, bool) { return "no room", op != "run" }},
		"no clock":                  {answer: func(op string) (string, bool) { return "no clock", op != "ping" }},
		"hangs up while laying out": {dies: func(op string) (bool, bool) { return op == "run", false }},
		"hangs up at the clock":     {dies: func(op string) (bool, bool) { return op == "ping", false }},
		"hangs up at the start":     {dies: func(op string) (bool, bool) { return op == "go", false }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := inside(t, "a", agent.Prepare{URL: "mem:4M"})
			_, err := Together(t.Context(), []Node{a, f.start(t, "b")}, run(strings.ReplaceAll(job, "700ms", "600s")))
			var at *NodeError
			if !errors.As(err, &at) || at.Node != "b" || !strings.HasPrefix(err.Error(), "node b: ") || strings.Contains(err.Error(), "\n") || Exited(err) || Silent(err) {
				t.Errorf("%v", err)
			}
			free(t, a)
		})
	}
}

// TestBadJobFile: what all nodes refuse is said once.
func TestBadJobFile(t *testing.T) {
	t.Parallel()
	nodes := []Node{inside(t, "a", agent.Prepare{URL: "mem:4M"}), inside(t, "b", agent.Prepare{URL: "mem:4M"})}
	_, err := Together(t.Context(), nodes, run("[w]\nrw=fly\n"))
	if err == nil || !strings.Contains(err.Error(), "fly") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
	if _, err := Together(t.Context(), nil, run(job)); err == nil {
		t.Error("no nodes, no error")
	}
}

// TestFailedJob: a job that fails in one node does not count, and is no failure of
// the lab.
func TestFailedJob(t *testing.T) {
	t.Parallel()
	nodes := []Node{
		inside(t, "a", agent.Prepare{URL: "mem:4M"}),
		inside(t, "b", agent.Prepare{URL: "mem:4M", Filters: []string{"fault:op=write,after=20"}}),
	}
	r, err := Together(t.Context(), nodes, run(job))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(r.Discarded, "node b: ") || !strings.Contains(r.Discarded, "input/output error") {
		t.Errorf("discarded %q", r.Discarded)
	}
}

// TestCancel: a context that ends stops all nodes.
func TestCancel(t *testing.T) {
	t.Parallel()
	nodes := []Node{inside(t, "a", agent.Prepare{URL: "mem:4M"}), inside(t, "b", agent.Prepare{URL: "mem:4M"})}
	ctx, cancel := context.WithCancel(t.Context())
	o := run(strings.ReplaceAll(job, "700ms", "600s"))
	o.Started = cancel
	if _, err := Together(ctx, nodes, o); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	for _, n := range nodes {
		free(t, n)
	}
}

// TestSilent: a node that says nothing any more is given up.
func TestSilent(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]*fake{
		"from the start": {answer: func(string) (string, bool) { return "", false }},
		"in the run":     {answer: func(op string) (string, bool) { return "", op != "go" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := inside(t, "a", agent.Prepare{URL: "mem:4M"})
			o := run(strings.ReplaceAll(job, "700ms", "600s"))
			o.SilentLimit = 4 * time.Second
			_, err := Together(t.Context(), []Node{a, f.start(t, "b")}, o)
			if !Silent(err) || Exited(err) || !strings.HasPrefix(err.Error(), "node b: no sign of life for ") {
				t.Errorf("%v", err)
			}
			free(t, a)
		})
	}
}

// TestStuck: a node that lives and gets nothing done is given up, one that is slow
// is not.
func TestStuck(t *testing.T) {
	t.Parallel()
	a := inside(t, "a", agent.Prepare{URL: "mem:4M", Filters: []string{"delay:read=1s,write=1s"}})
	b, _ := process(t, "b", agent.Prepare{URL: "mem:4M", Filters: []string{"delay:read=10m,write=10m"}})
	o := run(strings.ReplaceAll(job, "700ms", "600s"))
	o.StuckLimit = 4 * time.Second
	_, err := Together(t.Context(), []Node{a, b}, o)
	if !errors.Is(err, errStuck) || !strings.HasPrefix(err.Error(), "node b: no I/O was completed in ") {
		t.Errorf("%v", err)
	}
	free(t, a)
}

// TestFrozen: a process that stands still is given up; one that goes on in time is
// not, and the silence is told.
func TestFrozen(t *testing.T) {
	t.Parallel()
	t.Run("for ever", func(t *testing.T) {
		t.Parallel()
		a := inside(t, "a", agent.Prepare{URL: "mem:4M"})
		b, h := process(t, "b", agent.Prepare{URL: "mem:4M"})
		begin := make(chan struct{})
		given := make(chan struct{})
		wg := freeze(t, h.PID(), begin, func() { <-given })
		o := run(strings.ReplaceAll(job, "700ms", "600s"))
		o.SilentLimit, o.Started = 4*time.Second, func() { close(begin) }
		_, err := Together(t.Context(), []Node{a, b}, o)
		if !Silent(err) || !strings.HasPrefix(err.Error(), "node b: ") {
			t.Errorf("%v", err)
		}
		free(t, a)
		close(given)
		wg.Wait()
	})
	t.Run("for a while", func(t *testing.T) {
		t.Parallel()
		a := inside(t, "a", agent.Prepare{URL: "mem:4M"})
		b, h := process(t, "b", agent.Prepare{URL: "mem:4M"})
		begin := make(chan struct{})
		const while = 3 * time.Second
		wg := freeze(t, h.PID(), begin, func() { time.Sleep(while) })
		o := run(strings.ReplaceAll(job, "700ms", "5s"))
		o.Started = func() { close(begin) }
		r, err := Together(t.Context(), []Node{a, b}, o)
		wg.Wait()
		if err != nil {
			t.Fatal(err)
		}
		long := func(all []agent.Stall) (n int) { // a busy host makes short ones
			for _, s := range all {
				if s.TookNS >= int64(while) {
					n++
				}
			}
			return n
		}
		if long(r.Nodes[0].Silent) != 0 || long(r.Nodes[1].Silent) != 1 {
			t.Errorf("silences: a %v, b %v", r.Nodes[0].Silent, r.Nodes[1].Silent)
		}
	})
}

// TestExited: a node whose process ends, with its channel or without.
func TestExited(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]*fake{
		"with its channel":    {dies: func(op string) (bool, bool) { return op == "go", op == "go" }},
		"without its channel": {dies: func(op string) (bool, bool) { return false, op == "go" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := inside(t, "a", agent.Prepare{URL: "mem:4M"})
			_, err := Together(t.Context(), []Node{a, f.start(t, "b")}, run(strings.ReplaceAll(job, "700ms", "600s")))
			if !Exited(err) || !strings.HasPrefix(err.Error(), "node b: the node ended") {
				t.Errorf("%v", err)
			}
			free(t, a)
		})
	}
	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		b, h := process(t, "b", agent.Prepare{URL: "mem:4M"})
		o := run(strings.ReplaceAll(job, "700ms", "600s"))
		var wg sync.WaitGroup
		o.Started = func() { wg.Go(func() { kill(t, h) }) }
		_, err := Together(t.Context(), []Node{b}, o)
		wg.Wait()
		if !Exited(err) || !strings.HasPrefix(err.Error(), "node b: the node ended") {
			t.Errorf("%v", err)
		}
	})
}
