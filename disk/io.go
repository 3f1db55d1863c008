package disk

import (
	"context"
	"sync"
	"time"
)

// bounceSize is the size of the buffers of read-modify-write; it is also the
// largest legal Min (the NBD limit on minimum block sizes).
const bounceSize = 64 << 10

var bounces = sync.Pool{New: func() any { b := make([]byte, bounceSize); return &b }}

// plain reports whether a range can go to the driver as it is. Most do, so
// ReadAt and WriteAt ask this first: it halves the cost of a layer. What it
// refuses is looked at again with care.
func (l *limits) plain(off, n int64) bool {
	return off >= 0 && n > 0 && n <= l.maxIO && n <= l.Size-off && (off|n)&l.mask == 0
}

// ReadAt fills p from off: all of it, or an error.
func (d *Disk) ReadAt(ctx context.Context, p []byte, off int64) error {
	l, n := d.limits.Load(), int64(len(p))
	if d.trace == nil && l.plain(off, n) {
		if err := d.drv.ReadAt(ctx, p, off); err != nil {
			return d.wrap("read", off, n, err)
		}
		return nil
	}
	if d.trace == nil {
		return d.read(ctx, p, off)
	}
	start := time.Now()
	return d.traced("read", off, n, 0, start, d.read(ctx, p, off))
}

func (d *Disk) read(ctx context.Context, p []byte, off int64) error {
	l, n := d.limits.Load(), int64(len(p))
	err := l.check(off, n)
	switch {
	case err != nil || n == 0:
	case n <= l.maxIO && l.aligned(off, n):
		err = d.drv.ReadAt(ctx, p, off)
	default:
		err = d.readParts(ctx, l, p, off)
	}
	if err != nil {
		return d.wrap("read", off, n, err)
	}
	return nil
}

