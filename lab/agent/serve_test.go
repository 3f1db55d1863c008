package agent

import (
	"context"
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/bench/hist"
	"github.com/vmdisk/vmdisk/bench/result"
)

// TestStoppedResult: what a run did until it was stopped is told, and marked.
func TestStoppedResult(t *testing.T) {
	t.Parallel()
	c := pair(t)
	prepared(t, c, Prepare{URL: "mem:8M"})
	for _, gate := range []bool{false, true} {
		x := started(t, c, Run{JobFile: forever, Gate: gate})
		if gate {
			if err := x.Ready(t.Context()); err != nil {
				t.Fatal(err)
			}
		} else {
			eventually(t, "under way", func() bool { return x.Progress().IOPS > 0 })
			if p := x.Progress(); p.Share <= 0 || p.BW < 4096 {
				t.Errorf("progress %+v", p)
			}
		}
		if err := c.lines.write(sent{ID: x.id, Op: opStop}); err != nil {
			t.Fatal(err)
		}
		res, err := x.Wait(t.Context())
		if err != nil || res.Err != stopped {
			t.Fatalf("%+v, %v", res, err)
		}
		if did := len(res.Jobs) == 1 && res.Jobs[0].Dirs[1].IOs > 0; did == gate {
			t.Errorf("gate %v: %+v", gate, res.Jobs)
		}
		if began := res.StartNS > 0; began == gate || began && res.EndNS <= res.StartNS {
			t.Errorf("gate %v: from %d to %d", gate, res.StartNS, res.EndNS)
		}
	}
}

// TestOneAtATime: a node that is busy says so, and its clock still answers.
func TestOneAtATime(t *testing.T) {
	t.Parallel()
	c := pair(t)
	prepared(t, c, Prepare{URL: "mem:8M"})
	ctx, cancel := context.WithCancel(t.Context())
	x := started(t, c, Run{JobFile: forever, Gate: true})
	if err := x.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Prepare(ctx, Prepare{URL: "mem:1M"}); err == nil || !strings.Contains(err.Error(), "run is still under way") {
		t.Errorf("a second operation: %v", err)
	}
	if _, err := c.Clock(ctx); err != nil {
		t.Error(err)
	}
	cancel()
	if _, err := x.Wait(ctx); err == nil {
		t.Error("a run at its gate had a result")
	}
}

// TestUnknownFields: an older agent takes what a newer lab says besides.
func TestUnknownFields(t *testing.T) {
	t.Parallel()
	c := pair(t)
	var got Prepared
	body := json.RawMessage(`{"url":"mem:2M","colour":"red"}`)
	if err := c.do(t.Context(), opPrepare, body, &got, nil); err != nil || got.Size != 2<<20 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestLabGone: a node whose lab is gone ends what it does.
func TestLabGone(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- Serve(t.Context(), far, Options{}) }()
	c := NewConn(near)
	prepared(t, c, Prepare{URL: "mem:8M"})
	x := started(t, c, Run{JobFile: forever})
	eventually(t, "under way", func() bool { return x.Progress().IOPS > 0 })
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Errorf("the agent: %v", err)
	}
}

// TestBeyondTheFileSystem: a job that names a device would destroy the file system
// its disk has.
func TestBeyondTheFileSystem(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{"": true, "filename=f": true, "nrfiles=3": true, "filename=/dev/vda": false, "filename=../../dev/vda": false, "filename=a:/b": false} {
		x := &execution{disk: &testDisk{mount: testMount}, run: Run{JobFile: "[j]\nrw=write\nsize=1m\ndirectory=/etc\n" + name + "\n"}}
		_, err := x.plan()
		if ok != (err == nil) || err != nil && !strings.Contains(err.Error(), "job j names") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestHistSums: jobs of a group have one histogram for each second, in order.
func TestHistSums(t *testing.T) {
	t.Parallel()
	counts := func(ns ...int64) []uint64 {
		all := make([]uint64, hist.Buckets)
		for _, n := range ns {
			all[hist.Index(n)]++
		}
		return all
	}
	const ms = time.Millisecond
	a := &result.Job{Begin: 5 * ms, HistLog: []result.HistRecord{{At: 1001 * ms, Counts: counts(100, 100)}, {At: 2003 * ms, Counts: counts(200)}, {At: 2003 * ms, Dir: 1, Counts: counts(7)}}}
	b := &result.Job{Begin: 6 * ms, HistLog: []result.HistRecord{{At: 1010 * ms, Counts: counts(100, 300)}}}
	var sums histSums
	sums.add(a, 5*ms)
	sums.add(b, 5*ms)
	got := sums.points()
	if len(got) != 3 || got[0].AtNS != int64(1011*ms) || got[1].Dir != 0 || got[2].Dir != 1 {
		t.Fatalf("%+v", got)
	}
	if text, err := json.Marshal(got[0].Bins); err != nil || string(text) != "[100,3,302,1]" {
		t.Errorf("%s, %v", text, err)
	}
}
