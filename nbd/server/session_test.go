package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/server"
)

// gated lets operations through when told, and says when one waits.
type gated struct {
	*below
	entered chan struct{}
	gate    chan struct{}
	flushes atomic.Int32
}

func newGated(t testing.TB, size int64) *gated {
	return &gated{below: &below{d: memDisk(t, size)}, entered: make(chan struct{}, 1000), gate: make(chan struct{})}
}

func (g *gated) pass(ctx context.Context) error {
	g.entered <- struct{}{}
	select {
	case <-g.gate:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gated) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := g.pass(ctx); err != nil {
		return err
	}
	return g.below.ReadAt(ctx, p, off)
}

func (g *gated) WriteAt(ctx context.Context, p []byte, off int64, f disk.Flags) error {
	if err := g.pass(ctx); err != nil {
		return err
	}
	return g.below.WriteAt(ctx, p, off, f)
}

func (g *gated) Flush(ctx context.Context) error {
	g.flushes.Add(1)
	return g.below.Flush(ctx)
}

// awaitEntered waits until n operations wait at the gate.
func (g *gated) awaitEntered(t testing.TB, n int) {
	t.Helper()
	for range n {
		select {
		case <-g.entered:
		case <-time.After(patience):
			t.Fatal("the operations do not reach the disk")
		}
	}
}

// Requests that block do not hold up others: on the same connection, on
// another of the same export, or on another export.
func TestBlockedRequestsHoldUpNobody(t *testing.T) {
	t.Parallel()
	g := newGated(t, 1<<20)
	r := serve(t, server.Config{Exports: []server.Export{
		{Name: "blocked", Disk: disk.New(g, "gated")}, {Name: "free", Disk: memDisk(t, 1<<20)},
	}})
	p := r.connect(t, nbd.Simple, "blocked")
	const n = 200 // more than Depth
	for i := range n {
		p.send(nbd.Request{Command: nbd.CmdRead, Cookie: uint64(i), Length: 512}, nil)
	}
	g.awaitEntered(t, 64)
	for range 4 {
		r.connect(t, nbd.Structured, "free").alive()
	}
	other := r.connect(t, nbd.Simple, "blocked")
	if got := other.do(nbd.Request{Command: nbd.CmdFlush}, nil).errno; got != nbd.OK {
		t.Error(got)
	}
	close(g.gate)
	seen := map[uint64]bool{}
	for range n {
		h := p.header()
		p.read(512)
		seen[h.Cookie] = true
	}
	if len(seen) != n {
		t.Errorf("%d of %d requests answered", len(seen), n)
	}
}

// On one connection a request that does not block overtakes those that do.
func TestRequestsOvertake(t *testing.T) {
	t.Parallel()
	g := newGated(t, 1<<20)
	p := serveDisk(t, disk.New(g, "gated")).connect(t, nbd.Simple, "d")
	slow := nbd.Request{Command: nbd.CmdWrite, Cookie: 1, Length: 512}
	p.send(slow, make([]byte, 512))
	g.awaitEntered(t, 1)
	if got := p.do(nbd.Request{Command: nbd.CmdTrim, Length: 512}, nil); got.errno != nbd.OK {
		t.Error(got.errno)
	}
	close(g.gate)
	if got := p.reply(slow); got.errno != nbd.OK {
		t.Error(got.errno)
	}
}

