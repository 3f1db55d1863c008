package lab

import (
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

// checkStalls: the stalls are found in the node that they were injected in, with
// their length, and in no other.
func checkStalls(t *testing.T, dir string, injected time.Duration) {
	t.Helper()
	r, err := outcome.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	run := r.Cells[0].Runs[0]
	if run.Discarded != "" {
		t.Fatalf("%s\n%s", run.Discarded, run.Console)
	}
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
			if took := time.Duration(s.TookNS); took < injected*9/10 || took > injected*11/10 {
				t.Errorf("node %s: a stall of %v, injected were %v", n.Name, took, injected)
			}
		}
	}
	if s := run.Figures().Stalls; s.Overlapping > 0 && s.Most > 1 && s.OverlapNS > int64(injected/2) {
		t.Errorf("stalls of two nodes overlap: %+v", s)
	}
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
	e, o := experiment(t, stalling)
	o.Set["client"], o.Set["filter"] = "host", "b@delay:flush=4s"
	if _, err := Run(t.Context(), e, o); err != nil {
		t.Fatal(err)
	}
	checkStalls(t, o.Out, 4*time.Second)
}

// TestStallOfGuest injects longer stalls: an emulated guest on a busy host needs
// some tenths of a second to notice that one is over.
func TestStallOfGuest(t *testing.T) {
	if testing.Short() {
		t.Skip("boots two guests")
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("guests are x86-64")
	}
	t.Parallel()
	e, o := experiment(t, stalling)
	o.Set["accel"], o.Set["server"], o.Set["filter"] = "tcg", "vmdisk", "b@delay:flush=6s"
	if _, err := Run(t.Context(), e, o); err != nil {
		t.Fatal(err)
	}
	checkStalls(t, o.Out, 6*time.Second)
}
