package qcow2

import (
	"context"
	"errors"

	"github.com/vmdisk/vmdisk/disk"
)

// Zero implements disk.Driver: whole clusters, or subclusters, by their entries, the rest by
// writing zeros.
func (d *driver) Zero(ctx context.Context, off, n int64, f disk.Flags) error {
	w := d.w
	if w == nil {
		return disk.ErrReadOnly
	}
	if d.geometry.version < 3 && (f&disk.MayTrim == 0 || d.backing != nil) {
		return errors.ErrUnsupported // that version has no zero clusters
	}
	first, end := w.wholeUnits(off, n)
	if first >= end {
		if f&disk.FastOnly != 0 {
			return disk.ErrNotFast
		}
		return w.zeroPart(ctx, off, n)
	}
	w.wrote.Store(true)
	if err := w.zeroUnits(ctx, first, end, f&disk.MayTrim != 0, w.zeroPart); err != nil {
		return err
	}
	if err := w.zeroPart(ctx, off, first-off); err != nil {
		return err
	}
	return w.zeroPart(ctx, end, off+n-end)
}

// Trim implements disk.Driver: whole units read as zeros and take no space. Where that
// cannot be said without showing the backing file again, nothing happens.
func (d *driver) Trim(ctx context.Context, off, n int64, _ disk.Flags) error {
	w := d.w
	if w == nil {
		return disk.ErrReadOnly
	}
	if d.geometry.version < 3 && d.backing != nil {
		return nil
	}
	first, end := w.wholeUnits(off, n)
	if first >= end {
		return nil
	}
	w.wrote.Store(true)
	return w.zeroUnits(ctx, first, end, true, leave)
}

// leave is for what a trim cannot give back: it promises nothing.
func leave(context.Context, int64, int64) error { return nil }

// wholeUnits rounds a range inward; the end of the disk ends a unit.
func (w *writer) wholeUnits(off, n int64) (first, end int64) {
	sub := w.d.geometry.sub
	first, end = (off+sub-1)&^(sub-1), (off+n)&^(sub-1)
	if off+n == w.d.size.Load() {
		end = off + n
	}
	return first, end
}

// writeZeros is zeroPart for any length.
func (d *driver) writeZeros(ctx context.Context, off, n int64) error {
	err := d.Zero(ctx, off, n, disk.MayTrim)
	if errors.Is(err, errors.ErrUnsupported) {
		err = d.w.zeroPart(ctx, off, n)
	}
	return err
}

var zeros [64 << 10]byte

// zeroPart writes zeros where there are none.
func (w *writer) zeroPart(ctx context.Context, off, n int64) error {
	for end := off + n; off < end; {
		r, err := w.d.lookup(ctx, off, end-off)
		if err != nil {
			return err
		}
		part := min(r.n, int64(len(zeros)))
		if r.kind == normal || r.kind == compressed || !w.readsZero(r.kind, off) {
			if err := w.d.WriteAt(ctx, zeros[:part], off, 0); err != nil {
				return err
			}
		}
		off += part
	}
	return nil
}

// zeroUnits makes the whole units of [off, end) zeros, by entries, and by rest where that
// cannot be.
func (w *writer) zeroUnits(ctx context.Context, off, end int64, trim bool, rest func(ctx context.Context, off, n int64) error) error {
	g := &w.d.geometry
	span := g.perSlice << g.clusterBits
	for off < end {
		if err := w.makeRoom(ctx); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := w.d.lookup(ctx, off, end-off)
		if err != nil {
			return err
		}
		if w.isZeroed(&r, off, trim) {
			off += r.n
			continue
		}
		n := min(end-off, span-off%span)
		left, err := w.zeroSpan(ctx, off, n, trim)
		if err != nil {
			return err
		}
		for _, x := range left {
			if err := rest(ctx, x.first, x.n); err != nil {
				return err
			}
		}
		off += n
	}
	return nil
}

// isZeroed reports whether there is nothing to do for a run.
func (w *writer) isZeroed(r *run, off int64, trim bool) bool {
	switch r.kind {
	case zeroPlain:
		return true
	case zeroAlloc:
		return !trim
	case unallocated:
		return w.readsZero(r.kind, off)
	}
	return false
}

// zeroSpan is zeroUnits within one slice. It returns the parts of compressed clusters,
// which cannot be taken apart.
func (w *writer) zeroSpan(ctx context.Context, off, n int64, trim bool) (left []hostRange, err error) {
	g := &w.d.geometry
	defer w.leave(w.enter())
	first, last := off>>g.clusterBits, (off+n-1)>>g.clusterBits
	held := w.spans.lock(first, last, true)
	defer w.spans.unlock(held)
	table, err := w.table(ctx, off/g.tableSpan())
	if err != nil {
		return nil, err
	}
	at := first % g.perTable
	s, err := w.d.l2.pin(ctx, table+at/g.perSlice*g.perSlice*g.words*8)
	if err != nil {
		return nil, err
	}
	defer s.hold.Add(-1)
	var old []entry
	base := first << g.clusterBits
	w.change(s, at%g.perSlice, last-first+1, func(i int64, e *entry) {
		start := base + (i-at%g.perSlice)<<g.clusterBits
		from, to := max(off-start, 0)/g.sub, (min(off+n-start, g.cluster)+g.sub-1)/g.sub
		if e.word&flagCompress != 0 && to-from < g.cluster/g.sub {
			left = append(left, hostRange{start + from*g.sub, min((to-from)*g.sub, off+n-start-from*g.sub)})
		} else if x, gone := w.zeroEntry(e, from, to, trim); gone {
			old = append(old, x)
		}
	})
	w.freeEntries(old)
	return left, nil
}

// zeroEntry makes the subclusters [from, to) of an entry zeros. It returns the entry whose
// clusters are no longer named.
func (w *writer) zeroEntry(e *entry, from, to int64, trim bool) (was entry, gone bool) {
	g := &w.d.geometry
	was = *e
	all := to-from == g.cluster/g.sub
	if !all {
		set := uint64(1)<<to - uint64(1)<<from
		e.bitmap = e.bitmap&^set | set<<subclusters
		if !trim || uint32(e.bitmap) != 0 || e.offset() == 0 {
			return was, false
		}
		e.word = 0
		return was, true
	}
	keep := !trim && g.own(*e)
	if !keep {
		e.word = 0
	}
	switch {
	case g.words == 2:
		e.bitmap = allSubs << subclusters
	case g.version >= 3:
		e.word |= flagZero
	}
	return was, !keep && (was.offset() != 0 || was.word&flagCompress != 0)
}