// Shutdown answers what is in flight, flushes, and only then returns.
func TestDrain(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"unix", "tls"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			g := newGated(t, 1<<20)
			srv, cli := certificate(t)
			r := serve(t, server.Config{Exports: []server.Export{{Name: "d", Disk: disk.New(g, "gated")}}, TLS: srv, TLSMode: server.TLSOn})
			p, idle := r.dial(t).greet(nbd.FlagFixedNewstyle), r.connect(t, nbd.Simple, "d")
			if kind == "tls" {
				p.secure(cli)
			}
			p.haggle(nbd.Simple, "d")
			haggling := r.dial(t).greet(nbd.FlagFixedNewstyle)
			const n = 5
			for i := range n {
				p.send(nbd.Request{Command: nbd.CmdWrite, Cookie: uint64(i), Offset: uint64(i) * 512, Length: 512}, bytes.Repeat([]byte{1}, 512))
			}
			g.awaitEntered(t, n)
			done := make(chan error, 1)
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				done <- r.Shutdown(ctx)
			}()
			idle.mustClose()
			haggling.mustClose()
			select {
			case err := <-done:
				t.Fatalf("Shutdown did not wait: %v", err)
			case <-time.After(50 * time.Millisecond):
			}
			close(g.gate)
			for range n {
				if h := p.header(); h.Error != nbd.OK {
					t.Errorf("request %d: %v", h.Cookie, h.Error)
				}
			}
			p.mustClose()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if g.flushes.Load() != 1 {
				t.Errorf("%d flushes", g.flushes.Load())
			}
			if _, err := net.Dial("unix", r.path); err == nil {
				t.Error("a connection after Shutdown")
			}
		})
	}
}

// What had arrived when the drain began is answered.
func TestDrainAnswersWhatArrived(t *testing.T) {
	t.Parallel()
	r := serveDisk(t, memDisk(t, 1<<20))
	p := r.connect(t, nbd.Simple, "d")
	var b []byte
	for i := range 1000 {
		req := nbd.Request{Command: nbd.CmdRead, Cookie: uint64(i), Length: 16}
		b = req.Append(b, nbd.Simple)
	}
	p.write(b)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- r.Shutdown(ctx) }()
	for range 1000 {
		p.header()
		p.read(16)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// When its context ends, Shutdown cuts what hangs.
func TestDrainCut(t *testing.T) {
	t.Parallel()
	g := newGated(t, 8<<20)
	s, err := server.New(server.Config{Exports: []server.Export{{Name: "d", Disk: disk.New(g, "gated")}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(context.Background(), l) })
	r := &running{s, path}
	p, half := r.connect(t, nbd.Simple, "d"), r.connect(t, nbd.Simple, "d")
	p.send(nbd.Request{Command: nbd.CmdRead, Length: 512}, nil)
	half.send(nbd.Request{Command: nbd.CmdWrite, Length: 4096}, make([]byte, 100))
	g.awaitEntered(t, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v", err)
	}
	p.mustClose()
	half.mustClose()
	wg.Wait()
	if err := s.Serve(context.Background(), l); !errors.Is(err, server.ErrClosed) {
		t.Errorf("Serve after Shutdown: %v", err)
	}
}

// Serve ends with its context; the connections live on until Shutdown.
func TestServeEndsWithContext(t *testing.T) {
	t.Parallel()
	r := serveDisk(t, memDisk(t, 1<<20))
	path := filepath.Join(t.TempDir(), "s2")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx, l) }()
	p := (&running{r.Server, path}).connect(t, nbd.Simple, "d")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	p.alive()
}

func TestTCP(t *testing.T) {
	t.Parallel()
	r := serveDisk(t, fileDisk(t, 8<<20))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- r.Serve(context.Background(), l) }()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	p := (&peer{t: t, conn: nc}).greet(nbd.FlagFixedNewstyle)
	p.haggle(nbd.Structured, "d", "base:allocation")
	randomRequests(t, p, 8<<20)
	if err := r.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// throttled has an inline write that blocks, as a file's does when the kernel
// throttles writers.
type throttled struct {
	*below
	inline, worker atomic.Int32
}

func (w *throttled) TryRead([]byte, int64) error { return disk.ErrWouldBlock }

func (w *throttled) TryWrite([]byte, int64, disk.Flags) error {
	w.inline.Add(1)
	time.Sleep(30 * time.Millisecond)
	return nil
}

func (w *throttled) WriteAt(ctx context.Context, p []byte, off int64, f disk.Flags) error {
	w.worker.Add(1)
	return w.below.WriteAt(ctx, p, off, f)
}

