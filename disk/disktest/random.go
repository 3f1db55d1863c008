package disktest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
)

const (
	window     = 1 << 20
	defaultOps = 400
	workers    = 4 // by methods; one more works by a queue
)

// Random runs random operations on the beginning and the end of d and compares
// every answer with a model, alone first, then from several goroutines and a
// queue whose ranges share blocks without sharing bytes: an operation that
// spoils a neighbour's bytes shows. It prints the seed when it fails.
func Random(t testing.TB, d *disk.Disk, opt Options) {
	t.Helper()
	if opt.Ops == 0 {
		opt.Ops = defaultOps
	}
	if opt.Seed == 0 {
		opt.Seed = rand.Uint64()
	}
	n := min(d.Size(), window)
	for i, base := range []int64{0, d.Size() - n} {
		if i == 1 && base < n {
			break
		}
		m := newModel(base, opt.initial(base, n), opt.Discards)
		if err := randomWindow(t.Context(), d, m, opt, uint64(i)); err != nil {
			t.Fatalf("seed %d, window at %d: %v", opt.Seed, base, err)
		}
	}
}

func randomWindow(ctx context.Context, d *disk.Disk, m *model, opt Options, stream uint64) error {
	readOnly := d.Info().ReadOnly || opt.Fixed
	alone := &worker{d: d, m: m, rnd: rand.New(rand.NewPCG(opt.Seed, stream)), readOnly: readOnly,
		stripes: []stripe{{m.base, m.end()}}}
	if err := alone.methods(ctx, opt.Ops); err != nil {
		return err
	}
	team := shareOut(alone.rnd, m)
	errs := make([]error, len(team))
	var group sync.WaitGroup
	for i, stripes := range team {
		w := &worker{d: d, m: m, readOnly: readOnly, stripes: stripes, rnd: rand.New(rand.NewPCG(opt.Seed, stream+uint64(i+1)<<8))}
		group.Go(func() {
			if i == workers {
				errs[i] = w.queue(ctx, opt.Ops)
			} else {
				errs[i] = w.methods(ctx, opt.Ops)
			}
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	got := make([]byte, len(m.data))
	if err := d.ReadAt(ctx, got, m.base); err != nil {
		return err
	}
	return m.check(m.base, got)
}

type stripe struct{ off, end int64 }

// shareOut cuts the window into stripes of odd lengths and deals them to the workers.
func shareOut(rnd *rand.Rand, m *model) [][]stripe {
	team := make([][]stripe, workers+1)
	for off, i := m.base, 0; off < m.end(); i++ {
		end := off + min(1+length(rnd, 60_000), m.end()-off)
		team[i%len(team)] = append(team[i%len(team)], stripe{off, end})
		off = end
	}
	return team
}

// worker owns stripes of the window: nobody else touches their bytes.
type worker struct {
	d        *disk.Disk
	m        *model
	rnd      *rand.Rand
	readOnly bool
	stripes  []stripe
}

// length is random with all orders of magnitude equally likely, 1 to most.
func length(rnd *rand.Rand, most int64) int64 {
	n := int64(1)
	for n < most && rnd.IntN(8) != 0 {
		n *= 2
	}
	return 1 + rnd.Int64N(min(n, most))
}

// pick chooses a range within a stripe, often aligned.
func (w *worker) pick(s stripe) (off, n int64) {
	unit := []int64{1, 1, 512, 4096}[w.rnd.IntN(4)]
	off = s.off + w.rnd.Int64N(s.end-s.off)
	if up := unit - off%unit; up < unit && up < s.end-off {
		off += up
	}
	n = length(w.rnd, min(s.end-off, 128<<10))
	if n > unit {
		n -= n % unit
	}
	return off, n
}

// data is what a write stores: random, or now and then zeros.
func (w *worker) data(n int64) []byte {
	if w.rnd.IntN(8) == 0 {
		return make([]byte, n)
	}
	return bytesFor(w.rnd.Int64(), n)
}

func (w *worker) methods(ctx context.Context, count int) error {
	for i := range count {
		off, n := w.pick(w.stripes[w.rnd.IntN(len(w.stripes))])
		name, err := w.step(ctx, off, n)
		if err != nil {
			return fmt.Errorf("operation %d, %s of %d bytes at offset %d: %w", i, name, n, off, err)
		}
	}
	return nil
}

// step does one random operation and compares.
func (w *worker) step(ctx context.Context, off, n int64) (string, error) {
	kind := w.rnd.IntN(100)
	if w.readOnly {
		kind %= 50
	}
	flags := disk.Flags(w.rnd.IntN(2)) // FUA or not
	switch {
	case kind < 30:
		return "read", w.read(off, n, func(p []byte) error { return w.d.ReadAt(ctx, p, off) })
	case kind < 35:
		return "vector read", w.read(off, n, func(p []byte) error {
			return w.d.Readv(ctx, [][]byte{p[:n/3], p[n/3:]}, off)
		})
	case kind < 40:
		return "inline read", w.read(off, n, func(p []byte) error { return w.d.TryRead(p, off) })
	case kind < 48:
		return "extents", w.extents(ctx, off, n)
	case kind < 50:
		return "cache", w.d.Cache(ctx, off, n)
	case kind < 70:
		return "write", w.write(off, n, func(p []byte) error { return w.d.WriteAt(ctx, p, off, flags) })
	case kind < 75:
		return "vector write", w.write(off, n, func(p []byte) error {
			return w.d.Writev(ctx, [][]byte{p[:n/3], p[n/3:]}, off, flags)
		})
	case kind < 80:
		return "inline write", w.write(off, n, func(p []byte) error { return w.d.TryWrite(p, off, flags) })
	case kind < 92:
		return "zero", w.zero(ctx, off, n, disk.Flags(w.rnd.IntN(8)))
	case kind < 97:
		return "trim", w.trim(ctx, off, n)
	}
	return "flush", w.d.Flush(ctx)
}

func (w *worker) read(off, n int64, f func([]byte) error) error {
	p := bytesFor(off, n)
	err := f(p)
	if err == disk.ErrWouldBlock {
		return nil
	}
	if err != nil {
		return err
	}
	return w.m.check(off, p)
}

func (w *worker) write(off, n int64, f func([]byte) error) error {
	p := w.data(n)
	err := f(p)
	if err == disk.ErrWouldBlock {
		return nil
	}
	if err == nil {
		w.m.write(off, p)
	}
	return err
}

func (w *worker) zero(ctx context.Context, off, n int64, f disk.Flags) error {
	err := w.d.Zero(ctx, off, n, f)
	if f&disk.FastOnly != 0 && errors.Is(err, disk.ErrNotFast) {
		return nil
	}
	if err == nil {
		w.m.zero(off, n)
	}
	return err
}

func (w *worker) trim(ctx context.Context, off, n int64) error {
	if err := w.d.Trim(ctx, off, n, 0); err != nil {
		return err
	}
	w.m.forget(off, n)
	return nil
}

// extents compares the map of the worker's own bytes with the model.
func (w *worker) extents(ctx context.Context, off, n int64) error {
	got, err := w.d.Extents(ctx, disk.Allocation, off, n, make([]disk.Extent, 0, 1+w.rnd.IntN(5)))
	end := off + n
	for _, e := range got {
		if err == nil && e.Flags&disk.ExtentZero != 0 {
			err = w.m.checkZero(off, min(e.Len, end-off))
		}
		if off += e.Len; off >= end {
			break
		}
	}
	return err
}

// queue does random operations through a queue, one in flight on each stripe.
func (w *worker) queue(ctx context.Context, count int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	q, err := w.d.NewQueue(len(w.stripes))
	if err != nil {
		return err
	}
	ops := make([]disk.Op, len(w.stripes))
	busy := make([]bool, len(ops))
	dst := make([]disk.Completion, 4)
	for done, inflight := 0, 0; done < count || inflight > 0; {
		if i := w.rnd.IntN(len(ops)); done < count && !busy[i] {
			ops[i] = w.queueOp(w.stripes[i], uint64(i))
			n, err := q.Submit(ops[i : i+1])
			if err != nil {
				return errors.Join(err, q.Close())
			}
			busy[i] = n == 1
			inflight += n
		}
		n, err := q.Reap(ctx, inflight/4, dst)
		for _, c := range dst[:n] {
			busy[c.Tag] = false
			err = errors.Join(err, w.complete(&ops[c.Tag], c.Err))
		}
		if done, inflight = done+n, inflight-n; err != nil {
			return errors.Join(err, q.Close())
		}
	}
	return q.Close()
}

func (w *worker) queueOp(s stripe, tag uint64) disk.Op {
	off, n := w.pick(s)
	kind := disk.Kind(w.rnd.IntN(4))
	if w.readOnly {
		kind = disk.Read
	} else if w.rnd.IntN(20) == 0 {
		kind = disk.Flush
	}
	op := disk.Op{Kind: kind, Off: off, Len: n, Tag: tag}
	switch kind {
	case disk.Read, disk.Write:
		p := w.data(n)
		op.Vec = [][]byte{p[:n/2], p[n/2:]}
	case disk.Zero:
		op.Flags = disk.Flags(w.rnd.IntN(8))
	}
	return op
}

// complete takes a queued operation's result over into the model.
func (w *worker) complete(op *disk.Op, err error) error {
	switch {
	case op.Kind == disk.Zero && op.Flags&disk.FastOnly != 0 && errors.Is(err, disk.ErrNotFast):
		return nil
	case err != nil:
		return fmt.Errorf("queued %v of %d bytes at offset %d: %w", op.Kind, op.Len, op.Off, err)
	}
	off := op.Off
	switch op.Kind {
	case disk.Zero:
		w.m.zero(off, op.Len)
	case disk.Trim:
		w.m.forget(off, op.Len)
	}
	for _, p := range op.Vec {
		if op.Kind == disk.Write {
			w.m.write(off, p)
		} else if err = w.m.check(off, p); err != nil {
			return fmt.Errorf("queued read: %w", err)
		}
		off += int64(len(p))
	}
	return nil
}
