package file

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/uring"
)

// NewQueue returns an io_uring of its own for this file. In AIO mode threads,
// and in mode auto where io_uring cannot be had, it answers
// errors.ErrUnsupported, and on tmpfs and ramfs disk.ErrInline: a ring there hands every
// operation to a kernel thread, which costs more than the copy it makes.
func (f *File) NewQueue(depth int) (disk.Queue, error) {
	switch {
	case f.opts.AIO == Threads:
		return nil, fmt.Errorf("AIO mode threads: %w", errors.ErrUnsupported)
	case f.opts.AIO != IOUring && f.inMemory:
		return nil, disk.ErrInline
	}
	q, err := newRingQueue(f, depth, uring.New)
	if err != nil && f.opts.AIO != IOUring {
		return nil, errors.Join(errors.ErrUnsupported, err)
	}
	if err != nil {
		return nil, err
	}
	return q, nil
}

// ringQueue is a disk.Queue over one ring. What the ring does not do as it
// stands (zeroes and trims, whose ladder is in one place; buffers that O_DIRECT
// does not take; the rest of a short transfer) is handed to workers that use the
// File's ordinary methods.
type ringQueue struct {
	f       *File
	ring    *uring.Ring
	target  uring.Target
	mem     [][]byte // registered; kept reachable
	fixed   bool     // mem is registered with the ring
	slots   []slot
	free    []uint32
	events  []uring.Completion
	watches []watch
	workers workers
	ready   []*slot // done inside Submit
	patience
	polls *polls // nil: completions are not polled for
	owned bool   // the owner's goroutine is locked to its thread

	wakeOn <-chan struct{} // the Done channel that wakes the ring
	unwake func() bool
}

type slot struct {
	disk.Op
	index uint32
	inUse bool
	ctx   slotContext
	err   error // result of a worker
}

type watch struct {
	fd  int
	tag uint64
}

// watchUser marks the ring's completions that belong to watches.
const watchUser = uint64(1) << 62

func newRingQueue(f *File, depth int, newRing func(entries int) (*uring.Ring, error)) (*ringQueue, error) {
	ring, err := newRing(ringEntries(depth))
	if err != nil {
		return nil, err
	}
	q := &ringQueue{f: f,
		slots: make([]slot, depth), ready: make([]*slot, 0, depth), free: make([]uint32, depth), events: make([]uring.Completion, min(depth+8, 256))}
	for i := range q.slots {
		q.slots[i].index = uint32(i)
		q.free[i] = uint32(depth - 1 - i)
	}
	q.use(ring)
	q.workers.start(q, depth)
	return q, nil
}

// ringEntries leaves room for watches and cancellations.
func ringEntries(depth int) int { return min(depth+8, uring.MaxEntries) }

// use makes ring the one that operations go to.
func (q *ringQueue) use(ring *uring.Ring) {
	q.ring, q.target = ring, uring.Target{FD: 0, Fixed: true}
	if err := ring.RegisterFiles(q.f.fd); err != nil {
		q.target = uring.Target{FD: q.f.fd}
	}
	q.workers.ring.Store(ring)
}

// own locks the calling goroutine to its thread until Close: the ring serves one
// thread alone, and the caller need not know.
func (q *ringQueue) own() {
	if !q.owned {
		runtime.LockOSThread()
		q.owned = true
	}
}

// Register pins mem in the kernel. Where it will not be pinned (RLIMIT_MEMLOCK,
// memory backed by a file) operations take the ordinary way.
func (q *ringQueue) Register(mem [][]byte) error {
	if q.mem != nil {
		return errors.New("memory is registered already")
	}
	q.mem = mem
	q.fixed = q.ring.RegisterBuffers(mem) == nil
	return nil
}

// WatchFD arms a multishot poll: fd must be read until it is empty each time.
func (q *ringQueue) WatchFD(fd int, tag uint64) error {
	q.own()
	q.watches = append(q.watches, watch{fd, tag})
	return q.arm(len(q.watches) - 1)
}

