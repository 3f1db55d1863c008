package disk_test

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/vmdisk/vmdisk/disk"
)

const block = 4096

// operation is one call on a disk with blocks of 4096.
type operation struct {
	name string
	do   func(context.Context, *disk.Disk) error
}

func writeOp(name string, off, n int) operation {
	return operation{name, func(ctx context.Context, d *disk.Disk) error {
		return d.WriteAt(ctx, make([]byte, n), int64(off), 0)
	}}
}

var (
	partial      = writeOp("unaligned write", 100, 10)
	otherPartial = writeOp("other unaligned write", 4000, 10)
	across       = writeOp("write across blocks", 4000, 200)
	aligned      = writeOp("aligned write", 0, block)
	twoBlocks    = writeOp("write of two blocks", 0, 2*block)
	neighbour    = writeOp("write of the next block", block, block)
	vector       = operation{"vector write", func(ctx context.Context, d *disk.Disk) error {
		return d.Writev(ctx, [][]byte{make([]byte, block)}, 0, 0)
	}}
	zeroed  = operation{"aligned zero", func(ctx context.Context, d *disk.Disk) error { return d.Zero(ctx, 0, block, 0) }}
	edge    = operation{"unaligned zero", func(ctx context.Context, d *disk.Disk) error { return d.Zero(ctx, 10, block, 0) }}
	trimmed = operation{"trim", func(ctx context.Context, d *disk.Disk) error { return d.Trim(ctx, 0, block, 0) }}
	reading = operation{"read", func(ctx context.Context, d *disk.Disk) error { return d.ReadAt(ctx, make([]byte, 10), 100) }}
	queued  = operation{"queued write", func(ctx context.Context, d *disk.Disk) error {
		q, err := d.NewQueue(1)
		if err != nil {
			return err
		}
		_, err = q.Submit([]disk.Op{{Kind: disk.Write, Len: block, Vec: [][]byte{make([]byte, block)}}})
		done := make([]disk.Completion, 1)
		if err == nil {
			_, err = q.Reap(ctx, 1, done)
		}
		return errors.Join(err, done[0].Err, q.Close())
	}}
)

// Which operations wait for which: what a read-modify-write must exclude, and
// nothing else.
func TestWhoWaits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		first  operation
		wait   []operation
		passes []operation
	}{
		{partial, []operation{partial, otherPartial, across, aligned, twoBlocks, vector, zeroed, edge, trimmed, queued}, []operation{neighbour, reading}},
		{aligned, []operation{partial, across, edge}, []operation{aligned, twoBlocks, vector, zeroed, trimmed, queued, neighbour, reading}},
		{zeroed, []operation{partial}, []operation{aligned, zeroed, neighbour}},
		{trimmed, []operation{partial, edge}, []operation{aligned, trimmed}},
		{queued, []operation{partial, across}, []operation{aligned, queued, neighbour}},
		{across, []operation{neighbour, partial, aligned}, []operation{reading}},
		{neighbour, []operation{across}, []operation{partial, aligned}},
	} {
		for _, second := range c.wait {
			if !waits(t, c.first, second) {
				t.Errorf("%s does not wait for %s", second.name, c.first.name)
			}
		}
		for _, second := range c.passes {
			if waits(t, c.first, second) {
				t.Errorf("%s waits for %s", second.name, c.first.name)
			}
		}
	}
}

// waits holds first inside the driver and reports whether second waits for it.
func waits(t *testing.T, first, second operation) (waited bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		var entered atomic.Int32
		p := newProbe(disk.Info{Size: 4 * block, Min: block, Zero: disk.Native, Trim: disk.Native})
		p.before = func(context.Context, string) error {
			if entered.Add(1) == 1 {
				<-gate
			}
			return nil
		}
		d := disk.New(p, "d")
		errs := make([]error, 2)
		var group sync.WaitGroup
		group.Go(func() { errs[0] = first.do(t.Context(), d) })
		synctest.Wait()
		group.Go(func() { errs[1] = second.do(t.Context(), d) })
		synctest.Wait()
		waited = entered.Load() == 1
		close(gate)
		group.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Error(err)
		}
	})
	return waited
}

