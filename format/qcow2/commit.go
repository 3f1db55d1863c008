package qcow2

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
)

// flush makes all that was written before the call durable. One commit does for all
// callers who wait for it to begin.
func (w *writer) flush(ctx context.Context) error {
	mine := w.wanted.Add(1)
	w.committing.Lock()
	defer w.committing.Unlock()
	if w.done.Load() >= mine {
		return nil
	}
	covers := w.wanted.Load()
	// Half a commit would leave the next one without knowing what is on disk.
	if err := w.commit(context.WithoutCancel(ctx), false); err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.fail(err)
	}
	w.done.Store(covers)
	return nil
}

// chunk is a part of the file that a commit writes.
type chunk struct {
	off  int64
	p    []byte
	kind metaKind
}

// steps are what a commit writes, with a flush after each.
type steps struct {
	tables  []chunk // refcount blocks, new L2 tables, a refcount table in a new place
	refs    []chunk // refcount table entries
	header  bool    // the refcount table's place
	entries []chunk // L2 and L1 entries
	slices  []*slice
	freed   []hostRange
}

// commit brings everything to disk; see writer. With refs, refcounts that are lazy are written too.
func (w *writer) commit(ctx context.Context, refs bool) error {
	w.mu.Lock()
	fault := w.fault
	w.mu.Unlock()
	if fault != nil {
		return fault
	}
	s := w.collect(refs)
	epoch := w.epochs.now.Load() // who may use what was freed began in this one, or before
	err := w.writeSteps(ctx, s)
	if err != nil {
		return err // what is not on disk stays in the cache
	}
	for _, x := range s.slices {
		x.hold.Add(-1)
	}
	w.mu.Lock()
	if len(s.freed) > 0 {
		w.draining = append(w.draining, drain{epoch: epoch, ranges: s.freed})
	}
	w.mu.Unlock()
	return w.release(ctx, w.advance())
}

func (w *writer) writeSteps(ctx context.Context, s *steps) error {
	child := w.d.child
	if err := w.writeChunks(ctx, s.tables); err != nil {
		return err
	}
	if err := child.Flush(ctx); err != nil {
		return err
	}
	if len(s.refs) > 0 || s.header {
		if err := w.writeChunks(ctx, s.refs); err != nil {
			return err
		}
		if s.header {
			if err := w.putRefTable(ctx); err != nil {
				return err
			}
		}
		if err := child.Flush(ctx); err != nil {
			return err
		}
	}
	if len(s.entries) == 0 {
		return nil
	}
	return errors.Join(w.writeChunks(ctx, s.entries), child.Flush(ctx))
}

func (w *writer) putRefTable(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.header
	h.refTableOffset, h.refTableClusters = uint64(w.refs.tableAt), uint32(int64(len(w.refs.table))*8/w.refs.cluster)
	return w.putHeader(ctx, &h)
}

// writeChunks writes metadata in the order of the file, each where metadata of its kind
// are and nowhere else.
func (w *writer) writeChunks(ctx context.Context, chunks []chunk) error {
	slices.SortFunc(chunks, func(a, b chunk) int { return int(min(max(a.off-b.off, -1), 1)) })
	bits := w.d.geometry.clusterBits
	for _, c := range chunks {
		first := c.off >> bits
		if have, other := w.meta.foreign(first, (c.off+int64(len(c.p))-1)>>bits-first+1, c.kind); other {
			return w.corruptedNow(ctx, "%s at offset %d is %s", metaNames[c.kind], c.off, metaNames[have])
		}
		if err := w.d.child.WriteAt(ctx, c.p, c.off, 0); err != nil {
			return err
		}
	}
	return nil
}

