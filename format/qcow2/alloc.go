package qcow2

import (
	"context"
	"fmt"
	"syscall"
)

// allocate takes up to want clusters of the file that follow each other, all of them if
// whole, and returns the first and how many.
func (w *writer) allocate(ctx context.Context, want int64, whole bool) (first, n int64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.beginChange(ctx); err != nil {
		return 0, 0, err
	}
	if whole && want >= w.refs.perBlock {
		first, err := w.reserve(ctx, want)
		return first, want, err
	}
	c := w.hint
	for n < want {
		free, err := w.isFree(ctx, c)
		if err != nil {
			return 0, 0, err
		}
		switch {
		case free && n == 0:
			first, n = c, 1
		case free:
			n++
		case n > 0 && !whole:
			want = n
			continue
		default:
			n = 0
		}
		c++
	}
	if have, other := w.meta.foreign(first, n, metaNone); other {
		return 0, 0, w.corrupted(ctx, "a free cluster is %s", metaNames[have])
	}
	if err := w.growFile(ctx, (first+n)*w.d.geometry.cluster); err != nil {
		return 0, 0, err
	}
	for i := first; i < first+n; i++ {
		if err := w.refs.set(ctx, i, 1); err != nil {
			return 0, 0, err
		}
	}
	if !whole || first == w.hint {
		w.hint = first + n
	}
	return first, n, nil
}

// isFree reports whether nothing uses the cluster; it has a refcount block afterwards.
func (w *writer) isFree(ctx context.Context, cluster int64) (bool, error) {
	if cluster >= maxHost>>w.d.geometry.clusterBits {
		return false, fmt.Errorf("the image is full: %w", syscall.EFBIG)
	}
	if err := w.ensureBlock(ctx, cluster/w.refs.perBlock); err != nil {
		return false, err
	}
	n, err := w.refs.get(ctx, cluster)
	return n == 0 && err == nil, err
}

const maxHost = 1 << 55

// ensureBlock makes the refcount block i if there is none. It describes itself: it is the
// first of the clusters whose refcounts it holds, none of which is used.
func (w *writer) ensureBlock(ctx context.Context, i int64) error {
	r := &w.refs
	if i < int64(len(r.table)) && r.table[i] != 0 {
		return nil
	}
	if i >= int64(len(r.table)) {
		return w.moveTable(ctx, i)
	}
	_, err := w.settle(ctx, i, 0)
	return err
}

// moveTable replaces the full refcount table by one twice as long, which has an entry i
// too, behind all that it describes.
func (w *writer) moveTable(ctx context.Context, i int64) error {
	r := &w.refs
	start := int64(len(r.table))
	entries := max(2*start, i+2)
	// The table needs room for the blocks that describe it.
	clusters := ((entries+entries/r.perBlock+2)*8 + r.cluster - 1) / r.cluster
	if clusters*r.cluster > maxRefTableBytes {
		return fmt.Errorf("the refcount table is full at %d bytes: %w", maxRefTableBytes, syscall.EFBIG)
	}
	w.free(r.tableAt/r.cluster, start*8/r.cluster)
	table := make([]uint64, clusters*r.cluster/8)
	copy(table, r.table)
	r.table, r.moved = table, true
	first, err := w.settle(ctx, start, clusters)
	if err != nil {
		return w.fail(err)
	}
	r.tableAt = first * r.cluster
	w.meta.set(first, clusters, metaRefTable)
	return nil
}

// reserve takes n clusters that follow each other, behind all that have refcounts: more
// than one refcount block describes them.
func (w *writer) reserve(ctx context.Context, n int64) (first int64, err error) {
	r := &w.refs
	for {
		i := int64(len(r.table))
		for i > 0 && r.table[i-1] == 0 {
			i--
		}
		if last := i + (n+r.perBlock-1)/r.perBlock + n/r.perBlock/r.perBlock + 2; last >= int64(len(r.table)) {
			if err := w.moveTable(ctx, last); err != nil {
				return 0, err
			}
			continue
		}
		return w.settle(ctx, i, n)
	}
}

