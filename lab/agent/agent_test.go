package agent

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pair connects a lab's end with an agent of this process.
func pair(t *testing.T) *Conn {
	t.Helper()
	near, far := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- Serve(context.Background(), far, Options{Version: "test"}) }()
	c := NewConn(near)
	t.Cleanup(func() {
		_ = c.Close()
		if err := <-served; err != nil && !strings.Contains(err.Error(), "closed pipe") {
			t.Errorf("the agent ended with %v", err)
		}
	})
	h, err := c.Hello(t.Context())
	if err != nil || h.CPUs < 1 || h.Memory < 1<<20 || h.Kernel == "" || h.Version != "test" || h.PID != os.Getpid() {
		t.Fatalf("hello %+v, %v", h, err)
	}
	return c
}

func prepared(t *testing.T, c *Conn, p Prepare) Prepared {
	t.Helper()
	got, err := c.Prepare(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

const writes = "[w]\nrw=randwrite\nbs=4k\nsize=1m\nioengine=libaio\niodepth=4\n"

// TestGatedRun: nothing happens before the time of the start, everything after.
func TestGatedRun(t *testing.T) {
	t.Parallel()
	c := pair(t)
	if got := prepared(t, c, Prepare{URL: "mem:8M"}); got.Size != 8<<20 {
		t.Errorf("prepared %+v", got)
	}
	k, err := c.Clock(t.Context())
	if err != nil || k.ErrNS <= 0 || max(k.OffsetNS, -k.OffsetNS) > k.ErrNS {
		t.Fatalf("clock of the same machine: %+v, %v", k, err)
	}
	r, err := c.Start(t.Context(), Run{JobFile: writes + "numjobs=2\ngroup_reporting\n", Gate: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	start := Monotonic() + int64(30*time.Millisecond)
	if err := r.Go(start); err != nil {
		t.Fatal(err)
	}
	res, err := r.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if res.Err != "" || res.StartNS < start || res.EndNS < res.StartNS {
		t.Errorf("asked to start at %d: %d to %d, error %q", start, res.StartNS, res.EndNS, res.Err)
	}
	if len(res.Jobs) != 1 || res.Jobs[0].Jobs != 2 || res.Jobs[0].Dirs[1].IOs != 512 || res.Jobs[0].Dirs[1].Bytes != 2<<20 {
		t.Errorf("jobs %+v", res.Jobs)
	}
	var points, hists uint64
	for _, p := range res.Jobs[0].Points {
		points += p.IOs[1]
		if p.AtNS < 0 {
			t.Errorf("a point before the start: %+v", p)
		}
	}
	for _, h := range res.Jobs[0].Hists {
		if h.TookNS <= 0 || h.TookNS > h.AtNS {
			t.Errorf("an interval of %d ns that ends at %d", h.TookNS, h.AtNS)
		}
		for _, b := range h.Bins {
			hists += b.Count
		}
	}
	if points != 512 || hists != 512 {
		t.Errorf("%d I/Os in points, %d in histograms, want 512", points, hists)
	}
	if len(res.JSON) == 0 || !strings.Contains(res.Text, "WRITE:") {
		t.Errorf("%d bytes of JSON, text %q", len(res.JSON), res.Text)
	}
}

// TestStop: a context that ends makes the node stop in order.
func TestStop(t *testing.T) {
	t.Parallel()
	c := pair(t)
	prepared(t, c, Prepare{URL: "mem:8M"})
	ctx, cancel := context.WithCancel(t.Context())
	r, err := c.Start(ctx, Run{JobFile: writes + "time_based\nruntime=600\n"})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := r.Wait(ctx); err == nil || !strings.Contains(err.Error(), "canceled") {
		t.Errorf("wait: %v", err)
	}
	// The node is free again.
	r, err = c.Start(t.Context(), Run{JobFile: writes})
	if err != nil {
		t.Fatal(err)
	}
	if res, err := r.Wait(t.Context()); err != nil || res.Err != "" {
		t.Errorf("after a stop: %+v, %v", res, err)
	}
}

// TestRefusals: what the node cannot do is one line, and the node lives on.
func TestRefusals(t *testing.T) {
	t.Parallel()
	c := pair(t)
	run := func(r Run) error {
		x, err := c.Start(t.Context(), r)
		if err == nil {
			_, err = x.Wait(t.Context())
		}
		return err
	}
	refuse := func(err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want %q", err, want)
		}
	}
	refuse(run(Run{JobFile: writes}), "no disk was prepared")
	_, err := c.Prepare(t.Context(), Prepare{URL: "/nowhere/disk"})
	refuse(err, "no such file")
	_, err = c.Prepare(t.Context(), Prepare{URL: "gopher:x"})
	refuse(err, "gopher")
	prepared(t, c, Prepare{URL: "mem:8M"})
	refuse(run(Run{JobFile: "[a]\nrw=fly\n"}), "fly")
	refuse(run(Run{JobFile: writes, Engine: "vdbench"}), "vdbench")
	refuse(run(Run{JobFile: writes, Engine: "fio"}), "engine=vmdisk")
	refuse(c.do(t.Context(), "dance", nil, nil, nil), "newer")
	if err := run(Run{JobFile: writes}); err != nil {
		t.Errorf("a run after refusals: %v", err)
	}
}

// TestFill: every block is written, no two alike.
func TestFill(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, make([]byte, 3<<20+4096), 0o600); err != nil {
		t.Fatal(err)
	}
	prepared(t, pair(t), Prepare{URL: "raw:" + file, Fill: true})
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i := 0; i < len(got); i += 4096 {
		block := string(got[i : i+4096])
		if seen[block] || block == string(make([]byte, 4096)) {
			t.Fatalf("the block at %d is empty or was there before", i)
		}
		seen[block] = true
	}
}

// TestByFio: fio does the same job with the same result.
func TestByFio(t *testing.T) {
	t.Parallel()
	if fioVersion("") == "" {
		t.Fatal("fio is missing; run: scripts/peers.sh")
	}
	file := filepath.Join(t.TempDir(), "a:disk")
	if err := os.WriteFile(file, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	c := pair(t)
	prepared(t, c, Prepare{URL: "raw:" + file})
	r, err := c.Start(t.Context(), Run{JobFile: "[global]\nbs=64k\n[/dev/xvda]\nrw=randwrite\nsize=4m\nnumjobs=1\nfilename=/else\n", Engine: "fio",
		Options: []string{"bs=4k", "size=1m"}, Gate: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Go(Monotonic()); err != nil {
		t.Fatal(err)
	}
	res, err := r.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if res.Err != "" || len(res.Jobs) != 1 || res.Jobs[0].Dirs[1].IOs != 256 || res.Jobs[0].Dirs[1].Clat.N != 256 {
		t.Errorf("%+v", res)
	}
	if got, err := os.ReadFile(file); err != nil || strings.Count(string(got[:1<<20]), "\x00") > 1<<19 {
		t.Errorf("the disk was not written: %v", err)
	}
}