// collect takes what is not on disk. Freed clusters come first and refcounts last: what
// was unmapped is then in the entries that are taken, and what these name is in the refcounts.
func (w *writer) collect(refs bool) *steps {
	s := new(steps)
	w.mu.Lock()
	s.freed, w.freed = w.freed, nil
	w.mu.Unlock()

	w.tables.Lock()
	fresh := w.fresh
	w.fresh = make(map[int64]bool)
	for n := range w.dirtyL1 {
		s.entries = append(s.entries, chunk{int64(w.header.l1Offset) + n*512, w.d.l1.sector(n), metaL1})
	}
	clear(w.dirtyL1)
	w.dirtyMu.Lock()
	for x := range w.dirty {
		s.slices = append(s.slices, x)
	}
	clear(w.dirty)
	w.dirtyMu.Unlock()
	w.tables.Unlock()

	for _, x := range s.slices {
		c := w.encode(x)
		if fresh[x.off&^(w.d.geometry.cluster-1)] {
			s.tables = append(s.tables, c)
		} else {
			s.entries = append(s.entries, c)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	// A refcount table in a new place lets go of the old place, and memory is bounded.
	if refs || !w.header.lazy() || w.refs.moved || int64(len(w.refs.blocks))*w.refs.cluster > refcountRoom {
		w.collectRefs(s)
	}
	return s
}

// encode takes a slice's words that are not on disk, in whole sectors. It stays held until
// they are there.
func (w *writer) encode(x *slice) chunk {
	x.mu.Lock()
	defer x.mu.Unlock()
	low, high := x.low&^63, min((x.high+63)&^63, int64(len(x.words)))
	p := make([]byte, 0, (high-low)*8)
	for _, word := range x.words[low:high] {
		p = binary.BigEndian.AppendUint64(p, word)
	}
	x.dirty = false
	w.dirtyBytes.Add(-int64(len(x.words)) * 8)
	return chunk{x.off + low*8, p, metaL2}
}

// collectRefs takes refcounts. The caller holds mu.
func (w *writer) collectRefs(s *steps) {
	r := &w.refs
	for i, b := range r.blocks {
		if b.dirty {
			s.tables = append(s.tables, chunk{int64(r.table[i]), slices.Clone(b.data), metaRefBlock})
			b.dirty = false
		}
	}
	if r.moved {
		s.tables = append(s.tables, chunk{r.tableAt, encodeWords(r.table), metaRefTable})
		s.header, r.moved = true, false
		clear(r.changed)
		return
	}
	sectors := make(map[int64]bool)
	for i := range r.changed {
		sectors[i/l1PerSector] = true
	}
	clear(r.changed)
	for n := range sectors {
		s.refs = append(s.refs, chunk{r.tableAt + n*512, encodeWords(r.table[n*l1PerSector : (n+1)*l1PerSector]), metaRefTable})
	}
}

func encodeWords(words []uint64) []byte {
	p := make([]byte, 0, len(words)*8)
	for _, x := range words {
		p = binary.BigEndian.AppendUint64(p, x)
	}
	return p
}

// close brings the image into the form that it has when nobody uses it.
func (w *writer) close(ctx context.Context) error {
	w.committing.Lock()
	defer w.committing.Unlock()
	// Clusters that the first commit unmaps are released by the second, and their refcounts
	// written by the third.
	for range 3 {
		if !w.pending() {
			break
		}
		if err := w.commit(ctx, true); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if h := w.header; h.incompatible&featDirty != 0 {
		h.incompatible &^= featDirty
		if err := w.putHeader(ctx, &h); err != nil {
			return err
		}
	}
	return w.shrinkFile(ctx)
}

// pending reports whether a commit has something to do.
func (w *writer) pending() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fault != nil || len(w.freed) > 0 || len(w.draining) > 0 || w.refs.moved || len(w.refs.changed) > 0 || w.dirtyBytes.Load() > 0 {
		return true
	}
	for _, b := range w.refs.blocks {
		if b.dirty {
			return true
		}
	}
	return false
}

// shrinkFile gives back what the file was grown by in advance. It is only tidy: where it
// cannot be done, the file is longer.
func (w *writer) shrinkFile(ctx context.Context) error {
	if !w.grown || w.fault != nil {
		return nil
	}
	c := w.d.geometry.cluster
	for end := (w.d.child.Size() + c - 1) / c; end > 0; end-- {
		n, err := w.refs.get(ctx, end-1)
		if err != nil {
			return err
		}
		if n != 0 {
			if end*c < w.d.child.Size() {
				_ = w.d.child.Resize(ctx, end*c)
			}
			return nil
		}
	}
	return nil
}

// resize makes the disk size bytes large. What a smaller one loses is gone before its size
// changes, so that it does not come back with the next growth.
func (w *writer) resize(ctx context.Context, size int64) error {
	d := w.d
	if old := d.size.Load(); size < old {
		if err := d.writeZeros(ctx, size, old-size); err != nil {
			return err
		}
	}
	old, err := w.growTables(context.WithoutCancel(ctx), size)
	if err != nil || size <= old {
		return err
	}
	// What the last cluster, or a longer backing file, has behind the old end must not appear.
	end := min((old+d.geometry.cluster-1)&^(d.geometry.cluster-1), size)
	if d.backing != nil {
		end = max(end, min(d.backing.Size(), size))
	}
	if end == old {
		return nil
	}
	return d.writeZeros(ctx, old, end-old)
}

// growTables is resize without what becomes visible by it. It returns the old size.
func (w *writer) growTables(ctx context.Context, size int64) (old int64, err error) {
	w.committing.Lock()
	defer w.committing.Unlock()
	d := w.d
	old = d.size.Load()
	switch {
	case size == old:
		return old, nil
	case d.geometry.l1Entries(size) > maxL1Bytes/8:
		return old, errTooLarge
	}
	if err := w.commit(ctx, false); err != nil {
		return old, err
	}
	if err := w.growL1(ctx, size); err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		return old, w.fail(err)
	}
	d.size.Store(size)
	d.gen.Add(1)
	return old, nil
}

// growL1 puts the L1 table elsewhere if it is too short, and the size into the header.
func (w *writer) growL1(ctx context.Context, size int64) error {
	d := w.d
	w.tables.Lock()
	defer w.tables.Unlock()
	h := d.header
	h.size = uint64(size)
	need, have := d.geometry.l1Entries(size), int64(h.l1Size)
	if need <= have {
		w.mu.Lock()
		defer w.mu.Unlock()
		if err := w.beginChange(ctx); err != nil {
			return err
		}
		h.incompatible, h.autoclear = d.header.incompatible, d.header.autoclear
		return w.putHeader(ctx, &h)
	}
	c := d.geometry.cluster
	clusters := (need*8 + c - 1) / c
	first, _, err := w.allocate(ctx, clusters, true)
	if err != nil {
		return err
	}
	w.meta.set(first, clusters, metaL1)
	table := make([]uint64, need)
	d.l1.mu.RLock()
	copy(table, d.l1.entries)
	d.l1.mu.RUnlock()
	if len(w.dirtyL1) > 0 {
		return errors.New("the L1 table changed meanwhile; resize a disk that nobody writes to")
	}
	p := encodeWords(table)
	p = append(p, make([]byte, clusters*c-int64(len(p)))...)
	if err := w.writeChunks(ctx, []chunk{{first * c, p, metaL1}}); err != nil {
		return err
	}
	if err := w.commitRefs(ctx); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	h.refTableOffset, h.refTableClusters = d.header.refTableOffset, d.header.refTableClusters
	h.incompatible, h.autoclear = d.header.incompatible, d.header.autoclear
	oldAt, oldClusters := int64(h.l1Offset)/c, (have*8+c-1)/c
	h.l1Offset, h.l1Size = uint64(first*c), uint32(need)
	if err := w.putHeader(ctx, &h); err != nil {
		return err
	}
	d.l1.mu.Lock()
	d.l1.entries = table
	d.l1.mu.Unlock()
	w.free(oldAt, oldClusters)
	return nil
}

// commitRefs brings refcounts to disk before what they are for.
func (w *writer) commitRefs(ctx context.Context) error {
	s := new(steps)
	w.mu.Lock()
	w.collectRefs(s)
	w.mu.Unlock()
	return w.writeSteps(ctx, s)
}