// settle takes n clusters that follow each other from where the refcount block i begins,
// behind the new blocks that describe them and themselves.
func (w *writer) settle(ctx context.Context, i, n int64) (first int64, err error) {
	r := &w.refs
	blocks := int64(1)
	for blocks*r.perBlock < blocks+n {
		blocks++
	}
	start := i * r.perBlock
	if have, other := w.meta.foreign(start, blocks+n, metaNone); other {
		return 0, w.corrupted(ctx, "a new refcount block meets %s", metaNames[have])
	}
	if err := w.growFile(ctx, (start+blocks+n)*r.cluster); err != nil {
		return 0, err
	}
	for b := range blocks {
		r.table[i+b] = uint64((start + b) * r.cluster)
		r.blocks[i+b] = &refBlock{data: make([]byte, r.cluster), dirty: true}
		r.changed[i+b] = true
	}
	w.meta.set(start, blocks, metaRefBlock)
	for c := range blocks + n {
		if err := r.set(ctx, start+c, 1); err != nil {
			return 0, err
		}
	}
	return start + blocks, nil
}

const growStep = 4 << 20

// growFile makes the file at least size bytes long, and some more, so that it does not
// grow with each cluster.
func (w *writer) growFile(ctx context.Context, size int64) error {
	child := w.d.child
	if size <= child.Size() {
		return nil
	}
	if err := child.Grow(ctx, (size+growStep-1)/growStep*growStep); err != nil {
		return err
	}
	w.grown = true
	if have := child.Size(); have < size {
		return fmt.Errorf("the image needs %d bytes, and what it lies in has %d and does not grow: %w", size, have, syscall.ENOSPC)
	}
	return nil
}

// hostRange are clusters of the file.
type hostRange struct{ first, n int64 }

// free gives up one use of clusters. Until what no longer names them is on disk, and
// those who read them have ended, they stay as they are. The caller holds mu.
func (w *writer) free(first, n int64) {
	if n > 0 {
		w.freed = append(w.freed, hostRange{first, n})
	}
}

// unallocate takes back what allocate gave, of which nobody has heard.
func (w *writer) unallocate(ctx context.Context, first, n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := first; i < first+n; i++ {
		if w.refs.set(ctx, i, 0) != nil {
			return // a leak
		}
	}
	w.hint = min(w.hint, first)
}

// isVirgin reports whether clusters were never used, so that they read as zeros, and
// takes note that they now are. The caller has just allocated them.
func (w *writer) isVirgin(first, n int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	virgin := first >= w.virgin
	w.virgin = max(w.virgin, first+n)
	return virgin
}

// release ends the use of clusters that were freed in epochs before oldest.
func (w *writer) release(ctx context.Context, oldest uint64) error {
	w.mu.Lock()
	var done []hostRange
	kept := w.draining[:0]
	for _, x := range w.draining {
		if x.epoch < oldest {
			done = append(done, x.ranges...)
		} else {
			kept = append(kept, x)
		}
	}
	w.draining = kept
	w.mu.Unlock()
	c := w.d.geometry.cluster
	for _, x := range done {
		unused, err := w.dropRefs(ctx, x, false)
		if err != nil {
			return err
		}
		// Advice, and only for what nothing else names; a failure costs space alone.
		if unused {
			_ = w.d.child.Trim(ctx, x.first*c, min(x.n*c, max(w.d.child.Size()-x.first*c, 0)), 0)
		}
		if _, err := w.dropRefs(ctx, x, true); err != nil {
			return err
		}
	}
	return nil
}

// dropRefs lowers the refcounts of a range if apply, and reports whether all are then 0.
func (w *writer) dropRefs(ctx context.Context, x hostRange, apply bool) (unused bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	unused = true
	for i := x.first; i < x.first+x.n; i++ {
		n, err := w.refs.get(ctx, i)
		if err != nil {
			return false, err
		}
		if n == 0 {
			return false, w.corrupted(ctx, "cluster %d is in use, and its refcount is 0", i)
		}
		unused = unused && n == 1
		if !apply {
			continue
		}
		if err := w.refs.set(ctx, i, n-1); err != nil {
			return false, err
		}
		if n == 1 {
			w.meta.set(i, 1, metaNone)
			w.hint = min(w.hint, i)
			w.virgin = max(w.virgin, i+1)
		}
	}
	return unused, nil
}
