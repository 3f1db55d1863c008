package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/nbd"
	wire "github.com/vmdisk/vmdisk/nbd"
)

var bg = context.Background()

func block(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Whatever was acknowledged is there after any number of crashes that lose
// everything that was not flushed.
func TestCrashesLoseNothing(t *testing.T) {
	t.Parallel()
	const workers, region = 4, 1 << 18
	s := newLossy(t, workers*region)
	d := s.open(nil)
	stop := make(chan struct{})
	var killer sync.WaitGroup
	var crashes atomic.Int32
	killer.Go(func() {
		rng := rand.New(rand.NewPCG(1, 1))
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(rng.IntN(15)) * time.Millisecond):
				s.crash()
				crashes.Add(1)
			}
		}
	})
	models := make([][]byte, workers)
	var group sync.WaitGroup
	for w := range workers {
		models[w] = make([]byte, region)
		group.Go(func() { torment(t, d, models[w], int64(w)*region, uint64(w), &crashes) })
	}
	group.Wait()
	close(stop)
	killer.Wait()
	must(t, d.Flush(bg))
	_, durable := s.content()
	for w, model := range models {
		if !bytes.Equal(durable[w*region:][:region], model) {
			t.Errorf("region %d: flushed data is missing", w)
		}
	}
}

// torment changes a region, and reads it back again and again, through at least
// 10 crashes.
func torment(t *testing.T, d *disk.Disk, model []byte, base int64, seed uint64, crashes *atomic.Int32) {
	rng := rand.New(rand.NewPCG(2, seed))
	for i := 0; i < 400 || crashes.Load() < 10; i++ {
		n := 1 + rng.IntN(8192)
		at := rng.IntN(len(model) - n)
		p := model[at : at+n]
		var err error
		switch k := rng.IntN(10); {
		case k < 5:
			copy(p, block(n, byte(i+1)))
			err = d.WriteAt(bg, p, base+int64(at), 0)
		case k < 6:
			copy(p, block(n, byte(i+1)))
			err = d.WriteAt(bg, p, base+int64(at), disk.FUA)
		case k < 7:
			clear(p)
			err = d.Zero(bg, base+int64(at), int64(n), disk.MayTrim)
		case k < 8 && i%10 == 0:
			err = d.Flush(bg)
		default:
			got := make([]byte, n)
			err = d.ReadAt(bg, got, base+int64(at))
			if err == nil && !bytes.Equal(got, p) {
				t.Errorf("worker %d, step %d: an acknowledged write is lost", seed, i)
				return
			}
		}
		if err != nil {
			t.Errorf("worker %d, step %d: %v", seed, i, err)
			return
		}
	}
}

// The same through a queue: operations in flight are done again too.
func TestQueueThroughCrashes(t *testing.T) {
	t.Parallel()
	for name, conns := range map[string]int{"own connection": 2, "shared connection": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			queueThroughCrashes(t, conns)
		})
	}
}

func queueThroughCrashes(t *testing.T, conns int) {
	const depth, size = 16, 4096
	s := newLossy(t, 1<<20)
	d := s.open(func(c *nbd.Config) { c.Client.Connections = conns })
	q, err := d.NewQueue(depth)
	must(t, err)
	defer q.Close()
	version := make([]byte, (1<<20)/size)
	ends := make([]disk.Completion, depth)
	busy := map[uint64]bool{}
	for i := range 1500 {
		if i%150 == 100 {
			s.crash()
		}
		at := uint64(i*7) % uint64(len(version))
		for busy[at] || len(busy) == depth {
			n, err := q.Reap(bg, 1, ends)
			must(t, err)
			for _, e := range ends[:n] {
				must(t, e.Err)
				delete(busy, e.Tag)
			}
		}
		version[at]++
		op := disk.Op{Kind: disk.Write, Off: int64(at) * size, Len: size, Vec: [][]byte{block(size, version[at])}, Tag: at}
		if n, err := q.Submit([]disk.Op{op}); n != 1 || err != nil {
			t.Fatalf("%d %v", n, err)
		}
		busy[at] = true
	}
	for len(busy) > 0 {
		n, err := q.Reap(bg, 1, ends)
		must(t, err)
		for _, e := range ends[:n] {
			must(t, e.Err)
			delete(busy, e.Tag)
		}
	}
	s.crash()
	must(t, d.Flush(bg))
	_, durable := s.content()
	for i, v := range version {
		if !bytes.Equal(durable[i*size:][:size], block(size, v)) {
			t.Errorf("block %d: holds %d, acknowledged %d", i, durable[i*size], v)
		}
	}
}

