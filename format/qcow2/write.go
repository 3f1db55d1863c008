package qcow2

import (
	"context"

	"github.com/vmdisk/vmdisk/disk"
)

// WriteAt implements disk.Driver.
func (d *driver) WriteAt(ctx context.Context, p []byte, off int64, _ disk.Flags) error {
	w := d.w
	if w == nil {
		return disk.ErrReadOnly
	}
	if err := w.makeRoom(ctx); err != nil {
		return err
	}
	defer w.leave(w.enter())
	w.wrote.Store(true)
	for len(p) > 0 {
		n, err := w.writeSome(ctx, p, off)
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// makeRoom commits if much is dirty.
func (w *writer) makeRoom(ctx context.Context) error {
	if w.dirtyBytes.Load() < w.maxDirty {
		return nil
	}
	return w.flush(ctx)
}

// writeSome writes from the beginning of p what goes in one step.
func (w *writer) writeSome(ctx context.Context, p []byte, off int64) (int64, error) {
	g := &w.d.geometry
	span := g.perSlice << g.clusterBits
	n := min(int64(len(p)), span-off%span) // within one slice
	first, last := off>>g.clusterBits, (off+n-1)>>g.clusterBits
	held := w.spans.lock(first, last, false)
	r, err := w.d.lookup(ctx, off, n)
	if err == nil && r.kind == normal && r.copied {
		err = w.writeInPlace(ctx, p[:r.n], r.host)
		w.spans.unlock(held)
		return r.n, err
	}
	w.spans.unlock(held)
	if err != nil {
		return 0, err
	}
	held = w.spans.lock(first, last, true)
	defer w.spans.unlock(held)
	return w.mapAndWrite(ctx, p[:n], off)
}

// writeInPlace writes to clusters that the disk has.
func (w *writer) writeInPlace(ctx context.Context, p []byte, host int64) error {
	bits := w.d.geometry.clusterBits
	first := host >> bits
	n := (host+int64(len(p))-1)>>bits - first + 1
	if have, other := w.meta.foreign(first, n, metaNone); other {
		return w.corruptedNow(ctx, "guest data at offset %d overlap %s", host, metaNames[have])
	}
	if end := host + int64(len(p)); end > w.d.child.Size() {
		w.mu.Lock()
		err := w.growFile(ctx, end)
		w.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return w.d.child.WriteAt(ctx, p, host, 0)
}

// part is a write into clusters of one slice that follow each other there and in the file.
type part struct {
	s     *slice
	at    int64 // index of the first entry
	n     int64 // clusters
	host  int64 // of the first cluster
	off   int64 // guest offset of p
	p     []byte
	fresh bool  // the host clusters are new
	from  int64 // the guest range that is written: it begins before p
	to    int64 // and ends behind it, where a cluster's rest is filled
	zeros bool  // the host clusters read as zeros
}

// mapAndWrite writes from the beginning of p into clusters that it allocates, or that are
// there and do not hold data yet. The caller holds the clusters' span.
func (w *writer) mapAndWrite(ctx context.Context, p []byte, off int64) (int64, error) {
	g := &w.d.geometry
	table, err := w.table(ctx, off/g.tableSpan())
	if err != nil {
		return 0, err
	}
	at := off >> g.clusterBits % g.perTable
	s, err := w.d.l2.pin(ctx, table+at/g.perSlice*g.perSlice*g.words*8)
	if err != nil {
		return 0, err
	}
	defer s.hold.Add(-1)
	x := part{s: s, at: at % g.perSlice, off: off, p: p}
	if err := w.place(ctx, &x); err != nil {
		return 0, err
	}
	err = w.writePart(ctx, &x)
	if err != nil {
		if x.fresh {
			w.unallocate(ctx, x.host>>g.clusterBits, x.n)
		}
		return 0, err
	}
	w.publish(&x)
	return int64(len(x.p)), nil
}

func (g *geometry) own(e entry) bool {
	return e.word&flagCompress == 0 && e.word&flagCopied != 0 && e.offset() != 0
}

// place decides where p, or the beginning of it, goes.
func (w *writer) place(ctx context.Context, x *part) error {
	g := &w.d.geometry
	base := x.off &^ (g.cluster - 1)
	want := (x.off+int64(len(x.p))-base-1)>>g.clusterBits + 1
	x.s.mu.RLock()
	e := g.entryAt(x.s.words, x.at)
	own := g.own(e)
	x.n = 1
	for !own && x.n < want && !g.own(g.entryAt(x.s.words, x.at+x.n)) {
		x.n++
	}
	x.s.mu.RUnlock()
	x.host = e.offset()
	if !own {
		first, n, err := w.allocate(ctx, x.n, false)
		if err != nil {
			return err
		}
		x.host, x.n, x.fresh = first<<g.clusterBits, n, true
		x.zeros = w.isVirgin(first, n)
	} else if x.host&(g.cluster-1) != 0 {
		return corrupt("an L2 entry points to offset %d, which is no cluster's", x.host)
	}
	x.p = x.p[:min(int64(len(x.p)), base+x.n<<g.clusterBits-x.off)]
	x.s.mu.RLock()
	defer x.s.mu.RUnlock()
	return w.bounds(x, base)
}

// bounds sets what has to be written around p, so that the units it touches are whole.
func (w *writer) bounds(x *part, base int64) error {
	g := &w.d.geometry
	end := x.off + int64(len(x.p))
	x.from, x.to = x.off, end
	first, last := g.entryAt(x.s.words, x.at), g.entryAt(x.s.words, x.at+x.n-1)
	lastBase := base + (x.n-1)<<g.clusterBits
	if x.fresh && g.holdsData(first) {
		x.from = base // it is copied: what is there is another's, or compressed
	} else if k, _, err := g.decode(first, (x.off-base)/g.sub); err != nil {
		return err
	} else if k != normal && !(x.zeros && w.readsZero(k, x.off)) {
		x.from = x.off &^ (g.sub - 1)
	}
	if x.fresh && g.holdsData(last) {
		x.to = lastBase + g.cluster
	} else if k, _, err := g.decode(last, (end-1-lastBase)/g.sub); err != nil {
		return err
	} else if k != normal && !(x.zeros && w.readsZero(k, end-1)) {
		x.to = (end + g.sub - 1) &^ (g.sub - 1)
	}
	return nil
}

// holdsData: the entry names data, which a new cluster in its place has to hold.
func (g *geometry) holdsData(e entry) bool {
	if e.word&flagCompress != 0 {
		return true
	}
	if g.words == 2 {
		return uint32(e.bitmap) != 0
	}
	return e.offset() != 0 && e.word&flagZero == 0
}

// readsZero reports whether what is mapped as k at off, not being data, is zeros.
func (w *writer) readsZero(k kind, off int64) bool {
	switch k {
	case zeroPlain, zeroAlloc:
		return true
	case unallocated:
		// The unit may reach into the backing file from behind its end.
		return w.d.backing == nil || off&^(w.d.geometry.cluster-1) >= w.d.backing.Size()
	}
	return false
}

const assembled = 256 << 10

// writePart writes p with what belongs around it.
func (w *writer) writePart(ctx context.Context, x *part) error {
	g := &w.d.geometry
	base := x.off &^ (g.cluster - 1)
	end := x.off + int64(len(x.p))
	if x.from == x.off && x.to == end {
		return w.writeInPlace(ctx, x.p, x.host+x.off-base)
	}
	if x.to-x.from <= max(assembled, 2*g.cluster) {
		buf := make([]byte, x.to-x.from)
		if err := w.readOld(ctx, buf[:x.off-x.from], x.from); err != nil {
			return err
		}
		copy(buf[x.off-x.from:], x.p)
		if err := w.readOld(ctx, buf[end-x.from:], end); err != nil {
			return err
		}
		return w.writeInPlace(ctx, buf, x.host+x.from-base)
	}
	head, tail := make([]byte, x.off-x.from), make([]byte, x.to-end)
	if err := w.readOld(ctx, head, x.from); err != nil {
		return err
	}
	if err := w.readOld(ctx, tail, end); err != nil {
		return err
	}
	if len(head) > 0 {
		if err := w.writeInPlace(ctx, head, x.host+x.from-base); err != nil {
			return err
		}
	}
	if err := w.writeInPlace(ctx, x.p, x.host+x.off-base); err != nil {
		return err
	}
	if len(tail) == 0 {
		return nil
	}
	return w.writeInPlace(ctx, tail, x.host+end-base)
}

// readOld reads what the disk holds; behind its end are zeros.
func (w *writer) readOld(ctx context.Context, p []byte, off int64) error {
	n := max(min(int64(len(p)), w.d.size.Load()-off), 0)
	clear(p[n:])
	if n == 0 {
		return nil
	}
	return w.d.readMapped(ctx, p[:n], off)
}

// publish maps the clusters that were written, and gives up what they replace.
func (w *writer) publish(x *part) {
	g := &w.d.geometry
	base := x.off &^ (g.cluster - 1)
	var old []entry
	w.change(x.s, x.at, x.n, func(i int64, e *entry) {
		if e.word&flagCompress != 0 {
			e.bitmap = 0 // it has no meaning there
		}
		if x.fresh && (e.offset() != 0 || e.word&flagCompress != 0) {
			old = append(old, *e)
		}
		at := (i - x.at) << g.clusterBits
		e.word = uint64(x.host+at) | flagCopied
		if g.words == 2 {
			from, to := max(x.from-base-at, 0)/g.sub, (min(x.to-base-at, g.cluster)+g.sub-1)/g.sub
			set := uint64(1)<<to - uint64(1)<<from
			e.bitmap = (e.bitmap | set) &^ (set << subclusters)
		}
	})
	w.freeEntries(old)
}

// freeEntries gives up the clusters that entries name.
func (w *writer) freeEntries(old []entry) {
	if len(old) == 0 {
		return
	}
	g := &w.d.geometry
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range old {
		if e.word&flagCompress != 0 {
			host, n := g.descriptor(e.word)
			first := host >> g.clusterBits
			w.free(first, (host+n-1)>>g.clusterBits-first+1)
			continue
		}
		if last := len(w.freed) - 1; last >= 0 && w.freed[last].first+w.freed[last].n == e.offset()>>g.clusterBits && e.word&flagCopied != 0 {
			w.freed[last].n++
			continue
		}
		w.free(e.offset()>>g.clusterBits, 1)
	}
}
