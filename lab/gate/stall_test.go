package gate

import (
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/lab/agent"
)

// injected is how long one flush of one node takes in the tests below.
const injected = 2 * time.Second

// Every write takes 4 ms, so that what a busy host adds to one is far from a stall
// of its own; the one flush of the job comes after 150 of its 250 writes.
const (
	base      = "delay:write=4ms"
	lone      = "delay:write=4ms,flush=2s"
	stallJob  = "[w]\nrw=randwrite\nbs=4k\nsize=1000k\nfsync=150\nioengine=sync\n"
	stallJobs = "[w]\nrw=randwrite\nbs=4k\nsize=1000k\nfsync=150\nioengine=libaio\niodepth=4\nnumjobs=2\ngroup_reporting\n"
)

// TestStall: a lone stall is found in the node in which it was injected, with its
// length and its place, and in no other.
func TestStall(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		job    string
		stalls int // of the node
		other  func(t *testing.T) Node
	}{
		"one job": {stallJob, 1, func(t *testing.T) Node { return inside(t, "c", agent.Prepare{URL: "mem:8M", Filters: []string{base}}) }},
		"a process beside it": {stallJob, 1, func(t *testing.T) Node {
			n, _ := process(t, "c", agent.Prepare{URL: "mem:8M", Filters: []string{base}})
			return n
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodes := []Node{
				inside(t, "a", agent.Prepare{URL: "mem:8M", Filters: []string{base}}),
				inside(t, "b", agent.Prepare{URL: "mem:8M", Filters: []string{lone}}),
				c.other(t),
			}
			r, err := Together(t.Context(), nodes, run(c.job))
			if err != nil {
				t.Fatal(err)
			}
			if r.Discarded != "" {
				t.Fatalf("discarded: %s", r.Discarded)
			}
			for _, n := range r.Nodes {
				long := longStalls(n.Result.Stalls)
				for _, s := range long {
					t.Logf("node %s stood still for %v, at %v", n.Name, time.Duration(s.TookNS), time.Duration(s.AtNS))
				}
				if n.Name != "b" {
					if len(long) > 0 || len(longStalls(n.Result.Jobs[0].Stalls)) > 0 {
						t.Errorf("node %s stalls too", n.Name)
					}
					continue
				}
				checkStall(t, n.Result, long)
			}
		})
	}
}

// longStalls are those of half the injected length or more: a busy host makes
// short ones by itself.
func longStalls(all []agent.Stall) []agent.Stall {
	var long []agent.Stall
	for _, s := range all {
		if s.TookNS >= int64(injected/2) {
			long = append(long, s)
		}
	}
	return long
}

// checkStall: one, within a tenth of its length, where the work stopped.
func checkStall(t *testing.T, r *agent.Result, long []agent.Stall) {
	t.Helper()
	if len(long) != 1 || len(longStalls(r.Jobs[0].Stalls)) != 1 {
		t.Fatalf("stalls of the node: %v, of its job: %v", long, r.Jobs[0].Stalls)
	}
	s := long[0]
	if off := time.Duration(s.TookNS) - injected; off < -injected/10 || off > injected/10 {
		t.Errorf("a stall of %v is found as one of %v", injected, time.Duration(s.TookNS))
	}
	// Where it lies: 150 writes of the job are done before it, 100 after.
	var before uint64
	for _, p := range r.Jobs[0].Points {
		if p.AtNS <= s.AtNS {
			before += p.IOs[write]
		}
		if from := p.AtNS - p.TookNS; from > s.AtNS && p.AtNS < s.AtNS+s.TookNS && p.IOs[write] > 0 {
			t.Errorf("writes within the stall: %+v", p)
		}
	}
	if s.AtNS < int64(150*4*time.Millisecond) || before > 150 {
		t.Errorf("it is found at %v, after %d writes; want 150", time.Duration(s.AtNS), before)
	}
}

// TestStallOfDepth: a job whose other I/O goes on beside the slow flush stands
// still only as long as nothing ends.
func TestStallOfDepth(t *testing.T) {
	t.Parallel()
	nodes := []Node{
		inside(t, "a", agent.Prepare{URL: "mem:8M", Filters: []string{base}}),
		inside(t, "b", agent.Prepare{URL: "mem:8M", Filters: []string{lone}}),
	}
	r, err := Together(t.Context(), nodes, run(stallJobs))
	if err != nil {
		t.Fatal(err)
	}
	if long := longStalls(r.Nodes[0].Result.Stalls); len(long) != 0 {
		t.Errorf("node a: %v", long)
	}
	for _, s := range longStalls(r.Nodes[1].Result.Stalls) {
		t.Logf("node b stood still for %v", time.Duration(s.TookNS))
		if s.TookNS > int64(injected+injected/10) {
			t.Errorf("longer than the flush: %v", time.Duration(s.TookNS))
		}
	}
}