// Who waits for a block can be cancelled, and then is in nobody's way.
func TestWaitingIsCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		p := newProbe(disk.Info{Size: 4 * block, Min: block})
		held := true
		p.before = func(context.Context, string) error {
			if held {
				held = false
				<-gate
			}
			return nil
		}
		d := disk.New(p, "d")
		var group sync.WaitGroup
		group.Go(func() { must(t, aligned.do(context.Background(), d)) })
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		var refused error
		group.Go(func() { refused = partial.do(ctx, d) })
		synctest.Wait()
		var behind atomic.Bool
		group.Go(func() {
			must(t, aligned.do(context.Background(), d))
			behind.Store(true)
		})
		synctest.Wait()
		if behind.Load() {
			t.Error("a later write overtakes one that waits: a stream of them could starve it")
		}
		cancel()
		synctest.Wait()
		is(t, "cancelled while waiting", refused, context.Canceled)
		if !behind.Load() {
			t.Error("the cancelled one is still in the way")
		}
		close(gate)
		group.Wait()
	})
}

// A queued trim is checked against units that are no power of two, as Trim does.
func TestQueuedTrimUnit(t *testing.T) {
	t.Parallel()
	p := newProbe(disk.Info{Size: 1 << 20, TrimAlign: 6144, Trim: disk.Native})
	d := disk.New(&asyncProbe{probe: p}, "d")
	q, err := d.NewQueue(1)
	must(t, err)
	for _, op := range []disk.Op{{Kind: disk.Trim, Off: 4096, Len: 2048}, {Kind: disk.Trim, Off: 6144, Len: 18432}, {Kind: disk.Trim, Off: 4096, Len: 10_000}} {
		if n, err := q.Submit([]disk.Op{op}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		done := make([]disk.Completion, 1)
		if n, err := q.Reap(t.Context(), 1, done); n != 1 || err != nil || done[0].Err != nil {
			t.Fatal(n, err, done[0].Err)
		}
	}
	must(t, q.Close())
	p.expect(t, "trims", "trim 6144+18432", "trim 6144+6144")
}

// asyncProbe has a queue of its own, which answers when it is reaped.
type asyncProbe struct {
	*probe
	zeroErr error
}

func (a *asyncProbe) NewQueue(int) (disk.Queue, error) { return &asyncQueue{a: a}, nil }

type asyncQueue struct {
	a   *asyncProbe
	ops []disk.Op
}

func (q *asyncQueue) Register([][]byte) error   { return nil }
func (q *asyncQueue) WatchFD(int, uint64) error { return errors.ErrUnsupported }
func (q *asyncQueue) Cancel(uint64)             {}
func (q *asyncQueue) Close() error              { return nil }

func (q *asyncQueue) Submit(ops []disk.Op) (int, error) {
	q.ops = append(q.ops, ops...)
	return len(ops), nil
}

func (q *asyncQueue) Reap(ctx context.Context, _ int, dst []disk.Completion) (int, error) {
	n := 0
	for ; n < len(dst) && len(q.ops) > 0; n++ {
		op := q.ops[0]
		q.ops = q.ops[1:]
		var err error
		switch op.Kind {
		case disk.Read:
			err = q.a.ReadAt(ctx, op.Vec[0], op.Off)
		case disk.Write:
			err = q.a.WriteAt(ctx, op.Vec[0], op.Off, op.Flags)
		case disk.Zero:
			if err = q.a.zeroErr; err == nil {
				err = q.a.Zero(ctx, op.Off, op.Len, op.Flags)
			}
		case disk.Trim:
			err = q.a.Trim(ctx, op.Off, op.Len, op.Flags)
		case disk.Flush:
			err = q.a.Flush(ctx)
		}
		dst[n] = disk.Completion{Tag: op.Tag, Err: err}
	}
	return n, nil
}

// A queued zero that the driver refuses at run time is written, even while
// someone waits for an operation of the same queue that is not reaped yet.
func TestQueuedZeroFallsBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newProbe(disk.Info{Size: 4 * block, Min: block, Zero: disk.Native, FastZero: disk.Native})
		for i := range p.data {
			p.data[i] = 1
		}
		d := disk.New(&asyncProbe{probe: p, zeroErr: errors.ErrUnsupported}, "d")
		q, err := d.NewQueue(4)
		must(t, err)
		n, err := q.Submit([]disk.Op{
			{Kind: disk.Zero, Len: 2 * block, Tag: 1},
			{Kind: disk.Zero, Off: 2 * block, Len: block, Flags: disk.FastOnly, Tag: 2},
			{Kind: disk.Write, Off: block, Len: block, Vec: [][]byte{make([]byte, block)}, Tag: 3},
		})
		if n != 3 || err != nil {
			t.Fatal(n, err)
		}
		var group sync.WaitGroup
		group.Go(func() { must(t, writeOp("", block+1, 1).do(context.Background(), d)) })
		synctest.Wait()
		done := make([]disk.Completion, 4)
		if n, err := q.Reap(t.Context(), 3, done); n != 3 || err != nil {
			t.Fatal(n, err)
		}
		group.Wait()
		must(t, q.Close())
		if done[0].Err != nil || done[2].Err != nil || !errors.Is(done[1].Err, disk.ErrNotFast) {
			t.Errorf("results %v, %v, %v", done[0].Err, done[1].Err, done[2].Err)
		}
		if !bytes.Equal(p.data[:2*block], make([]byte, 2*block)) || p.data[2*block] != 1 {
			t.Error("the zero was not written, or the refused one was")
		}
	})
}