// Without the log, or past its limit, the flush fails and goes on failing; what
// was flushed before does not matter.
func TestUnkeptWritesFailTheFlush(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*nbd.Config){
		"no replay":  func(c *nbd.Config) { c.NoReplay = true },
		"past limit": func(c *nbd.Config) { c.ReplayLimit = 64 << 10 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newLossy(t, 1<<20)
			d := s.open(edit)
			big := block(128<<10, 1)
			// Nothing unflushed: a crash does no harm.
			must(t, d.WriteAt(bg, big, 0, 0))
			must(t, d.Flush(bg))
			s.crash()
			must(t, d.ReadAt(bg, big, 0))
			must(t, d.Flush(bg))
			must(t, d.WriteAt(bg, big, 0, disk.FUA))
			s.crash()
			must(t, d.Flush(bg))

			must(t, d.WriteAt(bg, block(128<<10, 2), 0, 0))
			s.crash()
			must(t, d.ReadAt(bg, big, 0))
			if big[0] != 1 {
				t.Fatal("the server did not lose what was not flushed, so this test proves nothing")
			}
			for range 2 {
				if err := d.Flush(bg); err == nil || !strings.Contains(err.Error(), "write them again") {
					t.Errorf("flush after a loss: %v", err)
				}
			}
			must(t, d.WriteAt(bg, big, 0, 0))
			if err := d.Flush(bg); err == nil {
				t.Error("the failure did not stick")
			}
		})
	}
}

// A flush makes room in a log that ran over.
func TestLogRecovers(t *testing.T) {
	t.Parallel()
	s := newLossy(t, 1<<20)
	d := s.open(func(c *nbd.Config) { c.ReplayLimit = 64 << 10 })
	for i := range 4 {
		must(t, d.WriteAt(bg, block(48<<10, byte(i)), int64(i)*(48<<10), 0))
	}
	must(t, d.Flush(bg))
	must(t, d.WriteAt(bg, block(48<<10, 9), 0, 0))
	s.crash()
	must(t, d.Flush(bg))
	_, durable := s.content()
	if durable[0] != 9 || durable[48<<10] != 1 {
		t.Error("data is missing after the flush")
	}
}

// hookOnce makes the server do v with the first command c.
func hookOnce(s *lossy, c wire.Command, v verdict) *atomic.Bool {
	var hit atomic.Bool
	s.set(func(r *wire.Request) verdict {
		if r.Command == c && hit.CompareAndSwap(false, true) {
			return v
		}
		return serve
	})
	return &hit
}

// A connection that ends at any request, before or after it was done.
func TestHangUpAtEachCommand(t *testing.T) {
	t.Parallel()
	for _, v := range []verdict{hangUp, forget} {
		for _, c := range []wire.Command{wire.CmdRead, wire.CmdWrite, wire.CmdFlush, wire.CmdWriteZeroes, wire.CmdTrim} {
			t.Run(fmt.Sprintf("%v/%d", c, v), func(t *testing.T) {
				t.Parallel()
				s := newLossy(t, 1<<20)
				d := s.open(nil)
				hit := hookOnce(s, c, v)
				want := block(4096, 7)
				must(t, d.WriteAt(bg, want, 100, 0))
				must(t, d.Zero(bg, 8192, 4096, 0))
				must(t, d.Trim(bg, 16384, 4096, 0))
				got := make([]byte, 4096)
				must(t, d.ReadAt(bg, got, 100))
				must(t, d.Flush(bg))
				_, durable := s.content()
				if !bytes.Equal(got, want) || !bytes.Equal(durable[100:4196], want) {
					t.Error("data is missing")
				}
				if !hit.Load() || s.sessions < 4 {
					t.Errorf("%d sessions", s.sessions)
				}
			})
		}
	}
}

// An older write that is not durable must not come back over a newer one that is.
func TestReplayKeepsOrder(t *testing.T) {
	t.Parallel()
	s := newLossy(t, 1<<20)
	d := s.open(nil)
	must(t, d.WriteAt(bg, block(8192, 1), 0, 0))
	must(t, d.WriteAt(bg, block(4096, 2), 2048, disk.FUA))
	must(t, d.WriteAt(bg, block(1024, 3), 3000, 0))
	must(t, d.Zero(bg, 3500, 100, 0))
	must(t, d.WriteAt(bg, block(10, 4), 3550, 0))
	want := make([]byte, 8192)
	must(t, d.ReadAt(bg, want, 0))
	for range 3 {
		s.crash()
		got := make([]byte, 8192)
		must(t, d.ReadAt(bg, got, 0))
		if !bytes.Equal(got, want) {
			t.Fatal("the replay changed the content")
		}
	}
	if cache, _ := s.content(); cache[3550] != 4 || cache[3520] != 0 || cache[3000] != 3 || cache[2048] != 2 {
		t.Error("overlapping writes lost their order")
	}
}

func TestAnotherExportIsRefused(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(s *lossy){
		"size":  func(s *lossy) { s.size /= 2 },
		"flags": func(s *lossy) { s.flags |= wire.FlagReadOnly },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newLossy(t, 1<<20)
			d := s.open(nil)
			must(t, d.WriteAt(bg, block(4096, 1), 0, 0))
			s.kill()
			change(s)
			before := s.count(wire.CmdWrite)
			s.start()
			if err := d.Flush(bg); err == nil || !strings.Contains(err.Error(), "another export") {
				t.Errorf("%v", err)
			}
			if err := d.ReadAt(bg, make([]byte, 512), 0); err == nil {
				t.Error("a read reached another export")
			}
			if s.count(wire.CmdWrite) != before {
				t.Error("writes were replayed to another export")
			}
		})
	}
}

