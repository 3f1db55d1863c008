package diskcopy

import (
	"context"
	"math"
	"sync"
	"sync/atomic"

	"github.com/vmdisk/vmdisk/disk"
)

// engine is one copy. Its workers pull tasks from next; there is no other
// goroutine that plans, so a task costs one lock and no hand-off.
type engine struct {
	ctx      context.Context // ends the issuing of tasks
	io       context.Context // of the operations, outlives ctx a little
	dst, src *disk.Disk
	opt      Options
	size     int64
	mem      []byte // the workers' buffers
	zeroBuf  []byte // one request of zeros
	journal  *journal
	done     atomic.Int64 // bytes dealt with
	differed atomic.Int64 // bytes below a resumed copy's start that were written again
	sending  sending
	flusher  flusher
	behind   writeBehind
	batching bool // small tasks are done many at a time
	// queueReads and queueWrites: through queues, as the disk is no local file.
	queueReads, queueWrites bool

	mu       sync.Mutex
	changed  sync.Cond // on mu: a worker became idle, or the probe ended
	walk     *walker
	cur      span  // what is left of the walker's last span
	sent     int64 // the end of the last task
	plan     zeroPlan
	workers  []*worker
	busy     int
	probing  bool // one worker measures the target, all others wait
	total    Stats
	firstErr error
}

// localDepth is the default queue depth from local file to local file.
const localDepth = 4

// idle is the offset of a worker that has no task.
const idle = math.MaxInt64

// worker executes tasks, one by one or small ones many at a time, with a buffer of its own.
type worker struct {
	e      *engine
	buf    []byte
	tasks  []task
	at     int64 // offset of its first task, or idle; under e.mu
	counts Counts
	in     batchQueue
	out    batchQueue
	// queueing: writes and zeroes gather in out.
	queueing bool
	ext      []disk.Extent
}

func newEngine(ctx, ioCtx context.Context, dst, src *disk.Disk, o Options) (*engine, error) {
	e := &engine{ctx: ctx, io: ioCtx, dst: dst, src: src, opt: o, size: src.Size()}
	e.changed.L = &e.mu
	e.queueReads, e.queueWrites = !isLocal(src, false), !isLocal(dst, true)
	e.batching = e.queueReads || e.queueWrites
	if o.autoDepth && !e.batching {
		o.QueueDepth = localDepth
	}
	n := int(min(int64(o.QueueDepth), max(1, (e.size+o.RequestSize-1)/o.RequestSize)))
	var err error
	if e.mem, err = mapMemory(int64(n) * o.RequestSize); err != nil {
		return nil, err
	}
	if e.zeroBuf, err = mapMemory(o.RequestSize); err != nil {
		e.close()
		return nil, err
	}
	for i := range int64(n) {
		e.workers = append(e.workers, &worker{e: e, at: idle, tasks: make([]task, 0, maxBatch), ext: make([]disk.Extent, 0, 64),
			buf: e.mem[i*o.RequestSize : (i+1)*o.RequestSize : (i+1)*o.RequestSize]})
	}
	e.total.Size, e.total.Strategy = e.size, o.Strategy
	e.startAt(0)
	return e, nil
}

func (e *engine) close() {
	unmapMemory(e.mem)
	unmapMemory(e.zeroBuf)
}

// startAt sets where the copy begins.
func (e *engine) startAt(off int64) {
	align := max(e.dst.Info().Min, e.src.Info().Min, max(e.opt.SparseSize, 512))
	e.walk = newWalker(e.src, off, e.size, e.opt.RequestSize, align)
	e.done.Store(off)
}

// copy does the work from the walker's position to the end of the disk.
func (e *engine) copy() error {
	cloned, err := e.clone()
	if cloned || err != nil {
		return err
	}
	if err := e.prepareZero(); err != nil {
		return err
	}
	stopCheckpoints := e.startCheckpoints()
	stopWriting, ok := e.startBehind()
	if !ok {
		stopWriting = e.startFlusher()
	}
	var wg sync.WaitGroup
	for _, w := range e.workers {
		wg.Go(w.run)
	}
	wg.Wait()
	stopCheckpoints()
	stopWriting()
	if e.firstErr == nil && e.frontier() < e.size {
		e.firstErr = e.ctx.Err()
	}
	return e.firstErr
}

// stats sums up; the workers have ended.
func (e *engine) stats() Stats {
	s := e.total
	for _, w := range e.workers {
		s.Counts.merge(&w.counts)
	}
	if e.journal != nil {
		s.ResumedAt, s.ResentBytes, s.DifferedBytes = e.journal.resumed, e.journal.resent.Load(), e.differed.Load()
	}
	if s.ZeroBy == "" {
		s.ZeroBy = e.plan.outcome(s.Zero.Ops > 0)
	}
	return s
}

func (w *worker) run() {
	defer w.out.close()
	defer w.in.close()
	for w.e.next(w) {
		if err := w.doAll(); err != nil {
			w.e.fail(err)
			return
		}
		for _, t := range w.tasks {
			w.e.done.Add(t.n)
		}
	}
}

// fail ends the copy, by the first error, after w.do. The offset of the failed
// task stays in its worker, so the frontier does not pass it.
func (e *engine) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.busy--
	e.setErr(err)
}

func (e *engine) setErr(err error) {
	if e.firstErr == nil {
		e.firstErr = err
	}
	e.changed.Broadcast()
}

// frontier is the offset below which everything is done.
func (e *engine) frontier() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	f := e.walk.pos - e.cur.n
	for _, w := range e.workers {
		f = min(f, w.at)
	}
	return f
}

// next ends w's tasks and gives it others; false when there are none.
func (e *engine) next(w *worker) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	w.tasks = w.tasks[:0]
	if w.at != idle {
		w.at = idle
		if e.busy--; e.busy == 0 && e.probing {
			e.changed.Broadcast()
		}
	}
	t, ok, err := e.findTask(w)
	if err != nil {
		e.setErr(err)
	}
	if !ok {
		return false
	}
	w.at = t.off
	e.busy++
	w.tasks = append(w.tasks, t)
	if e.batching && t.small() {
		if err := e.findMore(w); err != nil {
			e.setErr(err) // once these are done
		}
	}
	e.send(w.tasks[len(w.tasks)-1])
	return true
}

// send notes that t is about to be done.
func (e *engine) send(t task) {
	e.sent = t.off + t.n
	e.journal.sending(e.sent)
}

// findTask finds the next task; what needs none is dealt with on the way.
func (e *engine) findTask(w *worker) (task, bool, error) {
	for {
		for e.probing {
			e.changed.Wait()
		}
		if e.firstErr != nil || e.ctx.Err() != nil {
			return task{}, false, nil
		}
		if err := e.fill(); err != nil || e.cur.n == 0 {
			return task{}, false, err
		}
		if !e.cur.zero {
			return e.take(taskCopy, e.cur.n), true, nil
		}
		t, ok, err := e.planHole(w)
		if ok || err != nil {
			return t, ok, err
		}
	}
}

// fill makes cur the span at the planner's position; its n is 0 at the end.
func (e *engine) fill() (err error) {
	if e.cur.n == 0 {
		e.cur, err = e.walk.next(e.io)
	}
	return sourceErr(err)
}

// take cuts a task off the head of cur.
func (e *engine) take(k taskKind, n int64) task {
	t := task{kind: k, off: e.cur.off, n: n, known: e.plan.knows(e.cur.off, n)}
	e.consume(n)
	return t
}

func (e *engine) consume(n int64) {
	e.cur.off += n
	e.cur.n -= n
}