func (q *ringQueue) arm(i int) error {
	user := watchUser | uint64(i)
	if q.ring.Poll(q.watches[i].fd, user) {
		return nil
	}
	if err := q.ring.Submit(); err != nil {
		return err
	}
	if !q.ring.Poll(q.watches[i].fd, user) {
		return fmt.Errorf("watch file descriptor %d: the ring is full", q.watches[i].fd)
	}
	return nil
}

func (q *ringQueue) inflight() int { return len(q.slots) - len(q.free) }

func (q *ringQueue) Submit(ops []disk.Op) (int, error) {
	q.own()
	if ready, err := q.endPolling(); !ready || err != nil {
		return 0, err
	}
	n := 0
	for ; n < len(ops) && len(q.free) > 0; n++ {
		s := &q.slots[q.free[len(q.free)-1]]
		s.Op, s.inUse = ops[n], true
		if s.Kind == disk.Write {
			q.f.changing()
		}
		if !q.start(s) {
			s.inUse, s.Vec = false, nil
			break
		}
		q.free = q.free[:len(q.free)-1]
	}
	return n, q.ring.Submit()
}

// start gives an operation to the ring or to the workers; false means that the
// ring is full.
func (q *ringQueue) start(s *slot) bool {
	switch {
	case q.called(s), q.atOnce(s):
		q.ready = append(q.ready, s)
		return true
	case !q.suits(s):
		q.workers.do(s)
		return true
	}
	if q.prepare(s) {
		return true
	}
	return q.ring.Submit() == nil && q.prepare(s)
}

// maxRW is the most that one read or write of the kernel moves (MAX_RW_COUNT).
const maxRW = 1<<31 - pageSize

// suits reports whether the ring can do s as it stands.
func (q *ringQueue) suits(s *slot) bool {
	switch s.Kind {
	case disk.Read, disk.Write:
		if q.polls.giveUp() {
			return false
		}
		if len(s.Vec) > uring.MaxIovecs || s.Len > maxRW {
			return false
		}
		if !q.f.opts.Cache.direct() {
			return true
		}
		return q.f.alignedVec(s.Vec, s.Len) && (s.Kind == disk.Read || !q.f.nearTail(s.Off, s.Len))
	}
	return false // a flush among them: flushes go one by one, see flusher
}

func (q *ringQueue) prepare(s *slot) bool {
	user, r, t := uint64(s.index), q.ring, q.target
	single := len(s.Vec) == 1
	fixed := single && s.Buf > 0 && q.fixed
	switch {
	case s.Kind == disk.Read && fixed:
		return r.ReadFixed(t, s.Vec[0], s.Buf-1, s.Off, 0, user)
	case s.Kind == disk.Read && single:
		return r.Read(t, s.Vec[0], s.Off, 0, user)
	case s.Kind == disk.Read:
		return r.Readv(t, s.Vec, s.Off, 0, user)
	case fixed:
		return r.WriteFixed(t, s.Vec[0], s.Buf-1, s.Off, q.f.rwf(s.Flags), user)
	case single:
		return r.Write(t, s.Vec[0], s.Off, q.f.rwf(s.Flags), user)
	}
	return r.Writev(t, s.Vec, s.Off, q.f.rwf(s.Flags), user)
}

func (q *ringQueue) Reap(ctx context.Context, min int, dst []disk.Completion) (int, error) {
	q.own()
	if err := q.ring.Submit(); err != nil {
		return 0, err
	}
	n := 0
	for {
		got, err := q.collect(dst[n:])
		n += got
		if err != nil || n >= min || n == len(dst) || q.inflight() == 0 && len(q.watches) == 0 {
			return n, err
		}
		if got > 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return n, err
		}
		if err := q.wait(ctx, min-n); err != nil {
			return n, err
		}
	}
}

