package nbd

import (
	"context"
	"sync"

	"github.com/vmdisk/vmdisk/disk"
	wire "github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/client"
)

// queue starts operations in the session's pipeline. Those that a lost
// connection interrupted are started again by the owner, in Reap.
type queue struct {
	d     *Driver
	ops   []op
	free  []*op
	batch []*client.Request
	again []*op // to be started when there is a session
	out   []*op // ended and not reaped yet; the owner's
	watch *watchList
	// pipe is a connection of the session pipeOf that only this queue uses, if
	// there was one to be had.
	pipe   *client.Pipe
	pipeOf *client.Client

	mu      sync.Mutex
	fresh   []*op // ended, not seen by the owner
	waiting bool
	wake    chan struct{}
}

// NewQueue returns a queue of depth operations in flight.
func (d *Driver) NewQueue(depth int) (disk.Queue, error) {
	q := &queue{d: d, ops: make([]op, depth), free: make([]*op, depth), wake: make(chan struct{}, 1),
		batch: make([]*client.Request, 0, depth), again: make([]*op, 0, depth),
		out: make([]*op, 0, depth), fresh: make([]*op, 0, depth)}
	for i := range q.ops {
		o := &q.ops[i]
		o.Owner, o.d, o.queue = o, d, q
		q.free[depth-1-i] = o
	}
	return q, nil
}

// Register has nothing to do: the kernel copies.
func (q *queue) Register([][]byte) error { return nil }

// WatchFD makes Reap tell when fd is readable.
func (q *queue) WatchFD(fd int, tag uint64) error {
	if err := q.needWatch(); err != nil {
		return err
	}
	return q.watch.add(fd, tag)
}

// Submit starts operations.
func (q *queue) Submit(list []disk.Op) (int, error) {
	n := min(len(list), len(q.free))
	for i := range list[:n] {
		o := q.free[len(q.free)-1]
		q.free = q.free[:len(q.free)-1]
		o.set(&list[i])
		q.start(o)
	}
	q.send()
	return n, nil
}

var commands = [...]wire.Command{
	disk.Read: wire.CmdRead, disk.Write: wire.CmdWrite, disk.Zero: wire.CmdWriteZeroes,
	disk.Trim: wire.CmdTrim, disk.Flush: wire.CmdFlush,
}

func (o *op) set(d *disk.Op) {
	o.Command = commands[d.Kind]
	o.Flags = commandFlags(o.Command, d.Flags)
	o.Offset, o.Length, o.Vec = d.Off, d.Len, d.Vec
	if d.Kind == disk.Flush {
		o.Offset, o.Length = 0, 0
	}
	o.tag, o.busy, o.err = d.Tag, true, nil
}

// start puts an op into the batch to be sent, or aside while there is no session.
func (q *queue) start(o *op) {
	if o.Command == wire.CmdFlush && q.d.durable {
		q.out = append(q.out, o)
		return
	}
	wait, err := q.d.begin(o)
	switch {
	case err != nil:
		o.err = err
		q.out = append(q.out, o)
	case wait != nil:
		q.again = append(q.again, o)
	default:
		q.batch = append(q.batch, &o.Request)
	}
}

// send gives the batch to the session.
func (q *queue) send() {
	for len(q.batch) > 0 {
		session, n := sessionOf(q.batch[0]), 1
		for n < len(q.batch) && sessionOf(q.batch[n]) == session {
			n++
		}
		if q.adopt(session); q.pipe != nil {
			q.pipe.Start(q.batch[:n]...)
		} else {
			session.Start(q.batch[:n]...)
		}
		clear(q.batch[:n])
		q.batch = q.batch[:copy(q.batch, q.batch[n:])]
	}
}

// adopt takes a connection of a new session for this queue.
func (q *queue) adopt(session *client.Client) {
	if session == q.pipeOf {
		return
	}
	q.dropPipe()
	q.pipeOf = session
	if q.needWatch() == nil {
		q.pipe = session.Pipe()
	}
}

// needWatch makes the queue wait by poll.
func (q *queue) needWatch() error {
	if q.watch != nil {
		return nil
	}
	w, err := newWatchList()
	q.mu.Lock()
	defer q.mu.Unlock()
	if err == nil {
		q.watch = w
	}
	return err
}

func (q *queue) dropPipe() {
	if q.pipe != nil {
		_ = q.pipe.Close()
		q.pipe = nil
		q.watch.setPipe(-1, 0)
	}
}

// receive handles what has arrived on the queue's own connection.
func (q *queue) receive(ctx context.Context) {
	if q.pipe != nil && q.pipe.Receive(ctx) != nil {
		q.dropPipe()
	}
}

