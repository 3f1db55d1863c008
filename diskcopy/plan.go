package diskcopy

import (
	"context"

	"github.com/vmdisk/vmdisk/disk"
)

// span is a range of a disk that is data or reads as zeros.
type span struct {
	off, n int64
	zero   bool
}

func (s span) end() int64 { return s.off + s.n }

// walker cuts a disk into spans in ascending order, from the extents as they
// come. It is not safe for concurrent use.
type walker struct {
	d   *disk.Disk
	pos int64 // where the next span begins
	end int64
	// request bounds a data span, which ends at a multiple of it or earlier. Zero
	// spans are in units of align; what is left of a hole counts as data.
	request, align int64

	batch []disk.Extent
	i     int   // the extent of batch looked at last
	at    int64 // where it begins
}

func newWalker(d *disk.Disk, pos, end, request, align int64) *walker {
	return &walker{d: d, pos: pos, at: pos, end: end, request: request, align: align, batch: make([]disk.Extent, 0, disk.ExtentBatch)}
}

// next returns the span at pos and moves past it; its n is 0 at the end of the
// disk. A zero span may be of any length.
func (w *walker) next(ctx context.Context) (s span, err error) {
	s.off = w.pos
	if w.pos >= w.end {
		return s, nil
	}
	e, err := w.extent(ctx, w.pos)
	if err == nil && e.zero {
		s.n, err = w.zeroRun(ctx, e)
		s.zero = s.n > 0
	}
	if err == nil && !s.zero {
		s.n, err = w.dataRun(ctx, e)
	}
	w.pos += s.n
	return s, err
}

// zeroRun is the length of the zeros at pos, in whole units; e is the first
// extent of them.
func (w *walker) zeroRun(ctx context.Context, e span) (n int64, err error) {
	stop := e.end()
	for stop < w.end {
		if e, err = w.extent(ctx, stop); err != nil {
			return 0, err
		}
		if !e.zero {
			break
		}
		stop = e.end()
	}
	return wholeUnits(w.pos, stop, w.align, w.end), nil
}

// dataRun is the length of the data at pos up to the next hole that is worth
// one, or to the request's end; e is the extent there.
func (w *walker) dataRun(ctx context.Context, e span) (n int64, err error) {
	limit := min((w.pos/w.request+1)*w.request, w.end)
	stop := min(e.end(), limit)
	for stop < limit {
		if e, err = w.extent(ctx, stop); err != nil {
			return 0, err
		}
		if e.zero && wholeUnits(stop, e.end(), w.align, w.end) > 0 {
			stop = min((stop+w.align-1)/w.align*w.align, limit)
			break
		}
		stop = min(e.end(), limit)
	}
	return stop - w.pos, nil
}

// wholeUnits is how much of [off, stop) is in whole units; end, where the disk
// ends, ends a unit.
func wholeUnits(off, stop, unit, end int64) int64 {
	off = (off + unit - 1) / unit * unit
	if stop < end {
		stop = stop / unit * unit
	}
	return max(stop-off, 0)
}

// extent returns the extent at off, from off on. off grows from call to call,
// except that a walk that looked ahead to the end of a hole may return into its
// last partial unit, which is data to the caller anyway.
func (w *walker) extent(ctx context.Context, off int64) (span, error) {
	if off < w.at {
		return span{off: off, n: w.at - off}, nil
	}
	for ; w.i < len(w.batch); w.i++ {
		e := w.batch[w.i]
		if off < w.at+e.Len {
			return span{off, min(w.at+e.Len, w.end) - off, isZeroExtent(e)}, nil
		}
		w.at += e.Len
	}
	var err error
	w.i, w.at = 0, off
	w.batch, err = w.d.Extents(ctx, disk.Allocation, off, w.end-off, w.batch[:0])
	if err != nil {
		return span{}, err
	}
	e := w.batch[0]
	return span{off, min(e.Len, w.end-off), isZeroExtent(e)}, nil
}

func isZeroExtent(e disk.Extent) bool { return e.Flags&disk.ExtentZero != 0 }