// collect takes what is ready: first from the ring, where the wake-ups of workers
// are consumed, then from the workers, or a wake-up could be lost.
func (q *ringQueue) collect(dst []disk.Completion) (int, error) {
	n := 0
	for n < len(dst) {
		k, err := q.ring.Reap(q.events[:min(len(q.events), len(dst)-n)])
		if err != nil {
			return n, err
		}
		if k == 0 {
			break
		}
		for _, e := range q.events[:k] {
			if c, ok := q.complete(e); ok {
				dst[n] = c
				n++
			}
		}
	}
	for n < len(dst) && len(q.ready) > 0 {
		// The oldest first: by the newest first a queue that is kept full starved the
		// others for as long as it ran.
		s := q.ready[0]
		q.ready = q.ready[:copy(q.ready, q.ready[1:])]
		dst[n] = q.finish(s, s.err)
		n++
	}
	for n < len(dst) {
		s, ok := q.workers.finished()
		if !ok {
			break
		}
		dst[n] = q.finish(s, s.err)
		n++
	}
	return n, nil
}

// wait blocks until something has happened. Only where nothing but the ring
// itself can end it, it waits for several completions at once.
func (q *ringQueue) wait(ctx context.Context, n int) error {
	if done := ctx.Done(); done != nil {
		n = 1
		if done != q.wakeOn { // most callers pass the same context each time
			q.disarm()
			q.wakeOn, q.unwake = done, context.AfterFunc(ctx, q.ring.Wake)
		}
	}
	if q.workers.busy > 0 || len(q.watches) > 0 {
		if q.ring.Polling() {
			return nil // the kernel would look at the device alone; Reap looks at all
		}
		n = 1
	}
	return q.ring.Wait(min(n, q.inflight()+len(q.watches)))
}

func (q *ringQueue) disarm() {
	if q.unwake != nil {
		q.unwake()
		q.wakeOn, q.unwake = nil, nil
	}
}

// complete turns an event of the ring into a completion; false where the
// operation goes on with a worker.
func (q *ringQueue) complete(e uring.Completion) (disk.Completion, bool) {
	if e.User&watchUser != 0 {
		return q.watched(e)
	}
	s := &q.slots[e.User]
	err := e.Err()
	switch {
	case err == unix.ECANCELED && s.ctx.Err() != nil:
		return q.finish(s, context.Canceled), true
	case err == nil && int64(e.Res) == s.Len:
		return q.finish(s, nil), true
	case err == nil, err == unix.EAGAIN, err == unix.EINTR, err == unix.ECANCELED, err == unix.EINVAL, err == unix.EOPNOTSUPP:
		// Short or refused: the ordinary way finishes it, or tells what is wrong.
		q.polls.answered(s, err)
		q.workers.do(s)
		return disk.Completion{}, false
	}
	return q.finish(s, err), true
}

// watched reports one event of a watched descriptor, and arms the poll again
// where the kernel has ended it.
func (q *ringQueue) watched(e uring.Completion) (disk.Completion, bool) {
	i := int(e.User &^ watchUser)
	err := e.Err()
	if err == nil && e.Last {
		err = q.arm(i)
	}
	return disk.Completion{Tag: q.watches[i].tag, Err: err}, true
}

// finish frees the slot.
func (q *ringQueue) finish(s *slot, err error) disk.Completion {
	if s.Kind == disk.Write {
		q.f.changed()
	}
	c := disk.Completion{Tag: s.Tag, Err: err}
	s.inUse, s.Vec, s.err = false, nil, nil
	s.ctx.cancelled.Store(false)
	q.free = append(q.free, s.index)
	return c
}

// Cancel asks the kernel, or the worker, to give the operation up. Reads and
// writes of files that have begun are not interrupted.
func (q *ringQueue) Cancel(tag uint64) {
	for i := range q.slots {
		s := &q.slots[i]
		if s.inUse && s.Tag == tag {
			s.ctx.cancelled.Store(true)
			q.ring.Cancel(uint64(s.index))
		}
	}
	_ = q.ring.Submit() // on failure the operation just goes on
}

// Close waits for the operations in flight: until then their buffers are the
// kernel's.
func (q *ringQueue) Close() error {
	q.own()
	q.watches = nil
	var dst [16]disk.Completion
	var err error
	for q.inflight() > 0 && err == nil {
		_, err = q.Reap(context.Background(), 1, dst[:])
	}
	q.disarm()
	q.workers.stop()
	q.ring.Close()
	runtime.UnlockOSThread()
	return err
}