func TestServerStaysAway(t *testing.T) {
	t.Parallel()
	s := newLossy(t, 1<<20)
	d := s.open(func(c *nbd.Config) { c.Reconnect.Limit = 100 * time.Millisecond })
	s.kill()
	if err := d.ReadAt(bg, make([]byte, 512), 0); err == nil || !strings.Contains(err.Error(), "did not come back within") {
		t.Error(err)
	}
	s.start()
	if err := d.WriteAt(bg, make([]byte, 512), 0, 0); err == nil {
		t.Error("the disk came back from the dead")
	}
}

// A server that takes connections and does nothing with them is given up too.
func TestFlappingServer(t *testing.T) {
	t.Parallel()
	s := newLossy(t, 1<<20)
	d := s.open(func(c *nbd.Config) { c.Reconnect.Limit = 200 * time.Millisecond })
	s.set(func(*wire.Request) verdict { return hangUp })
	if err := d.ReadAt(bg, make([]byte, 512), 0); err == nil {
		t.Error("a read without an answer succeeded")
	}
	if s.sessions > 100 {
		t.Errorf("%d sessions in 200 ms", s.sessions)
	}
}

func TestReconnectDisabled(t *testing.T) {
	t.Parallel()
	s := newLossy(t, 1<<20)
	d := s.open(func(c *nbd.Config) { c.Reconnect.Disabled = true })
	must(t, d.WriteAt(bg, make([]byte, 512), 0, 0))
	s.crash()
	for range 2 {
		if err := d.Flush(bg); err == nil {
			t.Error("a flush went through a lost connection")
		}
	}
	if s.sessions != 2 {
		t.Errorf("%d connections", s.sessions)
	}
}

func TestGarbageIsFinal(t *testing.T) {
	t.Parallel()
	s := newLossy(t, 1<<20)
	d := s.open(nil)
	hookOnce(s, wire.CmdRead, garbage)
	for range 2 {
		if err := d.ReadAt(bg, make([]byte, 512), 0); !errors.Is(err, wire.ErrMalformed) {
			t.Error(err)
		}
	}
}

// A server that says it is going away is left, and what it refused done again.
func TestShutdownError(t *testing.T) {
	t.Parallel()
	s := newLossy(t, 1<<20)
	d := s.open(nil)
	s.errno = wire.ESHUTDOWN
	hookOnce(s, wire.CmdWrite, refuse)
	must(t, d.WriteAt(bg, block(512, 5), 0, 0))
	if cache, _ := s.content(); cache[0] != 5 || s.sessions < 4 {
		t.Errorf("%d sessions", s.sessions)
	}
}

func TestCancelWhileWaitingForTheServer(t *testing.T) {
	t.Parallel()
	s := newLossy(t, 1<<20)
	d := s.open(nil)
	s.kill()
	ctx, cancel := context.WithTimeout(bg, 30*time.Millisecond)
	defer cancel()
	if err := d.ReadAt(ctx, make([]byte, 512), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	q, err := d.NewQueue(4)
	must(t, err)
	_, err = q.Submit([]disk.Op{{Kind: disk.Read, Len: 512, Vec: [][]byte{make([]byte, 512)}, Tag: 1}})
	must(t, err)
	ctx2, cancel2 := context.WithTimeout(bg, 30*time.Millisecond)
	defer cancel2()
	ends := make([]disk.Completion, 1)
	if n, err := q.Reap(ctx2, 1, ends); n != 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%d %v", n, err)
	}
	q.Cancel(1)
	if n, err := q.Reap(bg, 1, ends); n != 1 || err != nil || !errors.Is(ends[0].Err, context.Canceled) {
		t.Errorf("%d %v %v", n, err, ends[0].Err)
	}
	must(t, q.Close())
	// Close does not wait for a server that is away.
	start := time.Now()
	must(t, d.Close())
	if time.Since(start) > 10*time.Second {
		t.Error("Close waited")
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	s := newLossy(t, 1<<20)
	d := s.open(nil)
	s.set(func(*wire.Request) verdict { return refuse })
	for _, c := range []struct {
		errno wire.Errno
		run   func() error
		want  []error
	}{
		{wire.EPERM, func() error { return d.WriteAt(bg, make([]byte, 512), 0, 0) }, []error{disk.ErrReadOnly, syscall.EPERM}},
		{wire.ENOSPC, func() error { return d.WriteAt(bg, make([]byte, 512), 0, 0) }, []error{syscall.ENOSPC}},
		{wire.ENOTSUP, func() error { return d.Zero(bg, 0, 512, disk.FastOnly) }, []error{disk.ErrNotFast, errors.ErrUnsupported}},
		{wire.EIO, func() error { return d.ReadAt(bg, make([]byte, 512), 0) }, []error{syscall.EIO}},
		{wire.EIO, func() error { return d.Flush(bg) }, []error{syscall.EIO}},
	} {
		s.mu.Lock()
		s.errno = c.errno
		s.mu.Unlock()
		err := c.run()
		for _, want := range c.want {
			if !errors.Is(err, want) {
				t.Errorf("%v: %v is not %v", c.errno, err, want)
			}
		}
	}
}