// A queued flush that ran beside one that failed has failed too.
func TestQueuedFlushBesideFailedOne(t *testing.T) {
	t.Parallel()
	fail := true
	p := newProbe(disk.Info{Size: 8192, Volatile: true})
	p.before = func(context.Context, string) error {
		if fail {
			return errFlush
		}
		return nil
	}
	d := disk.New(&asyncProbe{probe: p}, "d")
	q, err := d.NewQueue(2)
	must(t, err)
	if n, err := q.Submit([]disk.Op{{Kind: disk.Flush}}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	is(t, "flush", d.Flush(t.Context()), errFlush)
	fail = false
	done := make([]disk.Completion, 1)
	if _, err := q.Reap(t.Context(), 1, done); err != nil {
		t.Fatal(err)
	}
	is(t, "the queued one", done[0].Err, errFlush)
	must(t, q.Close())
}

var errFlush = errors.New("lost a write")

// Disks with blocks refuse inline writes, which could have to wait.
func TestInlineRules(t *testing.T) {
	t.Parallel()
	for _, unit := range []int64{0, 512} {
		p := newProbe(disk.Info{Size: 8192, Min: unit, MaxIO: 2048})
		d := disk.New(inlineProbe{p}, "d")
		for _, c := range []struct {
			off, n      int64
			read, write error
		}{
			{0, 512, nil, nil}, {512, 100, disk.ErrWouldBlock, disk.ErrWouldBlock}, {0, 4096, disk.ErrWouldBlock, disk.ErrWouldBlock},
			{8192, 1, disk.ErrRange, disk.ErrRange},
		} {
			if unit == 0 && c.n == 100 {
				c.read, c.write = nil, nil
			}
			if unit > 0 && c.write == nil {
				c.write = disk.ErrWouldBlock
			}
			buf := make([]byte, c.n)
			is(t, "read", d.TryRead(buf, c.off), c.read)
			is(t, "write", d.TryWrite(buf, c.off, 0), c.write)
		}
	}
	plain := disk.New(newProbe(disk.Info{Size: 8192}), "d")
	if plain.TryRead(make([]byte, 1), 0) != disk.ErrWouldBlock || plain.TryWrite(make([]byte, 1), 0, 0) != disk.ErrWouldBlock {
		t.Error("a driver without inline I/O was asked for it")
	}
}

type inlineProbe struct{ *probe }

func (i inlineProbe) TryRead(p []byte, off int64) error {
	return i.ReadAt(context.Background(), p, off)
}
func (i inlineProbe) TryWrite(p []byte, off int64, f disk.Flags) error {
	return i.WriteAt(context.Background(), p, off, f)
}

// rangedProbe hands out ranges of a file that is not there.
type rangedProbe struct {
	*probe
	released int
}

func (r *rangedProbe) FileRange(off, n int64, _ bool) (disk.FileRange, bool) {
	return disk.FileRange{FD: -1, Off: off, Len: n, Done: func() { r.released++ }}, off < 3*block
}

// A writable file range keeps unaligned writers out until it is released, and is
// not handed out while one is at work.
func TestFileRangeLocks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &rangedProbe{probe: newProbe(disk.Info{Size: 4 * block, Min: block})}
		d := disk.New(r, "d")
		if _, ok := d.FileRange(1, block, true); ok {
			t.Error("an unaligned writable range")
		}
		if _, ok := d.FileRange(3*block, block, true); ok {
			t.Error("a range that the driver refused")
		}
		fr, ok := d.FileRange(0, block, true)
		if !ok {
			t.Fatal("no file range")
		}
		var group sync.WaitGroup
		group.Go(func() { must(t, partial.do(context.Background(), d)) })
		synctest.Wait()
		r.expect(t, "while the range is out")
		if _, ok := d.FileRange(0, block, true); ok {
			t.Error("a range past a writer that waits")
		}
		fr.Release()
		group.Wait()
		if r.expect(t, "after release", "read 0+4096", "write 0+4096"); r.released != 1 {
			t.Errorf("released %d times", r.released)
		}
		must(t, writeOp("", 3*block+1, 1).do(context.Background(), d))
	})
}

