package diskcopy

import (
	"context"
	"fmt"

	"github.com/vmdisk/vmdisk/disk"
)

// Copy makes the first src.Size() bytes of dst equal to src. What dst has
// beyond them is left alone.
//
// On an error, and when ctx is cancelled, it stops issuing requests, waits for
// those in flight and flushes what the target acknowledged. With a journal the
// error then is an [*InterruptedError]; without one the target's content is
// undefined. A failure of one of the disks is a [*CopyError]. The Stats are valid
// as far as the copy came.
func Copy(ctx context.Context, dst, src *disk.Disk, o Options) (Stats, error) {
	clk := startClock()
	s, err := copyDisk(ctx, dst, src, o, &clk)
	clk.stop(&s)
	return s, err
}

func copyDisk(ctx context.Context, dst, src *disk.Disk, o Options, clk *clock) (Stats, error) {
	o, err := o.complete(dst, src)
	if err == nil {
		err = checkDisks(dst, src, o)
	}
	if err != nil {
		return Stats{}, err
	}
	ioCtx, stop := disk.WithGrace(ctx, o.Grace, dst, src)
	defer stop()
	e, err := newEngine(ctx, ioCtx, dst, src, o)
	if err != nil {
		return Stats{}, err
	}
	defer e.close()
	defer func() { e.journal.close() }()
	if err := e.openJournal(); err != nil {
		return e.stats(), err
	}
	return e.run(clk)
}

// run copies, with its journal open, and ends with the target complete or the journal
// telling how far it is.
func (e *engine) run(clk *clock) (Stats, error) {
	if e.journal != nil && e.journal.resumed > 0 {
		if err := e.check(e.opt); err != nil {
			clk.phase(&e.total, "check")
			return e.stats(), e.interrupted(err)
		}
		clk.phase(&e.total, "check")
	}
	p := startProgress(e.opt, "copy", e.size, &e.done, e.dst, e.src)
	err := e.copy()
	p.stop()
	clk.phase(&e.total, "copy")
	if err == nil && (!e.opt.NoFlush || e.journal != nil) {
		p.next("flush")
		err = targetErr(e.dst.Flush(e.io))
		p.end()
		clk.phase(&e.total, "flush")
	}
	if err != nil {
		return e.stats(), e.interrupted(err)
	}
	return e.complete(clk)
}

// complete verifies and publishes what has been copied.
func (e *engine) complete(clk *clock) (Stats, error) {
	if e.opt.Verify {
		if err := e.verify(); err != nil {
			return e.stats(), err
		}
		clk.phase(&e.total, "verify")
		e.total.Verified = true
	}
	if e.opt.Publish != nil {
		if err := e.opt.Publish(); err != nil {
			return e.stats(), err
		}
	}
	if err := e.journal.remove(); err != nil {
		return e.stats(), fmt.Errorf("the copy is complete, but %w", err)
	}
	return e.stats(), nil
}

func checkDisks(dst, src *disk.Disk, o Options) error {
	to, from := dst.Info(), src.Info()
	switch {
	case to.ReadOnly:
		return targetErr(fmt.Errorf("%s: %w", dst, disk.ErrReadOnly))
	case to.Size < from.Size:
		return targetErr(fmt.Errorf("%s has %d bytes, too small for the %d bytes of %s: make it larger", dst, to.Size, from.Size, src))
	case to.ID != "" && to.ID == from.ID:
		return targetErr(fmt.Errorf("%s is the same storage as the source %s", dst, src))
	case o.SparseSize > 0 && to.Min > o.RequestSize:
		return targetErr(fmt.Errorf("%s has blocks of %d bytes: use a request size of at least that", dst, to.Min))
	}
	return nil
}

// verify reads both disks again, or has them digest themselves.
func (e *engine) verify() error {
	if e.equalSums() {
		return nil
	}
	r, err := Compare(e.ctx, e.src, e.dst, CompareOptions{
		RequestSize: e.opt.RequestSize, QueueDepth: e.opt.QueueDepth, Length: e.size,
		Progress: e.opt.Progress, ProgressEvery: e.opt.ProgressEvery, phase: "verify"})
	switch {
	case err != nil:
		return err
	case !r.Equal:
		return targetErr(fmt.Errorf("%s: verification failed: the content differs from the source's at offset %d", e.dst, r.Offset))
	}
	return nil
}
