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
	if d.cacher != nil && l.Cache == Native {
		return d.wrap("cache", off, n, d.cacher.Cache(ctx, off, n))
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

// Extents appends to dst the first extents of map m in [off, off+n), as many as
// dst has room for (one at least) or fewer. They are contiguous from off; the
// last may reach past off+n but never past the end of the disk. Where the
// driver knows no Allocation map, all is data; any other unknown map fails with
// errors.ErrUnsupported. n must be > 0.
func (d *Disk) Extents(ctx context.Context, m MapName, off, n int64, dst []Extent) ([]Extent, error) {
	if d.trace == nil {
		return d.extents(ctx, m, off, n, dst)
	}
	start := time.Now()
	got, err := d.extents(ctx, m, off, n, dst)
	return got, d.traced("extents", off, n, 0, start, err)
}

func (d *Disk) extents(ctx context.Context, m MapName, off, n int64, dst []Extent) ([]Extent, error) {
	l := d.limits.Load()
	err := l.check(off, n)
	if err == nil && n == 0 {
		err = ErrRange
	}
	if err == nil && !l.HasMap(m) {
		if m == Allocation {
			return append(dst, Extent{Len: n}), nil
		}
		err = errNoMap
	}
	if err == nil {
		dst, err = d.driverExtents(ctx, l, m, off, n, dst)
	}
	if err != nil {
		return dst, d.wrap("extents", off, n, err)
	}
	return dst, nil
}

// driverExtents asks the driver about whole blocks and cuts its answer to
// [off, Size).
func (d *Disk) driverExtents(ctx context.Context, l *limits, m MapName, off, n int64, dst []Extent) ([]Extent, error) {
	have := len(dst)
	if cap(dst) == have {
		dst = append(dst, Extent{})[:have]
	}
	first, length := l.blocks(off, n)
	got, err := d.drv.Extents(ctx, m, first, length, dst)
	if err != nil {
		return dst, err
	}
	end := first
	for i := have; i < len(got); i++ {
		if got[i].Len <= 0 {
			return dst, errBadMap
		}
		if left := l.Size - end; got[i].Len >= left {
			got[i].Len = left
			got = got[:i+1]
			break
		}
		if end += got[i].Len; end >= off+n {
			got = got[:i+1] // the range was widened to blocks: nothing may begin past it
			break
		}
	}
	// A driver may answer in units below Min, so the part before off can hold
	// several extents.
	for skip := off - first; skip > 0 && len(got) > have; {
		if got[have].Len > skip {
			got[have].Len -= skip
			break
		}
		skip -= got[have].Len
		got = append(got[:have], got[have+1:]...)
	}
	if len(got) == have {
		return dst, errBadMap
	}
	return got, nil
}