// Resize reaches the driver through filters that allow it, and every layer
// learns the new size.
func TestResize(t *testing.T) {
	t.Parallel()
	p := &resizable{newProbe(disk.Info{Size: 8192})}
	inner := disk.New(p, "inner")
	outer := disk.New(wrapper{inner}, "outer")
	must(t, outer.Resize(t.Context(), 4096))
	if inner.Size() != 4096 || outer.Size() != 4096 || outer.Info().Gen != 1 {
		t.Errorf("sizes %d and %d, generation %d", inner.Size(), outer.Size(), outer.Info().Gen)
	}
	is(t, "negative", outer.Resize(t.Context(), -1), errors.ErrUnsupported)
	closed := disk.New(struct{ disk.Driver }{inner}, "closed")
	is(t, "past a filter that does not allow it", closed.Resize(t.Context(), 1), errors.ErrUnsupported)
	if _, ok := disk.As[disk.Resizer](closed); ok {
		t.Error("the resizer was reached past a filter that does not allow it")
	}
}

type resizable struct{ *probe }

func (r *resizable) Resize(_ context.Context, size int64) error {
	r.info.Size = size
	r.info.Gen++
	return nil
}

type wrapper struct{ *disk.Disk }

func (w wrapper) Unwrap() *disk.Disk { return w.Disk }

// Unaligned I/O takes its buffers from a pool.
func TestUnalignedAllocations(t *testing.T) {
	if raced {
		t.Skip("the race detector allocates")
	}
	p := &quiet{newProbe(disk.Info{Size: 1 << 20, Min: block})}
	d, buf, ctx := disk.New(p, "d"), make([]byte, 5000), context.Background()
	runtime.GC()
	for name, f := range map[string]func() error{
		"read":  func() error { return d.ReadAt(ctx, buf, 1000) },
		"write": func() error { return d.WriteAt(ctx, buf, 1000, disk.FUA) },
		"zero":  func() error { return d.Zero(ctx, 1000, 9000, 0) },
	} {
		must(t, f())
		if n := testing.AllocsPerRun(200, func() { _ = f() }); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// quiet notes nothing.
type quiet struct{ *probe }

func (q *quiet) ReadAt(_ context.Context, b []byte, off int64) error {
	copy(b, q.data[off:])
	return nil
}

func (q *quiet) WriteAt(_ context.Context, b []byte, off int64, _ disk.Flags) error {
	copy(q.data[off:], b)
	return nil
}

func (q *quiet) Flush(context.Context) error { return nil }

// The cost of a layer: nanoseconds per operation of a stack of ten, less those
// of the driver alone, over ten.
func BenchmarkLayers(b *testing.B) {
	ctx, buf := context.Background(), make([]byte, 1)
	for _, layers := range []int{1, 11} {
		d := disk.New(&quiet{newProbe(disk.Info{Size: 1 << 20})}, "bottom")
		for range layers - 1 {
			d = disk.New(struct{ disk.Driver }{d}, "layer")
		}
		for name, f := range map[string]func() error{
			"read":  func() error { return d.ReadAt(ctx, buf, 4096) },
			"write": func() error { return d.WriteAt(ctx, buf, 4096, 0) },
		} {
			b.Run(name+map[int]string{1: "-1", 11: "-11"}[layers], func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := f(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(layers), "ns/layer")
			})
		}
	}
}
