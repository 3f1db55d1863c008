package diskcopy

import (
	"context"
	"errors"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/filter/noextents"
)

// scattered has n extents of 4 KiB, 16 KiB apart.
func scattered(t testing.TB, n int64) *disk.Disk {
	d := memDisk(t, n*16<<10)
	for i := range n {
		fill(t, d, i*16<<10, 4096, i)
	}
	return d
}

// TestBatches copies many small extents: each is written once, each hole of an
// unknown target zeroed once, none of a target that is known to be zero.
func TestBatches(t *testing.T) {
	t.Parallel()
	const n = 3000
	src := scattered(t, n)
	for _, c := range []struct {
		o      Options
		known  bool
		zeroes int64
	}{{Options{}, true, 0}, {Options{Strategy: ZeroEach}, false, n}, {Options{QueueDepth: 1, Verify: true}, false, n}, {Options{RequestSize: 8192}, false, n}} {
		target := dirty(t, src.Size())
		if c.known {
			target = memDisk(t, src.Size())
		}
		r := &remote{child: target}
		d := disk.New(r, "remote")
		if !c.known {
			d = noextents.New(d)
		}
		st, err := Copy(context.Background(), d, src, c.o)
		if err != nil {
			t.Fatal(err)
		}
		if r.writes.Load() != n || r.zeroes.Load() != c.zeroes || st.Write.Ops != n || st.Zero.Ops != c.zeroes || st.Write.Bytes != n*4096 {
			t.Errorf("%+v: %d writes, %d zeroes; %+v", c.o, r.writes.Load(), r.zeroes.Load(), st)
		}
		mustEqual(t, src, target)
	}
}

// TestBatchFaults fails operations within batches, with a journal: what is said
// to be safe is there, and the rest follows.
func TestBatchFaults(t *testing.T) {
	t.Parallel()
	src := scattered(t, 2000)
	for _, after := range []int64{0, 1, 70, 500, 1500, 3500} {
		target := dirty(t, src.Size())
		journal := filepath.Join(t.TempDir(), "j")
		f := &failing{remote: remote{child: target}, writeErr: syscall.ENOSPC, zeroErr: syscall.ENOSPC}
		f.after.Store(after)
		_, err := Copy(context.Background(), noextents.New(disk.New(f, "full")), src, Options{Journal: journal, QueueDepth: 3})
		var ie *InterruptedError
		var ce *CopyError
		if !errors.As(err, &ie) || !errors.As(err, &ce) || ce.Side != Target || !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("after %d: %v", after, err)
		}
		if c, err := Compare(context.Background(), src, target, CompareOptions{Length: max(ie.Offset, 1)}); err != nil || ie.Offset > 0 && !c.Equal {
			t.Errorf("after %d: %d bytes are said to be safe: %+v, %v", after, ie.Offset, c, err)
		}
		st, err := Copy(context.Background(), noextents.New(disk.New(&remote{child: target}, "full")), src, Options{Journal: journal, Resume: true})
		if err != nil || st.ResumedAt != ie.Offset {
			t.Fatalf("after %d: %+v, %v", after, st, err)
		}
		mustEqual(t, src, target)
	}
}

// TestBatchSourceFaults fails reads within batches: the error is the source's, and
// what the journal says to be safe is there.
func TestBatchSourceFaults(t *testing.T) {
	t.Parallel()
	for _, after := range []int64{100, 300, 1999} {
		src := scattered(t, 2000)
		f := &failing{remote: remote{child: src}, readErr: syscall.EIO}
		f.after.Store(after)
		target := memDisk(t, src.Size())
		_, err := Copy(context.Background(), target, disk.New(f, "bad"), Options{Journal: filepath.Join(t.TempDir(), "j"), QueueDepth: 3})
		var ie *InterruptedError
		var ce *CopyError
		if !errors.As(err, &ie) || !errors.As(err, &ce) || ce.Side != Source || !errors.Is(err, syscall.EIO) {
			t.Fatalf("after %d: %v", after, err)
		}
		if c, err := Compare(context.Background(), src, target, CompareOptions{Length: max(ie.Offset, 1)}); err != nil || ie.Offset > 0 && !c.Equal {
			t.Errorf("after %d: %d bytes are said to be safe: %+v, %v", after, ie.Offset, c, err)
		}
	}
}

// TestBatchAllocations is TestAllocations for batches.
func TestBatchAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations are not counted under the race detector")
	}
	src := scattered(t, 50_000)
	o, err := Options{Strategy: ZeroEach, QueueDepth: 1}.complete()
	if err != nil {
		t.Fatal(err)
	}
	e, err := newEngine(context.Background(), context.Background(), noextents.New(disk.New(&queued{sink{remote{child: memDisk(t, src.Size())}}}, "sink")), src, o)
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	if err := e.prepareZero(); err != nil {
		t.Fatal(err)
	}
	w := e.workers[0]
	defer w.out.close()
	defer w.in.close()
	batches := 0
	got := testing.AllocsPerRun(300, func() {
		if !e.next(w) {
			t.Fatal("no task")
		}
		if len(w.tasks) > 1 {
			batches++
		}
		if err := w.doAll(); err != nil {
			t.Fatal(err)
		}
	})
	if got != 0 || batches < 300 {
		t.Errorf("%v allocations a batch; %d batches", got, batches)
	}
}

// queued has queues that do everything at once.
type queued struct{ sink }

func (q *queued) NewQueue(int) (disk.Queue, error) { return nil, disk.ErrInline }
