package disk

import (
	"context"
	"errors"
)

// checkedQueue puts the Disk's checks over a driver's own queue. The driver
// sees only operations it can do as they stand; the others are refused here, or
// done by the Disk's methods inside Submit. The tags that the driver sees are
// slot numbers, or watchTag + an index.
type checkedQueue struct {
	d       *Disk
	q       Queue
	slots   []slot
	free    []uint64
	batch   []Op // what the next call of the driver's Submit gets
	ready   []Completion
	watches []uint64
}

// slot is an operation in the driver's hands.
type slot struct {
	Op
	inUse, locked bool
	lock          lockNode
}

const watchTag = 1 << 63

func newCheckedQueue(d *Disk, q Queue, depth int) *checkedQueue {
	c := &checkedQueue{d: d, q: q, slots: make([]slot, depth), free: make([]uint64, depth),
		batch: make([]Op, 0, depth), ready: make([]Completion, 0, depth)}
	for i := range c.free {
		c.free[i] = uint64(depth - 1 - i)
	}
	return c
}

func (c *checkedQueue) Register(mem [][]byte) error {
	return c.d.wrap("queue", -1, 0, c.q.Register(mem))
}

func (c *checkedQueue) WatchFD(fd int, tag uint64) error {
	if err := c.q.WatchFD(fd, watchTag+uint64(len(c.watches))); err != nil {
		return c.d.wrap("queue", -1, 0, err)
	}
	c.watches = append(c.watches, tag)
	return nil
}

// route says what becomes of an operation.
type route int

const (
	toDriver route = iota
	byMethods
	isDone
)

// route decides for op; flags are what the driver is told.
func (c *checkedQueue) route(l *limits, op *Op) (r route, flags Flags, err error) {
	if !op.valid() {
		return isDone, 0, errOp
	}
	flags, flush := l.fua(op.Flags)
	limit := l.maxIO
	switch op.Kind {
	case Read:
		if err = l.check(op.Off, op.Len); err == nil && op.Flags != 0 {
			err = ErrFlags
		}
	case Write:
		err = l.checkChange(op.Off, op.Len, op.Flags, FUA)
	case Zero:
		err, limit = l.checkChange(op.Off, op.Len, op.Flags, zeroFlags), l.maxZero
		if err == nil && op.Flags&FastOnly != 0 && l.FastZero != Native {
			err = ErrNotFast
		}
		flush = flush || l.Zero == None
	case Trim:
		err, limit = l.checkChange(op.Off, op.Len, op.Flags, trimFlags), l.maxTrim
		flush = flush || l.Trim == None || !l.wholeTrim(op.Off, op.Len)
	case Flush:
		return c.routeFlush(l)
	}
	switch {
	case err != nil || op.Len == 0:
		return isDone, 0, err
	case flush || op.Len > limit || !l.aligned(op.Off, op.Len):
		return byMethods, op.Flags, nil
	}
	return toDriver, flags, nil
}

func (c *checkedQueue) routeFlush(l *limits) (route, Flags, error) {
	if failed := c.d.flushErr.Load(); failed != nil {
		return isDone, 0, *failed
	}
	if l.ReadOnly {
		return isDone, 0, nil
	}
	return toDriver, 0, nil
}

func (c *checkedQueue) Submit(ops []Op) (int, error) {
	l := c.d.limits.Load()
	sent := 0 // ops[:sent] are with the driver or done
	for i := range ops {
		r, flags, err := c.route(l, &ops[i])
		if r == toDriver {
			if c.stage(l, &ops[i], flags) {
				continue
			}
			break
		}
		n, err2 := c.send()
		sent += n
		if err2 != nil || sent < i || len(c.ready) == cap(c.ready) {
			return sent, err2
		}
		if r == byMethods {
			if c.mustWait(l, &ops[i]) {
				return sent, nil
			}
			err = c.d.run(context.Background(), &ops[i])
		}
		c.ready = append(c.ready, Completion{Tag: ops[i].Tag, Err: c.d.wrap(ops[i].Kind.String(), ops[i].Off, ops[i].Len, err)})
		sent++
	}
	n, err := c.send()
	return sent + n, err
}

