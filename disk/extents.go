package disk

import (
	"context"
	"time"
)

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
	switch {
	case len(got) > have:
		return got, nil
	case end <= first:
		return dst, errBadMap
	}
	return d.finerExtents(ctx, l, m, off, n, dst)
}

// maxFiner bounds the extents that one block can have.
const maxFiner = bounceSize

// finerExtents is driverExtents for a driver that answered in units so far below Min
// that all there was room for ends before off.
func (d *Disk) finerExtents(ctx context.Context, l *limits, m MapName, off, n int64, dst []Extent) ([]Extent, error) {
	room := max(cap(dst)-len(dst), 1)
	if room >= maxFiner {
		return dst, errBadMap
	}
	got, err := d.driverExtents(ctx, l, m, off, n, make([]Extent, 0, min(16*room, maxFiner)))
	if err != nil {
		return dst, err
	}
	return append(dst, got[:min(len(got), room)]...), nil
}
