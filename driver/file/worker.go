package file

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/uring"
)

// maxWorkers bounds the threads that one queue's slow operations can take.
const maxWorkers = 32

// workers do what the ring cannot, by the File's ordinary methods. They are
// started when they are needed and end with stop.
type workers struct {
	q       *ringQueue
	ring    atomic.Pointer[uring.Ring] // woken by workers; q.ring, which may be replaced
	work    chan *slot
	done    chan *slot // never blocks: room for every slot
	busy    int        // operations handed over and not yet taken back
	running int
	group   sync.WaitGroup
}

func (w *workers) start(q *ringQueue, depth int) {
	w.q, w.work, w.done = q, make(chan *slot, depth), make(chan *slot, depth)
}

func (w *workers) stop() {
	close(w.work)
	w.group.Wait()
}

// do hands s over.
func (w *workers) do(s *slot) {
	w.busy++
	if w.running < w.busy && w.running < maxWorkers {
		w.running++
		w.group.Go(w.serve)
	}
	w.work <- s
}

func (w *workers) serve() {
	for s := range w.work {
		s.err = w.q.f.perform(&s.ctx, &s.Op)
		w.done <- s
		w.ring.Load().Wake()
	}
}

// finished takes back one operation that is done, if there is any.
func (w *workers) finished() (*slot, bool) {
	if w.busy == 0 {
		return nil, false
	}
	select {
	case s := <-w.done:
		w.busy--
		return s, true
	default:
		return nil, false
	}
}

// perform does a queued operation synchronously.
func (f *File) perform(ctx context.Context, op *disk.Op) error {
	switch op.Kind {
	case disk.Read:
		return f.Readv(ctx, op.Vec, op.Off)
	case disk.Write:
		return f.Writev(ctx, op.Vec, op.Off, op.Flags)
	case disk.Zero:
		return f.Zero(ctx, op.Off, op.Len, op.Flags)
	case disk.Trim:
		return f.Trim(ctx, op.Off, op.Len, op.Flags)
	}
	return f.Flush(ctx)
}

// slotContext is the context of one queued operation, used again for the next
// without an allocation. The File's methods ask Err between steps and never wait
// for Done.
type slotContext struct{ cancelled atomic.Bool }

func (c *slotContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (c *slotContext) Value(any) any               { return nil }
func (c *slotContext) Done() <-chan struct{}       { return nil }

func (c *slotContext) Err() error {
	if c.cancelled.Load() {
		return context.Canceled
	}
	return nil
}