// readParts reads what is too long or not in whole blocks: a partial block is
// read whole into a bounce buffer, the rest straight into p.
func (d *Disk) readParts(ctx context.Context, l *limits, p []byte, off int64) error {
	for len(p) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, whole := l.nextPart(off, int64(len(p)))
		var err error
		if whole {
			err = d.drv.ReadAt(ctx, p[:n], off)
		} else {
			err = d.readPartial(ctx, l, p[:n], off)
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// nextPart cuts the first part off a range: a run of whole blocks within the
// driver's limit, or the bytes that lie in one partial block.
func (l *limits) nextPart(off, n int64) (part int64, whole bool) {
	if skew := off & l.mask; skew != 0 {
		return min(n, l.mask+1-skew), false
	}
	if n <= l.mask && off+n < l.Size {
		return n, false
	}
	if part = min(n, l.maxIO); off+part < l.Size {
		part &^= l.mask
	}
	return part, true
}

func (d *Disk) readPartial(ctx context.Context, l *limits, p []byte, off int64) error {
	first, length := l.blocks(off, int64(len(p)))
	buf := bounces.Get().(*[]byte)
	defer bounces.Put(buf)
	if err := d.drv.ReadAt(ctx, (*buf)[:length], first); err != nil {
		return err
	}
	copy(p, (*buf)[off-first:length])
	return nil
}

// WriteAt writes p at off. f may hold FUA.
func (d *Disk) WriteAt(ctx context.Context, p []byte, off int64, f Flags) error {
	l, n := d.limits.Load(), int64(len(p))
	if d.trace == nil && l.plainWrite && f == 0 && l.plain(off, n) {
		if err := d.drv.WriteAt(ctx, p, off, 0); err != nil {
			return d.wrap("write", off, n, err)
		}
		return nil
	}
	if d.trace == nil {
		return d.write(ctx, p, off, f)
	}
	start := time.Now()
	return d.traced("write", off, n, f, start, d.write(ctx, p, off, f))
}

func (d *Disk) write(ctx context.Context, p []byte, off int64, f Flags) error {
	l, n := d.limits.Load(), int64(len(p))
	err := l.checkChange(off, n, f, FUA)
	if err == nil && n > 0 {
		native, flush := l.fua(f)
		if l.mask == 0 && n <= l.maxIO {
			err = d.drv.WriteAt(ctx, p, off, native)
		} else {
			err = d.writeLocked(ctx, l, p, off, native)
		}
		if err == nil && flush {
			err = d.flush(ctx)
		}
	}
	if err != nil {
		return d.wrap("write", off, n, err)
	}
	return nil
}

// writeLocked writes under the lock of the blocks it touches.
func (d *Disk) writeLocked(ctx context.Context, l *limits, p []byte, off int64, f Flags) error {
	if l.mask != 0 {
		first, length := l.blocks(off, int64(len(p)))
		node, err := d.locks.lock(ctx, first, length, !l.aligned(off, int64(len(p))))
		if err != nil {
			return err
		}
		defer d.locks.unlock(node)
	}
	return d.writeParts(ctx, l, p, off, f)
}

// writeParts writes in driver-sized parts; partial blocks only under an exclusive lock.
func (d *Disk) writeParts(ctx context.Context, l *limits, p []byte, off int64, f Flags) error {
	for len(p) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, whole := l.nextPart(off, int64(len(p)))
		var err error
		if whole {
			err = d.drv.WriteAt(ctx, p[:n], off, f)
		} else {
			err = d.writePartial(ctx, l, p[:n], off, f)
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// writePartial is the one place of read-modify-write: p lies within one block,
// whose exclusive lock the caller holds.
func (d *Disk) writePartial(ctx context.Context, l *limits, p []byte, off int64, f Flags) error {
	first, length := l.blocks(off, int64(len(p)))
	buf := bounces.Get().(*[]byte)
	defer bounces.Put(buf)
	block := (*buf)[:length]
	if err := d.drv.ReadAt(ctx, block, first); err != nil {
		if l.MinAssumed && !isCancel(err) {
			return d.drv.WriteAt(ctx, p, off, f)
		}
		return err
	}
	copy(block[off-first:], p)
	return d.drv.WriteAt(ctx, block, first, f)
}

// Readv fills the buffers of vec, in order, from off.
func (d *Disk) Readv(ctx context.Context, vec [][]byte, off int64) error {
	l, n := d.limits.Load(), vecLen(vec)
	if d.vector == nil || d.trace != nil || n == 0 || n > l.maxIO || l.check(off, n) != nil || !l.aligned(off, n) {
		if err := l.check(off, n); err != nil {
			return d.wrap("read", off, n, err)
		}
		for _, p := range vec {
			if err := d.ReadAt(ctx, p, off); err != nil {
				return err
			}
			off += int64(len(p))
		}
		return nil
	}
	return d.wrap("read", off, n, d.vector.Readv(ctx, vec, off))
}

// Writev writes the buffers of vec, in order, at off. f may hold FUA.
func (d *Disk) Writev(ctx context.Context, vec [][]byte, off int64, f Flags) error {
	l, n := d.limits.Load(), vecLen(vec)
	if err := l.checkChange(off, n, f, FUA); err != nil {
		return d.wrap("write", off, n, err)
	}
	native, flush := l.fua(f)
	if d.vector != nil && d.trace == nil && n > 0 && n <= l.maxIO && l.mask == 0 && !flush {
		return d.wrap("write", off, n, d.vector.Writev(ctx, vec, off, native))
	}
	for _, p := range vec {
		if err := d.WriteAt(ctx, p, off, native); err != nil {
			return err
		}
		off += int64(len(p))
	}
	if flush {
		return d.Flush(ctx)
	}
	return nil
}

func vecLen(vec [][]byte) (n int64) {
	for _, p := range vec {
		n += int64(len(p))
	}
	return n
}

// TryRead reads without blocking, or fails with ErrWouldBlock and has done
// nothing; the caller then uses ReadAt, where waiting does no harm.
func (d *Disk) TryRead(p []byte, off int64) error {
	l, n := d.limits.Load(), int64(len(p))
	if d.inline == nil || d.trace != nil {
		return ErrWouldBlock
	}
	err := l.check(off, n)
	switch {
	case err != nil || n == 0:
	case n <= l.maxIO && l.aligned(off, n):
		err = d.inline.TryRead(p, off)
	default:
		err = ErrWouldBlock
	}
	if err != nil {
		return d.wrap("read", off, n, err)
	}
	return nil
}

// TryWrite is TryRead's counterpart. Disks with Min > 1 refuse, since a write
// may have to wait for a lock there, as do writes that a flush would follow.
func (d *Disk) TryWrite(p []byte, off int64, f Flags) error {
	l, n := d.limits.Load(), int64(len(p))
	if d.inline == nil || d.trace != nil {
		return ErrWouldBlock
	}
	err := l.checkChange(off, n, f, FUA)
	if err == nil && n > 0 {
		native, flush := l.fua(f)
		if flush || l.mask != 0 || n > l.maxIO {
			return ErrWouldBlock
		}
		err = d.inline.TryWrite(p, off, native)
	}
	if err != nil {
		return d.wrap("write", off, n, err)
	}
	return nil
}

// FileRange gives direct access to the file that holds [off, off+n), or to its
// beginning; false where there is none. Release it soon: it keeps unaligned
// writes to the range waiting where the disk has Min > 1.
func (d *Disk) FileRange(off, n int64, write bool) (FileRange, bool) {
	l := d.limits.Load()
	if d.ranger == nil || d.trace != nil || n <= 0 || l.check(off, n) != nil || write && (l.ReadOnly || !l.aligned(off, n)) {
		return FileRange{}, false
	}
	if !write || l.mask == 0 {
		return d.ranger.FileRange(off, n, write)
	}
	node := lockNodes.Get().(*lockNode)
	if !d.locks.tryShared(node, off, n) {
		lockNodes.Put(node)
		return FileRange{}, false
	}
	r, ok := d.ranger.FileRange(off, n, write)
	if !ok {
		d.locks.unlock(node)
		return FileRange{}, false
	}
	done := r.Done
	r.Done = func() {
		if done != nil {
			done()
		}
		d.locks.unlock(node)
	}
	return r, true
}
