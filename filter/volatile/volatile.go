package volatile

import (
	"context"
	"sync"

	"github.com/vmdisk/vmdisk/disk"
)

const (
	minBlock = 4096
	// heldZero bounds the zeroes that are held back; each of their blocks takes an entry.
	heldZero = 64 << 20
	// writeBack bounds one write of a flush.
	writeBack = 1 << 20
)

// filter holds blocks back; see the package comment. Blocks are never changed
// in place: a write replaces them, so that a flush can tell whether what it
// wrote is still the newest.
type filter struct {
	child *disk.Disk
	size  int64
	block int64

	dirty *cache
	// down is held by whatever writes to the disk below, so that a flush cannot
	// write an older block over a newer one.
	down sync.Mutex
}

// New puts the filter over child, which it owns from here on.
func New(child *disk.Disk) *disk.Disk {
	in := child.Info()
	return disk.New(&filter{child: child, size: in.Size, block: max(in.Min, minBlock), dirty: newCache()}, child.Name())
}

// Info implements disk.Driver. The blocks are Min, so that the Disk above does
// the read-modify-write.
func (f *filter) Info() disk.Info {
	in := f.child.Info()
	f.dirty.mu.RLock()
	dirty := f.dirty.count > 0
	f.dirty.mu.RUnlock()
	return disk.Info{
		Size: f.size, Gen: in.Gen, Min: f.block, Preferred: in.Preferred, Atomic: 0,
		TrimAlign: in.TrimAlign, Volatile: true, ReadOnly: in.ReadOnly, MultiConn: true,
		KnownZero: in.KnownZero && !dirty,
		Zero:      disk.Native, FastZero: in.FastZero, Trim: in.Trim, FUA: disk.Native, Cache: disk.Native,
		HideZero: in.HideZero, Maps: []disk.MapName{disk.Allocation},
	}
}

// blocks returns the numbers of the blocks of an aligned range.
func (f *filter) blocks(off, n int64) (first, end int64) {
	return off / f.block, (off+n-1)/f.block + 1
}

// length is the number of bytes in block n: the last one may be short.
func (f *filter) length(n int64) int64 { return min(f.block, f.size-n*f.block) }

// ReadAt implements disk.Driver. Runs of blocks that are not held are read
// below; what a flush takes away meanwhile is there already.
func (f *filter) ReadAt(ctx context.Context, p []byte, off int64) error {
	for n, end := f.blocks(off, int64(len(p))); n < end; {
		f.dirty.mu.RLock()
		b, clean := f.dirty.get(n), f.dirty.clean(n, end)
		f.dirty.mu.RUnlock()
		part := f.length(n)
		switch {
		case clean > 0:
			part = min(clean*f.block, int64(len(p)))
			if err := f.child.ReadAt(ctx, p[:part], off); err != nil {
				return err
			}
		case b.data == nil:
			clear(p[:part])
		default:
			copy(p, b.data)
		}
		n += max(clean, 1)
		p, off = p[part:], off+part
	}
	return nil
}

// WriteAt implements disk.Driver.
func (f *filter) WriteAt(ctx context.Context, p []byte, off int64, flags disk.Flags) error {
	var held []entry
	for first, end := f.blocks(off, int64(len(p))); first < end; first++ {
		part := f.length(first)
		held = append(held, entry{first, &block{data: append(make([]byte, 0, part), p[:part]...)}})
		p = p[part:]
	}
	return f.hold(ctx, held, flags)
}

// hold makes blocks the newest; under FUA it passes them down too.
func (f *filter) hold(ctx context.Context, held []entry, flags disk.Flags) error {
	if flags&disk.FUA != 0 {
		f.down.Lock()
		defer f.down.Unlock()
	}
	f.dirty.mu.Lock()
	for _, e := range held {
		f.dirty.put(e.n, e.b)
	}
	f.dirty.mu.Unlock()
	if flags&disk.FUA == 0 {
		return nil
	}
	return f.writeDown(ctx, held, disk.FUA)
}

// Zero implements disk.Driver.
func (f *filter) Zero(ctx context.Context, off, n int64, flags disk.Flags) error {
	first, end := f.blocks(off, n)
	if n > heldZero {
		return f.pass(first, end, func() error { return f.child.Zero(ctx, off, n, flags) })
	}
	var held []entry
	for ; first < end; first++ {
		held = append(held, entry{first, &block{flags: flags & disk.MayTrim}})
	}
	return f.hold(ctx, held, flags)
}

// Trim implements disk.Driver.
func (f *filter) Trim(ctx context.Context, off, n int64, flags disk.Flags) error {
	first, end := f.blocks(off, n)
	return f.pass(first, end, func() error { return f.child.Trim(ctx, off, n, flags) })
}

