package disk

import (
	"context"
	"errors"
	"time"
)

// zeros is what emulated zeroing writes from; 256 KiB is where larger writes
// stop being cheaper per byte.
var zeros [256 << 10]byte

const (
	zeroFlags = FUA | MayTrim | FastOnly
	trimFlags = FUA
)

// Zero makes [off, off+n) read as zeros. Under FastOnly it fails with
// ErrNotFast where that would not be substantially faster than writing, and
// has touched nothing; a request shorter than a block counts as that. f may
// also hold MayTrim and FUA.
func (d *Disk) Zero(ctx context.Context, off, n int64, f Flags) error {
	if d.trace == nil {
		return d.zero(ctx, off, n, f)
	}
	start := time.Now()
	return d.traced("zero", off, n, f, start, d.zero(ctx, off, n, f))
}

func (d *Disk) zero(ctx context.Context, off, n int64, f Flags) error {
	l := d.limits.Load()
	err := l.checkChange(off, n, f, zeroFlags)
	if err == nil && f&FastOnly != 0 && l.FastZero != Native {
		err = ErrNotFast
	}
	if err == nil && n > 0 {
		native, flush := l.fua(f)
		if err = d.zeroLocked(ctx, l, off, n, native); err == nil && flush {
			err = d.flush(ctx)
		}
	}
	if err != nil {
		return d.wrap("zero", off, n, err)
	}
	return nil
}

func (d *Disk) zeroLocked(ctx context.Context, l *limits, off, n int64, f Flags) error {
	if l.mask == 0 {
		return d.zeroBlocks(ctx, l, off, n, f)
	}
	first, length := l.blocks(off, n)
	node, err := d.locks.lock(ctx, first, length, !l.aligned(off, n))
	if err != nil {
		return err
	}
	defer d.locks.unlock(node)
	return d.zeroUnaligned(ctx, l, off, n, f)
}

// zeroUnaligned zeroes the whole blocks first, so that a refusal of FastOnly
// leaves everything untouched, then writes into the partial blocks at the ends.
func (d *Disk) zeroUnaligned(ctx context.Context, l *limits, off, n int64, f Flags) error {
	end := off + n
	first := off + min(-off&l.mask, n)
	last := end
	if end < l.Size {
		last = max(end&^l.mask, first)
	}
	if first < last {
		if err := d.zeroBlocks(ctx, l, first, last-first, f); err != nil {
			return err
		}
	} else if f&FastOnly != 0 {
		return ErrNotFast
	}
	if err := d.writeParts(ctx, l, zeros[:first-off], off, f&FUA); err != nil {
		return err
	}
	return d.writeParts(ctx, l, zeros[:end-last], last, f&FUA)
}

// zeroBlocks zeroes aligned ranges in driver-sized steps. Once a step was fast,
// a later refusal may not surface (something has been touched), so the rest is
// zeroed by any means.
func (d *Disk) zeroBlocks(ctx context.Context, l *limits, off, n int64, f Flags) error {
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		step := min(n, l.maxZero)
		err := d.zeroStep(ctx, l, off, step, f)
		if errors.Is(err, errors.ErrUnsupported) && f&FastOnly != 0 {
			return ErrNotFast
		}
		if err != nil {
			return err
		}
		off, n = off+step, n-step
		f &^= FastOnly
	}
	return nil
}

func (d *Disk) zeroStep(ctx context.Context, l *limits, off, n int64, f Flags) error {
	if l.Zero != None {
		err := d.drv.Zero(ctx, off, n, f)
		if f&FastOnly != 0 || !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	for n > 0 {
		part := min(n, int64(len(zeros)))
		if err := d.writeParts(ctx, l, zeros[:part], off, f&FUA); err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return nil
}

// Trim advises that the range is unused. It succeeds, having done nothing,
// where the driver cannot trim; parts of blocks at the ends are left alone.
func (d *Disk) Trim(ctx context.Context, off, n int64, f Flags) error {
	if d.trace == nil {
		return d.trim(ctx, off, n, f)
	}
	start := time.Now()
	return d.traced("trim", off, n, f, start, d.trim(ctx, off, n, f))
}

func (d *Disk) trim(ctx context.Context, off, n int64, f Flags) error {
	l := d.limits.Load()
	err := l.checkChange(off, n, f, trimFlags)
	if err == nil && l.Trim != None {
		native, flush := l.fua(f)
		if err = d.trimParts(ctx, l, off, n, native); err == nil && flush {
			err = d.flush(ctx)
		}
	}
	if err != nil {
		return d.wrap("trim", off, n, err)
	}
	return nil
}

func (d *Disk) trimParts(ctx context.Context, l *limits, off, n int64, f Flags) error {
	end := off + n
	if end < l.Size {
		end -= end % l.trimAlign
	}
	skip := (l.trimAlign - off%l.trimAlign) % l.trimAlign
	if skip >= end-off {
		return nil
	}
	off += skip
	if l.mask != 0 {
		node, err := d.locks.lock(ctx, off, end-off, false)
		if err != nil {
			return err
		}
		defer d.locks.unlock(node)
	}
	for off < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		step := min(end-off, l.maxTrim)
		err := d.drv.Trim(ctx, off, step, f)
		if errors.Is(err, errors.ErrUnsupported) {
			return nil
		}
		if err != nil {
			return err
		}
		off += step
	}
	return nil
}

// Flush makes every write that completed before the call durable. A failure is
// sticky: the kernel reports a lost write once and then forgets it, so every
// later Flush and emulated FUA fails too, until the disk is opened again. Only a
// flush that was cancelled may be tried again.
func (d *Disk) Flush(ctx context.Context) error {
	if d.trace == nil {
		return d.wrap("flush", -1, 0, d.flush(ctx))
	}
	start := time.Now()
	return d.traced("flush", -1, 0, 0, start, d.wrap("flush", -1, 0, d.flush(ctx)))
}

func (d *Disk) flush(ctx context.Context) error {
	if failed := d.flushErr.Load(); failed != nil {
		return *failed
	}
	if d.limits.Load().ReadOnly {
		return nil
	}
	return d.stick(d.drv.Flush(ctx))
}

// stick remembers the first failure of a flush, and turns the success of one that
// ran beside it into that failure: the kernel tells a lost write once, to either.
func (d *Disk) stick(err error) error {
	if isCancel(err) {
		return err
	}
	if failed := d.flushErr.Load(); failed != nil {
		return *failed
	}
	if err == nil {
		return nil
	}
	err = d.wrap("flush", -1, 0, err)
	d.flushErr.CompareAndSwap(nil, &err)
	return err
}

// Cache advises that the range will be read soon. Where the driver cannot
// prefetch, the range is read and thrown away.
func (d *Disk) Cache(ctx context.Context, off, n int64) error {
	l := d.limits.Load()
	if err := l.check(off, n); err != nil {
		return d.wrap("cache", off, n, err)
	}
	if n == 0 {
		return nil
	}
	if d.cacher != nil && l.Cache == Native {
		first, length := l.blocks(off, n)
		return d.wrap("cache", off, n, d.cacher.Cache(ctx, first, length))
	}
	buf := bounces.Get().(*[]byte)
	defer bounces.Put(buf)
	for n > 0 {
		part := min(n, int64(len(*buf)))
		if err := d.ReadAt(ctx, (*buf)[:part], off); err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return nil
}
