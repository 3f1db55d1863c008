package diskcopy

import (
	"math"
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

type taskKind uint8

const (
	taskCopy   taskKind = iota // read, search for zeros, write
	taskZero                   // zero the target
	taskStatus                 // ask the target, zero what is not zero
	taskWrite                  // write zeros
)

// task is one piece of work for a worker.
type task struct {
	kind   taskKind
	off, n int64
	known  bool // the target is known to read as zeros there
}

// minZeroRun is the shortest run of zeros within data that is worth a zero request
// of its own; shorter ones are cheaper to write, as a request costs about what
// 64 KiB of payload do.
const minZeroRun = 64 << 10

// doAll does w.tasks.
func (w *worker) doAll() error {
	if len(w.tasks) == 1 {
		return w.do(w.tasks[0])
	}
	return w.doBatch()
}

func (w *worker) do(t task) error {
	switch t.kind {
	case taskZero:
		return w.zero(t.off, t.n)
	case taskStatus:
		return w.zeroWhereNot(t.off, t.n)
	case taskWrite:
		return w.write(w.e.zeroBuf[:t.n], t.off)
	}
	if sent, err := w.send(t); sent || err != nil {
		return err
	}
	p := w.buf[:t.n]
	if err := w.read(p, t.off); err != nil {
		return err
	}
	return w.store(p, t)
}

// store writes what was read for t, runs of zeros by the cheaper means.
func (w *worker) store(p []byte, t task) error {
	granule, short := w.granule(t.known)
	if granule <= 0 {
		return w.write(p, t.off)
	}
	zeros := int64(0)
	defer func() { w.e.sending.found(t.n, zeros) }()
	for off := t.off; len(p) > 0; {
		n, zero := dataRun(p, off, granule, short)
		if zero {
			zeros += n
		}
		if err := w.storeRun(p[:n], off, zero, t.known); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

func (w *worker) storeRun(p []byte, off int64, zero, known bool) error {
	n := int64(len(p))
	switch {
	case zero && known:
		w.counts.Skip.add(n)
		return nil
	case zero:
		return w.zero(off, n)
	}
	return w.write(p, off)
}

// granule is the unit in which data is searched for zeros (0: not at all) and the
// shortest run of them that is not written.
func (w *worker) granule(known bool) (granule, short int64) {
	e := w.e
	if e.opt.SparseSize < 0 || e.opt.Strategy == Write || !known && !e.plan.native {
		return 0, math.MaxInt64
	}
	granule = max(e.opt.SparseSize, e.plan.min)
	if known {
		return granule, granule
	}
	return granule, max(granule, minZeroRun)
}

func (w *worker) read(p []byte, off int64) error {
	if err := w.e.src.ReadAt(w.e.io, p, off); err != nil {
		return sourceErr(err)
	}
	w.counts.Read.add(int64(len(p)))
	return nil
}

func (w *worker) write(p []byte, off int64) error {
	if w.queueing {
		return w.queueOp(disk.Write, off, p, int64(len(p)))
	}
	if err := w.e.dst.WriteAt(w.e.io, p, off, 0); err != nil {
		return targetErr(err)
	}
	w.wrote(off, int64(len(p)))
	return nil
}

// wrote counts what the target acknowledged.
func (w *worker) wrote(off, n int64) {
	w.counts.Write.add(n)
	w.e.journal.wrote(off, n)
	w.e.flusher.wrote(n)
	w.e.behind.wrote(n)
}

func (w *worker) zero(off, n int64) error {
	if w.queueing {
		return w.queueOp(disk.Zero, off, nil, n)
	}
	if err := w.e.dst.Zero(w.e.io, off, n, w.e.plan.flags); err != nil {
		return targetErr(err)
	}
	w.counts.Zero.add(n)
	return nil
}

// zeroWhereNot zeroes the parts of a range that the target does not know as zeros,
// widened to its blocks where the range allows it: part of a block would have to be
// read.
func (w *worker) zeroWhereNot(off, n int64) error {
	zeroed, end, unit := off, off+n, max(w.e.plan.min, 1)
	for n > 0 {
		ext, err := w.e.dst.Extents(w.e.io, disk.Allocation, off, n, w.ext[:0])
		if err != nil {
			return targetErr(err)
		}
		w.counts.Status.add(n)
		for _, x := range ext {
			part := min(x.Len, n)
			if part <= 0 {
				break
			}
			if w.e.plan.enough(x.Flags) {
				w.counts.Skip.add(max(0, off+part-max(off, zeroed)))
			} else if from, to := max(zeroed, off-off%unit), min(end, (off+part+unit-1)/unit*unit); from < to {
				if err := w.zero(from, to-from); err != nil {
					return err
				}
				zeroed = to
			}
			off, n = off+part, n-part
		}
	}
	return nil
}

// timedCopy copies one data span alone and tells how long the write took; 0
// when it was not one whole write.
func (w *worker) timedCopy(t task) (time.Duration, error) {
	p := w.buf[:t.n]
	if err := w.read(p, t.off); err != nil {
		return 0, err
	}
	before, start := w.counts.Write.Bytes, time.Now()
	err := w.store(p, t)
	if took := time.Since(start); err == nil && w.counts.Write.Bytes-before == t.n {
		return took, nil
	}
	return 0, err
}
