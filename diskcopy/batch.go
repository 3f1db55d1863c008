package diskcopy

import (
	"context"
	"errors"
	"runtime"

	"github.com/vmdisk/vmdisk/disk"
)

// A disk of many small extents would cost a round trip and a wake-up for each
// where one of the disks is not a local file. So small tasks are given out in
// batches, whose reads, and then whose changes, go through a disk.Queue together.

const (
	// maxBatch is how many tasks one worker takes at a time at most, and the depth of its queue.
	maxBatch = 256
	// smallTask is the data task for which the request matters more than its bytes.
	smallTask = 64 << 10
)

// isLocal reports whether d is a local file in the page cache, whose reads (or, with
// write, writes too) are system calls that mostly return at once.
func isLocal(d *disk.Disk, write bool) bool {
	if d.Size() == 0 {
		return true
	}
	r, ok := d.FileRange(0, min(d.Size(), max(d.Info().Min, 1)), write)
	if ok {
		r.Release()
	}
	return ok
}

// small reports whether t may share a batch.
func (t task) small() bool { return t.kind == taskCopy && t.n <= smallTask || t.kind == taskZero }

// findMore adds the tasks that follow to w's batch, as long as they are small, their data fits w's
// buffer, and nothing has to be measured.
func (e *engine) findMore(w *worker) error {
	room := int64(len(w.buf))
	for _, t := range w.tasks {
		if t.kind == taskCopy {
			room -= t.n
		}
	}
	for len(w.tasks) < maxBatch {
		if err := e.fill(); err != nil || e.cur.n == 0 {
			return err
		}
		if !e.cur.zero {
			if e.cur.n > min(room, smallTask) {
				return nil
			}
			room -= e.cur.n
			w.tasks = append(w.tasks, e.take(taskCopy, e.cur.n))
			continue
		}
		if head, known := e.plan.knownHead(e.cur.off, e.cur.n); known {
			e.skip(head)
			continue
		}
		if e.opt.Strategy == StatusFirst || e.opt.Strategy == Write || !e.plan.native || e.plan.probe && e.cur.n >= minProbe {
			return nil
		}
		head, _ := e.plan.knownHead(e.cur.off, e.cur.n)
		w.tasks = append(w.tasks, e.take(taskZero, min(head, e.plan.step)))
	}
	return nil
}

// doBatch reads the data of w.tasks together, then writes it and zeroes together.
func (w *worker) doBatch() error {
	if err := w.readBatch(); err != nil {
		return err
	}
	if w.e.queueWrites {
		if err := w.out.open(w.e.dst); err != nil {
			return targetErr(err)
		}
		w.queueing = true
		defer func() { w.queueing = false }()
	}
	buf := w.buf
	for _, t := range w.tasks {
		var err error
		if t.kind == taskZero {
			err = w.zero(t.off, t.n)
		} else {
			err = w.store(buf[:t.n:t.n], t)
			buf = buf[t.n:]
		}
		if err != nil {
			return err
		}
	}
	return w.flushQueue()
}

// readBatch reads the data of w.tasks, one behind the other, into w's buffer.
func (w *worker) readBatch() error {
	q := &w.in
	if w.e.queueReads {
		if err := q.open(w.e.src); err != nil {
			return sourceErr(err)
		}
	}
	buf := w.buf
	for _, t := range w.tasks {
		if t.kind != taskCopy {
			continue
		}
		p := buf[:t.n:t.n]
		buf = buf[t.n:]
		if !w.e.queueReads {
			if err := w.read(p, t.off); err != nil {
				return err
			}
			continue
		}
		q.add(disk.Op{Kind: disk.Read, Off: t.off, Len: t.n}, p)
	}
	if err := q.run(w.e.io); err != nil {
		return sourceErr(err)
	}
	for i := range q.ops {
		w.counts.Read.add(q.ops[i].Len)
	}
	q.ops = q.ops[:0]
	return nil
}

// queueOp adds a write of p or a zero of n bytes to the queue, whose earlier
// operations are done first if it is full.
func (w *worker) queueOp(k disk.Kind, off int64, p []byte, n int64) error {
	if len(w.out.ops) == maxBatch {
		if err := w.flushQueue(); err != nil {
			return err
		}
	}
	op := disk.Op{Kind: k, Off: off, Len: n}
	if k == disk.Zero {
		op.Flags = w.e.plan.flags
	}
	w.out.add(op, p)
	return nil
}

// flushQueue does the changes that wait and counts them.
func (w *worker) flushQueue() error {
	q := &w.out
	if err := q.run(w.e.io); err != nil {
		return targetErr(err)
	}
	for i := range q.ops {
		op := &q.ops[i]
		if op.Kind == disk.Zero {
			w.counts.Zero.add(op.Len)
		} else {
			w.wrote(op.Off, op.Len)
		}
	}
	q.ops = q.ops[:0]
	return nil
}

// batchQueue is a worker's queue to one of the disks, opened when first needed.
type batchQueue struct {
	q    disk.Queue
	ops  []disk.Op
	vecs [maxBatch][1][]byte
	done [maxBatch]disk.Completion
}

func (b *batchQueue) open(d *disk.Disk) (err error) {
	if b.q != nil {
		return nil
	}
	runtime.LockOSThread() // a queue belongs to one thread
	if b.q, err = d.NewQueue(maxBatch); err != nil {
		b.q = nil
		runtime.UnlockOSThread()
		return err
	}
	b.ops = make([]disk.Op, 0, maxBatch)
	return nil
}

// add notes an operation for the next run; p is the data of a read or write.
func (b *batchQueue) add(op disk.Op, p []byte) {
	i := len(b.ops)
	op.Tag = uint64(i)
	if p != nil {
		b.vecs[i][0] = p
		op.Vec = b.vecs[i][:]
	}
	b.ops = append(b.ops, op)
}

var errQueue = errors.New("the disk's queue takes no operation")

// run submits b.ops and waits for all; the first error is returned.
func (b *batchQueue) run(ctx context.Context) error {
	var failed error
	for next, flying := 0, 0; next < len(b.ops) || flying > 0; {
		if next < len(b.ops) && failed == nil {
			n, err := b.q.Submit(b.ops[next:])
			if failed = err; err == nil && n+flying == 0 {
				failed = errQueue
			}
			next, flying = next+n, flying+n
		}
		if flying == 0 {
			return failed
		}
		n, err := b.q.Reap(ctx, 1, b.done[:])
		for _, c := range b.done[:n] {
			if c.Err != nil && failed == nil {
				failed = c.Err
			}
		}
		if flying -= n; err != nil {
			return err
		}
	}
	return failed
}

func (b *batchQueue) close() {
	if b.q != nil {
		_ = b.q.Close() // waits for what is in flight; its errors were seen
		runtime.UnlockOSThread()
		b.q = nil
	}
}