func sessionOf(r *client.Request) *client.Client { return r.Owner.(*op).session }

// ended is called by the session.
func (q *queue) ended(o *op, err error) {
	q.mu.Lock()
	o.err = err
	q.fresh = append(q.fresh, o)
	wake, watch := q.waiting, q.watch
	q.waiting = false
	q.mu.Unlock()
	switch {
	case !wake:
	case watch != nil:
		watch.wake()
	default:
		q.signal()
	}
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take moves what ended to out, or to again if it has to be repeated. With wait
// the next end is announced if there is nothing.
func (q *queue) take(wait bool) {
	q.mu.Lock()
	q.waiting = wait && len(q.fresh) == 0
	for _, o := range q.fresh {
		if isLost(o.err) {
			q.again = append(q.again, o)
		} else {
			q.out = append(q.out, o)
		}
	}
	q.fresh = q.fresh[:0]
	q.mu.Unlock()
}

// Reap waits for completions.
func (q *queue) Reap(ctx context.Context, min int, dst []disk.Completion) (int, error) {
	n := 0
	if min == 0 {
		q.receive(ctx)
	}
	for {
		q.take(false)
		n += q.deliver(dst[n:])
		if q.watch != nil && n < len(dst) {
			n += q.watch.ready(dst[n:])
		}
		if n >= min || n == len(dst) || len(q.free) == len(q.ops) && q.watch == nil {
			return n, nil
		}
		if err := q.wait(ctx); err != nil {
			return n, err
		}
	}
}

// deliver hands out what has ended.
func (q *queue) deliver(dst []disk.Completion) int {
	n := min(len(q.out), len(dst))
	for i, o := range q.out[:n] {
		dst[i] = disk.Completion{Tag: o.tag, Err: diskError(o, o.err)}
		o.Vec, o.session, o.busy = nil, nil, false
		q.free = append(q.free, o)
	}
	q.out = q.out[:copy(q.out, q.out[n:])]
	return n
}

// wait returns when something may have ended or became readable.
func (q *queue) wait(ctx context.Context) error {
	if len(q.again) > 0 {
		return q.repeat(ctx)
	}
	q.take(true)
	if len(q.out)+len(q.again) > 0 {
		return nil
	}
	return q.sleep(ctx)
}

// sleep returns after signal, or when a descriptor is ready.
func (q *queue) sleep(ctx context.Context) error {
	if q.watch == nil {
		select {
		case <-q.wake:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if q.pipe != nil {
		q.watch.setPipe(q.pipe.Events())
	}
	err := q.watch.wait(ctx)
	q.mu.Lock()
	q.waiting = false
	q.mu.Unlock()
	if err != nil {
		return err
	}
	if q.watch.pipeReady() {
		q.receive(ctx)
	}
	return nil
}

// repeat starts interrupted operations again, once there is a session.
func (q *queue) repeat(ctx context.Context) error {
	q.d.mu.Lock()
	ready := q.d.ready
	if q.d.session != nil || q.d.dead != nil {
		ready = nil
	}
	q.d.mu.Unlock()
	if ready != nil {
		select {
		case <-ready:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	again := q.again
	q.again = nil
	for _, o := range again {
		q.start(o)
	}
	q.send()
	return nil
}

// Cancel asks that an operation end early.
func (q *queue) Cancel(tag uint64) {
	for i := range q.ops {
		o := &q.ops[i]
		if o.busy && o.tag == tag && o.session != nil {
			o.session.Cancel(&o.Request, context.Canceled)
		}
	}
	for i := 0; i < len(q.again); i++ {
		if o := q.again[i]; o.tag == tag {
			q.again = append(q.again[:i], q.again[i+1:]...)
			i--
			o.err = context.Canceled
			q.out = append(q.out, o)
		}
	}
}

// Close waits until the session uses no memory of the queue any more. What is
// in flight is cancelled.
func (q *queue) Close() error {
	for i := range q.ops {
		if o := &q.ops[i]; o.busy && o.session != nil {
			o.session.Cancel(&o.Request, context.Canceled)
		}
	}
	var dst [64]disk.Completion
	for len(q.free) < len(q.ops) {
		q.take(true)
		q.out = append(q.out, q.again...)
		q.again = q.again[:0]
		if q.deliver(dst[:]) == 0 {
			_ = q.sleep(context.Background())
		}
	}
	q.dropPipe()
	if q.watch != nil {
		return q.watch.close()
	}
	return nil
}
