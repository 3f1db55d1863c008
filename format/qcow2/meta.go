package qcow2

import (
	"context"
	"encoding/binary"
	"sync"
)

// metaKind is what a cluster of the file is used for, if it is not the guest's.
type metaKind uint8

const (
	metaNone metaKind = iota
	metaHeader
	metaL1
	metaL2
	metaRefTable
	metaRefBlock
	metaSnapshots
	metaSnapshotL1
)

var metaNames = [...]string{"guest data", "the header", "the L1 table", "an L2 table", "the refcount table", "a refcount block", "the snapshot table", "a snapshot's L1 table"}

const metaPage = 4096

// metaMap knows the clusters that hold metadata, so that nothing overwrites them whatever
// the image says.
type metaMap struct {
	mu    sync.RWMutex
	pages map[int64]*[metaPage]metaKind
}

func (m *metaMap) at(cluster int64) metaKind {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if p := m.pages[cluster/metaPage]; p != nil {
		return p[cluster%metaPage]
	}
	return metaNone
}

// foreign returns the first of n clusters that is not of kind k.
func (m *metaMap) foreign(cluster, n int64, k metaKind) (metaKind, bool) {
	for i := range n {
		if have := m.at(cluster + i); have != k {
			return have, true
		}
	}
	return k, false
}

func (m *metaMap) set(cluster, n int64, k metaKind) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := cluster; i < cluster+n; i++ {
		p := m.pages[i/metaPage]
		if p == nil {
			if k == metaNone {
				continue
			}
			p = new([metaPage]metaKind)
			m.pages[i/metaPage] = p
		}
		p[i%metaPage] = k
	}
}

// claim is set for clusters that must be nothing else yet.
func (m *metaMap) claim(off, bytes, cluster int64, k metaKind) error {
	first, n := off/cluster, (bytes+cluster-1)/cluster
	if have, other := m.foreign(first, n, metaNone); other {
		return corrupt("%s at offset %d overlaps %s", metaNames[k], off, metaNames[have])
	}
	m.set(first, n, k)
	return nil
}

// loadMeta finds all metadata of the image; what overlaps is corrupt.
func (w *writer) loadMeta(ctx context.Context) error {
	d, c := w.d, w.d.geometry.cluster
	w.meta.pages = make(map[int64]*[metaPage]metaKind)
	size := d.child.Size()
	claim := func(off, n int64, k metaKind) error {
		if off < 0 || off&(c-1) != 0 || off > size-n {
			return corrupt("%s at offset %d is not inside the file", metaNames[k], off)
		}
		return w.meta.claim(off, n, c, k)
	}
	w.meta.set(0, 1, metaHeader)
	if n := int64(len(d.l1.entries)) * 8; n > 0 {
		if err := claim(int64(d.header.l1Offset), n, metaL1); err != nil {
			return err
		}
	}
	if err := claim(w.refs.tableAt, int64(len(w.refs.table))*8, metaRefTable); err != nil {
		return err
	}
	for _, e := range w.refs.table {
		if e != 0 {
			if err := claim(int64(e&^(1<<9-1)), c, metaRefBlock); err != nil {
				return err
			}
		}
	}
	for _, e := range d.l1.entries {
		if off := int64(e & offsetMask); off != 0 {
			if err := claim(off, c, metaL2); err != nil {
				return err
			}
		}
	}
	return w.loadSnapshotMeta(ctx, claim)
}

const (
	snapshotEntry   = 40
	maxSnapshotData = 16 << 20 // of the whole table
)

func (w *writer) loadSnapshotMeta(ctx context.Context, claim func(off, n int64, k metaKind) error) error {
	h := &w.d.header
	off := int64(h.snapshotsOffset)
	end := off // of the last entry, without the padding, which the file need not have
	for range h.snapshots {
		var p [snapshotEntry]byte
		if err := w.d.child.ReadAt(ctx, p[:], off); err != nil {
			return err
		}
		be := binary.BigEndian
		l1, n := int64(be.Uint64(p[:])), int64(be.Uint32(p[8:]))*8
		if n > maxL1Bytes {
			return corrupt("a snapshot's L1 table has %d bytes", n)
		}
		if n > 0 {
			if err := claim(l1, n, metaSnapshotL1); err != nil {
				return err
			}
		}
		length := snapshotEntry + int64(be.Uint16(p[12:])) + int64(be.Uint16(p[14:])) + int64(be.Uint32(p[36:]))
		end = off + length
		if off += (length + 7) &^ 7; off-int64(h.snapshotsOffset) > maxSnapshotData {
			return corrupt("the snapshot table has more than %d bytes", maxSnapshotData)
		}
	}
	if h.snapshots > 0 {
		return claim(int64(h.snapshotsOffset), end-int64(h.snapshotsOffset), metaSnapshots)
	}
	return nil
}
