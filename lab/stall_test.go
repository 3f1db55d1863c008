package lab

import (
	"fmt"
	"maps"
	"runtime"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/lab/agent"
	"github.com/vmdisk/vmdisk/lab/outcome"
)

// stalling runs jobs that flush once each 40 writes, twice, in two nodes, of which
// one has a disk that is slow to flush.
const stalling = `
name: stalling
nodes: 2
disk: {size: 16M}
workloads:
  - name: w
    job: |
      [w]
      rw=write
      bs=4k
      size=400k
      fsync=40
      rate_iops=100
set:
  backing: sparse
  cache: writeback
axes: {bs: [4k]}
`

// checkStalls: the stalls are found in the node that they were injected in, and in
// no other. It tells whether all have their length, within a tenth.
func checkStalls(t *testing.T, dir string, injected time.Duration) (exact bool) {
	t.Helper()
	r, err := outcome.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	run := r.Cells[0].Runs[0]
	if run.Discarded != "" {
		t.Fatalf("%s\n%s", run.Discarded, run.Console)
	}
	exact = true
	for _, n := range run.Nodes {
		want := 0
		if n.Name == "b" {
			want = 2
		}
		long := longer(n.Result.Stalls, injected/2)
		if len(long) != want {
			t.Errorf("node %s: %d stalls of more than %v: %v", n.Name, len(long), injected/2, n.Result.Stalls)
		}
		for _, s := range long {
			took := time.Duration(s.TookNS)
			if took < injected*9/10 {
				t.Errorf("node %s: a stall of %v, injected were %v", n.Name, took, injected)
			}
			if took > injected*11/10 {
				t.Logf("node %s: a stall of %v, injected were %v", n.Name, took, injected)
				exact = false
			}
		}
	}
	if s := run.Figures().Stalls; s.Overlapping > 0 && s.Most > 1 && s.OverlapNS > int64(injected/2) {
		t.Errorf("stalls of two nodes overlap: %+v", s)
	}
	return exact
}

// injectStalls runs the experiment with stalls of growing lengths until they are
// found within a tenth of what they are. A busy host adds to a stall what it takes
// to run the node again, 1.3 s have been seen for a guest; that does not grow with
// the stall, but an error in how it is measured does.
func injectStalls(t *testing.T, set map[string]string, lengths ...time.Duration) {
	t.Helper()
	for _, length := range lengths {
		e, o := experiment(t, stalling)
		maps.Copy(o.Set, set)
		o.Set["filter"] = fmt.Sprintf("b@delay:flush=%v", length)
		if _, err := Run(t.Context(), e, o); err != nil {
			t.Fatal(err)
		}
		if checkStalls(t, o.Out, length) || t.Failed() {
			return
		}
	}
	t.Error("no run has measured its stalls within a tenth of their length")
}

// longer leaves out what a busy host does to a process.
func longer(all []agent.Stall, than time.Duration) []agent.Stall {
	var long []agent.Stall
	for _, s := range all {
		if s.TookNS > int64(than) {
			long = append(long, s)
		}
	}
	return long
}

func TestStallOfHostClient(t *testing.T) {
	t.Parallel()
	injectStalls(t, map[string]string{"client": "host"}, 4*time.Second, 15*time.Second)
}

func TestStallOfGuest(t *testing.T) {
	if testing.Short() {
		t.Skip("boots two guests")
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("guests are x86-64")
	}
	t.Parallel()
	injectStalls(t, map[string]string{"accel": "tcg", "server": "vmdisk"}, 6*time.Second, 25*time.Second)
}