// Inline writes that are seen to block are handed on; those to memory are only
// kept off the processor.
func TestBlockingWritesMoveToWorkers(t *testing.T) {
	t.Parallel()
	for _, n := range []uint64{512, 256 << 10} {
		for _, kernel := range []bool{true, false} {
			w := &throttled{below: &below{d: memDisk(t, 1<<20), info: func(i *disk.Info) { i.KernelIO = kernel }}}
			p := serveDisk(t, disk.New(w, "throttled")).connect(t, nbd.Simple, "d")
			for range 20 {
				p.do(nbd.Request{Command: nbd.CmdWrite, Length: n}, make([]byte, n))
			}
			// (A large write of a client that is not known to be quick, as the first, goes in four parts by workers.)
			if w.inline.Load() < 3 || kernel != (w.worker.Load() > 12) {
				t.Errorf("%d bytes, by the kernel %v: %d writes inline, %d by workers", n, kernel, w.inline.Load(), w.worker.Load())
			}
		}
	}
}

// Soft disconnect: what is in flight is still answered.
func TestDisconnectWaits(t *testing.T) {
	t.Parallel()
	g := newGated(t, 1<<20)
	p := serveDisk(t, disk.New(g, "gated")).connect(t, nbd.Simple, "d")
	req := nbd.Request{Command: nbd.CmdRead, Cookie: 9, Length: 512}
	p.send(req, nil)
	p.send(nbd.Request{Command: nbd.CmdDisconnect}, nil)
	g.awaitEntered(t, 1)
	close(g.gate)
	if got := p.reply(req); got.errno != nbd.OK {
		t.Error(got.errno)
	}
	p.mustClose()
}

// A client that is gone does not keep its requests running.
func TestGoneClientCancels(t *testing.T) {
	t.Parallel()
	g := newGated(t, 1<<20)
	r := serveDisk(t, disk.New(g, "gated"))
	p := r.connect(t, nbd.Simple, "d")
	p.send(nbd.Request{Command: nbd.CmdRead, Length: 512}, nil)
	g.awaitEntered(t, 1)
	p.conn.Close()
	for end := time.Now().Add(patience); r.Counters("d").Snapshot().Errors == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the request goes on")
		}
	}
}

// Garbage and truncated streams cost the connection and nothing else.
func TestGarbage(t *testing.T) {
	t.Parallel()
	r := serve(t, server.Config{Exports: []server.Export{{Name: "d", Disk: memDisk(t, 1<<20)}}, Log: testLog(t)})
	witness := r.connect(t, nbd.Structured, "d")
	rng, content := rand.New(rand.NewPCG(7, 7)), rand.NewChaCha8([32]byte{7})
	junk := func(n int) []byte {
		b := make([]byte, n)
		_, _ = content.Read(b)
		return b
	}
	for i := range 60 {
		m := modes[i%3]
		p := r.connect(t, m, "d")
		var b []byte
		for range rng.IntN(4) {
			req := nbd.Request{Command: nbd.Command(rng.IntN(10)), Flags: nbd.CommandFlags(rng.IntN(32)), Offset: uint64(rng.IntN(1 << 20)), Length: uint64(rng.IntN(4096))}
			b = req.Append(b, m)
		}
		switch i % 4 {
		case 0:
			b = append(b, junk(1+rng.IntN(100000))...)
		case 1: // cut inside a header
			req := nbd.Request{Command: nbd.CmdRead, Length: 512}
			b = req.Append(b, m)
			b = b[:len(b)-1-rng.IntN(20)]
		case 2: // cut inside a payload
			req := nbd.Request{Command: nbd.CmdWrite, Flags: payloadFlag(m), Length: uint64(1 + rng.IntN(3<<20))}
			b = append(req.Append(b, m), junk(int(req.Length)/2)...)
		case 3: // the other mode's requests
			req := nbd.Request{Command: nbd.CmdRead, Length: 512}
			b = req.Append(b, nbd.Extended-m/2*2)
		}
		go func() { _, _ = p.conn.Write(b) }()
		time.Sleep(time.Duration(rng.IntN(3)) * time.Millisecond)
		p.conn.Close()
		witness.alive()
	}
}