// mustWait reports whether running op now could wait for an operation that only
// a later Reap of this thread ends.
func (c *checkedQueue) mustWait(l *limits, op *Op) bool {
	if len(c.free) < len(c.slots) {
		return true
	}
	first, length := l.blocks(op.Off, op.Len)
	return l.mask != 0 && op.Kind != Read && c.d.locks.busy(first, length)
}

// stage puts op into the batch; false means busy.
func (c *checkedQueue) stage(l *limits, op *Op, flags Flags) bool {
	if len(c.free) == 0 {
		return false
	}
	tag := c.free[len(c.free)-1]
	s := &c.slots[tag]
	if changes := op.Kind != Read && op.Kind != Flush; changes && l.mask != 0 {
		if !c.d.locks.tryShared(&s.lock, op.Off, op.Len) {
			return false
		}
		s.locked = true
	}
	c.free = c.free[:len(c.free)-1]
	s.Op, s.inUse = *op, true
	c.batch = append(c.batch, *op)
	staged := &c.batch[len(c.batch)-1]
	staged.Tag, staged.Flags = tag, flags
	return true
}

// send gives the batch to the driver and takes back what it did not accept.
func (c *checkedQueue) send() (int, error) {
	if len(c.batch) == 0 {
		return 0, nil
	}
	n, err := c.q.Submit(c.batch)
	for i := len(c.batch) - 1; i >= n; i-- {
		c.releaseSlot(c.batch[i].Tag)
	}
	c.batch = c.batch[:0]
	return n, c.d.wrap("queue", -1, 0, err)
}

func (c *checkedQueue) releaseSlot(tag uint64) {
	s := &c.slots[tag]
	if s.locked {
		c.d.locks.release(&s.lock)
	}
	s.inUse, s.locked, s.Vec = false, false, nil
	c.free = append(c.free, tag)
}

func (c *checkedQueue) Reap(ctx context.Context, min int, dst []Completion) (int, error) {
	n := copy(dst, c.ready)
	c.ready = c.ready[:copy(c.ready, c.ready[n:])]
	idle := len(c.free) == len(c.slots) && len(c.watches) == 0
	if n == len(dst) || idle {
		return n, nil
	}
	got, err := c.q.Reap(ctx, max(min-n, 0), dst[n:])
	for i := n; i < n+got; i++ {
		dst[i] = c.complete(ctx, dst[i])
	}
	if err != nil && !isCancel(err) {
		err = c.d.wrap("queue", -1, 0, err)
	}
	return n + got, err
}

// complete turns the driver's completion into the caller's.
func (c *checkedQueue) complete(ctx context.Context, done Completion) Completion {
	if done.Tag >= watchTag {
		return Completion{Tag: c.watches[done.Tag-watchTag], Err: done.Err}
	}
	op := c.slots[done.Tag].Op
	if done.Err != nil || op.Kind == Flush {
		done.Err = c.settle(ctx, &op, done.Err)
	}
	c.releaseSlot(done.Tag)
	return Completion{Tag: op.Tag, Err: done.Err}
}

// settle gives an answer of the driver the meaning it has for the Disk's methods.
// It runs under the operation's range lock.
func (c *checkedQueue) settle(ctx context.Context, op *Op, err error) error {
	unsupported := errors.Is(err, errors.ErrUnsupported)
	switch {
	case op.Kind == Flush:
		return c.d.stick(err)
	case op.Kind == Trim && unsupported:
		return nil
	case op.Kind == Zero && unsupported && op.Flags&FastOnly != 0:
		err = ErrNotFast
	case op.Kind == Zero && unsupported:
		// Not by the Disk's method: its lock could wait for an operation that only
		// this thread's next Reap ends.
		l := c.d.limits.Load()
		flags, _ := l.fua(op.Flags)
		err = c.d.zeroBlocks(context.WithoutCancel(ctx), l, op.Off, op.Len, flags)
	}
	return c.d.wrap(op.Kind.String(), op.Off, op.Len, err)
}

func (c *checkedQueue) Cancel(tag uint64) {
	for i := range c.slots {
		if c.slots[i].inUse && c.slots[i].Tag == tag {
			c.q.Cancel(uint64(i))
		}
	}
}

func (c *checkedQueue) Close() error {
	err := c.q.Close()
	for i := range c.slots {
		if c.slots[i].inUse {
			c.releaseSlot(uint64(i))
		}
	}
	return c.d.wrap("queue", -1, 0, err)
}