// pass changes the disk below at once. What was held of the range is forgotten
// only after that succeeded; a write that comes meanwhile may be, too, since it
// raced with the change.
func (f *filter) pass(first, end int64, change func() error) error {
	f.down.Lock()
	defer f.down.Unlock()
	if err := change(); err != nil {
		return err
	}
	f.dirty.mu.Lock()
	f.dirty.dropRange(first, end)
	f.dirty.mu.Unlock()
	return nil
}

// Flush implements disk.Driver.
func (f *filter) Flush(ctx context.Context) error {
	f.down.Lock()
	defer f.down.Unlock()
	f.dirty.mu.RLock()
	held := f.dirty.sorted()
	f.dirty.mu.RUnlock()
	if err := f.writeDown(ctx, held, 0); err != nil {
		return err
	}
	return f.child.Flush(ctx)
}

// writeDown writes blocks, which are in order, to the disk below and forgets
// those that nobody replaced meanwhile. The caller holds down.
func (f *filter) writeDown(ctx context.Context, held []entry, flags disk.Flags) error {
	buf := make([]byte, 0, min(int64(len(held))*f.block, writeBack))
	for len(held) > 0 {
		run := f.run(held)
		off := held[0].n * f.block
		var err error
		if held[0].b.data == nil {
			last := held[run-1].n
			err = f.child.Zero(ctx, off, last*f.block+f.length(last)-off, held[0].b.flags|flags)
		} else {
			buf = buf[:0]
			for _, e := range held[:run] {
				buf = append(buf, e.b.data...)
			}
			err = f.child.WriteAt(ctx, buf, off, flags)
		}
		if err != nil {
			return err
		}
		f.dirty.mu.Lock()
		f.dirty.forget(held[:run])
		f.dirty.mu.Unlock()
		held = held[run:]
	}
	return nil
}

// run is how many of the first entries can be written as one.
func (f *filter) run(held []entry) int {
	first := held[0].b
	n := 1
	for n < len(held) && held[n].n == held[n-1].n+1 && held[n].b.flags == first.flags &&
		(held[n].b.data == nil) == (first.data == nil) &&
		(first.data == nil || int64(n+1)*f.block <= max(writeBack, f.block)) {
		n++
	}
	return n
}

// Extents implements disk.Driver.
func (f *filter) Extents(ctx context.Context, m disk.MapName, off, n int64, dst []disk.Extent) ([]disk.Extent, error) {
	f.dirty.mu.RLock()
	first, end := f.blocks(off, n)
	clean := f.dirty.clean(first, end)
	if clean == 0 {
		dst = f.heldExtents(first, end, dst)
	}
	f.dirty.mu.RUnlock()
	if clean == 0 {
		return dst, nil
	}
	return f.below(ctx, m, off, min(clean*f.block, f.size-off), dst)
}

// heldExtents describes the held blocks from first on, up to one that is not
// held, joining equal neighbours.
func (f *filter) heldExtents(first, end int64, dst []disk.Extent) []disk.Extent {
	have := len(dst)
	for ; first < end; first++ {
		b := f.dirty.get(first)
		if b == nil {
			break
		}
		e := f.extent(first, b)
		if last := len(dst) - 1; last >= have && dst[last].Flags == e.Flags {
			dst[last].Len += e.Len
		} else if len(dst) < cap(dst) {
			dst = append(dst, e)
		} else {
			break
		}
	}
	return dst
}

func (f *filter) extent(n int64, b *block) disk.Extent {
	e := disk.Extent{Len: f.length(n)}
	if b.data == nil {
		e.Flags = disk.ExtentZero
		if b.flags&disk.MayTrim != 0 {
			e.Flags |= disk.ExtentHole
		}
	}
	return e
}

// below asks the disk below and cuts the answer to n bytes: what follows is held here.
func (f *filter) below(ctx context.Context, m disk.MapName, off, n int64, dst []disk.Extent) ([]disk.Extent, error) {
	have := len(dst)
	dst, err := f.child.Extents(ctx, m, off, n, dst)
	for i := have; i < len(dst); i++ {
		if dst[i].Len >= n {
			dst[i].Len = n
			dst = dst[:i+1]
		}
		n -= dst[i].Len
	}
	return dst, err
}

// Cache implements disk.Cacher.
func (f *filter) Cache(ctx context.Context, off, n int64) error { return f.child.Cache(ctx, off, n) }

// Close implements disk.Driver. What was not flushed is gone.
func (f *filter) Close() error { return f.child.Close() }