// A client that sends and sends without reading blocks only itself, and is
// served in full once it reads.
func TestDeafClient(t *testing.T) {
	t.Parallel()
	r := serveDisk(t, fileDisk(t, 4<<20))
	p := r.connect(t, nbd.Simple, "d")
	const n = 200
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range n {
			req := nbd.Request{Command: nbd.CmdRead, Cookie: uint64(i), Length: 64 << 10 << (i % 5)}
			if _, err := p.conn.Write(req.Append(nil, nbd.Simple)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 5 {
		r.connect(t, nbd.Structured, "d").alive()
		time.Sleep(20 * time.Millisecond)
	}
	for range n {
		h := p.header()
		p.read(64 << 10 << (h.Cookie % 5))
	}
	wg.Wait()
}

// Clients that stand still in the middle of a request are cut when such clients hold
// more than their budget, and not before.
func TestStalledClientsAreCut(t *testing.T) {
	t.Parallel()
	r := serve(t, server.Config{
		Exports: []server.Export{{Name: "d", Disk: memDisk(t, 64<<20)}}, Memory: 16 << 20, Log: testLog(t),
	})
	honest := r.connect(t, nbd.Simple, "d")
	var stalled []*peer
	for _, c := range []struct {
		n    int
		want bool
	}{{5, false}, {40, true}} {
		for len(stalled) < c.n {
			p := r.connect(t, nbd.Simple, "d")
			p.send(nbd.Request{Command: nbd.CmdWrite, Length: 1 << 20}, make([]byte, 4096))
			stalled = append(stalled, p)
		}
		time.Sleep(200 * time.Millisecond)
		if got := honest.do(nbd.Request{Command: nbd.CmdWrite, Length: 1 << 20}, make([]byte, 1<<20)); got.errno != nbd.OK {
			t.Fatal(got.errno)
		}
		cut := 0
		for _, s := range stalled {
			_ = s.conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			if _, err := s.conn.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				cut++
			}
		}
		if cut > 0 != c.want || cut == c.n {
			t.Errorf("%d of %d were cut", cut, c.n)
		}
	}
}

// 1,000 idle connections have neither goroutines nor buffers. Not parallel: it
// looks at the whole process.
func TestIdleConnections(t *testing.T) {
	r := serveDisk(t, memDisk(t, 1<<20))
	before := runtime.NumGoroutine()
	var peers []*peer
	for range 1000 {
		p := r.connect(t, nbd.Structured, "d")
		p.alive()
		peers = append(peers, p)
	}
	for end := time.Now().Add(patience); runtime.NumGoroutine() > before+20; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapInuse+m.StackInuse > 24<<20 {
		t.Errorf("heap %d MiB, stacks %d MiB", m.HeapInuse>>20, m.StackInuse>>20)
	}
	for _, p := range peers {
		p.alive()
	}
}

// Nothing of a server is left after Shutdown. Not parallel: it counts goroutines
// and descriptors.
func TestNothingIsLeft(t *testing.T) {
	fds := func() string {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		var kinds []string
		for _, e := range list {
			if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
				kinds = append(kinds, to)
			}
		}
		return fmt.Sprint(len(kinds), " ", strings.Join(kinds, " "))
	}
	run := func() {
		t.Run("server", func(t *testing.T) {
			r := serveDisk(t, disk.New(&below{d: memDisk(t, 8<<20)}, "below"))
			for range 20 {
				p := r.connect(t, nbd.Structured, "d")
				randomish(p)
				p.conn.Close()
			}
			r.connect(t, nbd.Simple, "d").alive()
		})
	}
	run()
	goroutines, had := runtime.NumGoroutine(), fds()
	run()
	for end := time.Now().Add(patience); runtime.NumGoroutine() > goroutines; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), goroutines)
		}
	}
	if have := fds(); strings.Fields(have)[0] != strings.Fields(had)[0] {
		t.Errorf("descriptors %s, before %s", have, had)
	}
}

func randomish(p *peer) {
	p.do(nbd.Request{Command: nbd.CmdWrite, Length: 2 << 20}, make([]byte, 2<<20))
	p.do(nbd.Request{Command: nbd.CmdRead, Length: 2 << 20}, nil)
	p.do(nbd.Request{Command: nbd.CmdFlush}, nil)
}
