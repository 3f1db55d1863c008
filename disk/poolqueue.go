package disk

import (
	"context"
	"sync"
	"time"
)

// poolQueue runs queued operations on up to depth goroutines by the Disk's
// ordinary methods: the adapter for drivers without asynchronous I/O. Workers
// are started as they are needed and end with Close.
type poolQueue struct {
	d       *Disk
	slots   []poolOp
	free    []int
	work    chan *poolOp
	done    chan *poolOp // never blocks: room for every slot
	watched chan Completion
	watcher *watcher
	workers int
	group   sync.WaitGroup
}

type poolOp struct {
	Op
	index  int
	ctx    opContext
	result error
}

func newPoolQueue(d *Disk, depth int) *poolQueue {
	q := &poolQueue{d: d, slots: make([]poolOp, depth), free: make([]int, depth),
		work: make(chan *poolOp, depth), done: make(chan *poolOp, depth), watched: make(chan Completion)}
	for i := range q.slots {
		q.slots[i].index = i
		q.slots[i].ctx.reset()
		q.free[i] = depth - 1 - i
	}
	return q
}

func (q *poolQueue) Register([][]byte) error { return nil }

func (q *poolQueue) WatchFD(fd int, tag uint64) (err error) {
	if q.watcher == nil {
		if q.watcher, err = newWatcher(q.watched); err != nil {
			return q.d.wrap("queue", -1, 0, err)
		}
	}
	return q.watcher.watch(fd, tag)
}

func (q *poolQueue) inflight() int { return len(q.slots) - len(q.free) }

func (q *poolQueue) Submit(ops []Op) (int, error) {
	for i := range ops {
		if len(q.free) == 0 {
			return i, nil
		}
		slot := &q.slots[q.free[len(q.free)-1]]
		q.free = q.free[:len(q.free)-1]
		slot.Op = ops[i]
		if q.workers < q.inflight() {
			q.workers++
			q.group.Go(q.serve)
		}
		q.work <- slot
	}
	return len(ops), nil
}

func (q *poolQueue) serve() {
	for op := range q.work {
		op.result = q.d.run(&op.ctx, &op.Op)
		q.done <- op
	}
}

func (q *poolQueue) Reap(ctx context.Context, min int, dst []Completion) (int, error) {
	n := 0
	for n < len(dst) {
		select {
		case op := <-q.done:
			dst[n] = q.finish(op)
			n++
			continue
		case c := <-q.watched:
			dst[n] = c
			n++
			continue
		default:
		}
		if n >= min || q.inflight() == 0 && q.watcher == nil {
			break
		}
		select {
		case op := <-q.done:
			dst[n] = q.finish(op)
			n++
		case c := <-q.watched:
			dst[n] = c
			n++
		case <-ctx.Done():
			return n, ctx.Err()
		}
	}
	return n, nil
}

func (q *poolQueue) finish(op *poolOp) Completion {
	c := Completion{Tag: op.Tag, Err: op.result}
	op.Vec, op.result = nil, nil
	if op.ctx.Err() != nil {
		op.ctx.reset()
	}
	q.free = append(q.free, op.index)
	return c
}

func (q *poolQueue) Cancel(tag uint64) {
	free := make(map[int]bool, len(q.free))
	for _, i := range q.free {
		free[i] = true
	}
	for i := range q.slots {
		if !free[i] && q.slots[i].Tag == tag {
			q.slots[i].ctx.cancel()
		}
	}
}

func (q *poolQueue) Close() error {
	close(q.work)
	q.group.Wait()
	if q.watcher != nil {
		q.watcher.close()
	}
	return nil
}

// opContext is a context that is reused from one operation to the next, so that
// a cancellable operation costs no allocation.
type opContext struct {
	mu   sync.Mutex
	ch   chan struct{}
	fail error
}

func (c *opContext) reset() {
	c.mu.Lock()
	c.ch, c.fail = make(chan struct{}), nil
	c.mu.Unlock()
}

func (c *opContext) cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail == nil {
		c.fail = context.Canceled
		close(c.ch)
	}
}

func (c *opContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (c *opContext) Value(any) any               { return nil }

func (c *opContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ch
}

func (c *opContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fail
}
