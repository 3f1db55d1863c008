package qcow2

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/vmdisk/vmdisk/disk"
)

// writer is what an image has that is open for writing.
//
// Nothing on disk names what is not on disk itself. L2 entries change in memory; a commit
// brings them out in steps with a flush after each: first refcounts, new L2 tables and the
// data that were written meanwhile, then the refcount table if it has new blocks, then L2
// entries and the L1 entries of new tables. What an entry no longer names keeps its refcount
// until the entry is on disk. So a crash at any point leaves an image whose refcounts are
// right or too high, and each entry names what it named before or what it names now.
type writer struct {
	d     *driver
	meta  metaMap
	spans spans
	epochs

	// committing is held by a commit; wanted and done let one commit do for all who wait.
	committing   sync.Mutex
	wanted, done atomic.Uint64

	// mu guards what follows: the allocator.
	mu       sync.Mutex
	header   header // as it is on disk
	refs     refcounts
	hint     int64 // the first cluster that may be free
	virgin   int64 // no cluster from here on was ever used
	grown    bool
	begun    bool // something was changed
	wrote    atomic.Bool
	empty    bool // nothing was mapped when it was opened
	freed    []hostRange
	draining []drain
	fault    error // the image is corrupt, or could not be written: no more changes

	// tables is held while an L2 table comes into being; it guards what follows.
	tables  sync.Mutex
	fresh   map[int64]bool // tables that are not on disk, by offset
	dirtyL1 map[int64]bool // L1 sectors, by number

	dirtyMu    sync.Mutex
	dirty      map[*slice]struct{}
	dirtyBytes atomic.Int64
	maxDirty   int64
}

// drain are clusters that were unmapped, on disk too, in an epoch.
type drain struct {
	epoch  uint64
	ranges []hostRange
}

func newWriter(ctx context.Context, d *driver) (*writer, error) {
	h := &d.header
	if err := h.writable(); err != nil {
		return nil, err
	}
	w := &writer{d: d, header: *h, hint: 1, fresh: make(map[int64]bool), dirtyL1: make(map[int64]bool), dirty: make(map[*slice]struct{})}
	w.spans.init()
	w.epochs.now.Store(1)
	w.maxDirty = max(d.opts.L2Cache/4, 16*d.geometry.cluster)
	w.virgin = (d.child.Size() + h.cluster - 1) / h.cluster
	table, err := readWords(ctx, d.child, int64(h.refTableOffset), int64(h.refTableClusters)*h.cluster/8)
	if err != nil {
		return nil, fmt.Errorf("the refcount table: %w", err)
	}
	w.refs = refcounts{child: d.child, cluster: h.cluster, order: uint(h.refcountOrder), perBlock: h.cluster * 8 >> h.refcountOrder,
		table: table, tableAt: int64(h.refTableOffset), blocks: make(map[int64]*refBlock), changed: make(map[int64]bool)}
	if err := w.loadMeta(ctx); err != nil {
		return nil, err
	}
	w.empty = h.backing == "" && !slices.ContainsFunc(d.l1.entries, func(e uint64) bool { return e != 0 })
	return w, nil
}

// writable refuses what is only read, and what must not be written to.
func (h *header) writable() error {
	switch {
	case h.incompatible&featCorrupt != 0:
		return corrupt("it is marked so: it can be read, and `qemu-img check -r all` may repair it")
	case h.incompatible&featDirty != 0:
		return fmt.Errorf("it was not closed after the last write, and its refcounts may be wrong: it can be read, and `qemu-img check -r all` repairs it: %w", errUnsupported)
	case h.dataFile():
		return fmt.Errorf("images with an external data file are only read: %w", errUnsupported)
	case h.autoclear&clearBitmaps != 0:
		return fmt.Errorf("it has persistent bitmaps, which would miss what is written: images with bitmaps are only read: %w", errUnsupported)
	}
	return nil
}

// beginChange makes the image one that may be changed, with the first change. The caller holds mu.
func (w *writer) beginChange(ctx context.Context) error {
	if w.fault != nil {
		return w.fault
	}
	if w.begun {
		return nil
	}
	h := w.header
	h.autoclear &= clearBitmaps | clearRawData
	if h.lazy() {
		h.incompatible |= featDirty
	}
	if h.autoclear != w.header.autoclear || h.incompatible != w.header.incompatible {
		if err := w.putHeader(ctx, &h); err != nil {
			return w.fail(err)
		}
	}
	w.begun = true
	return nil
}

func (h *header) lazy() bool { return h.version >= 3 && h.compatible&featLazyRefcounts != 0 }

// putHeader writes the header's fixed part, all of it in one sector, and flushes.
func (w *writer) putHeader(ctx context.Context, h *header) error {
	if err := w.d.child.WriteAt(ctx, h.fixed(), 0, 0); err != nil {
		return err
	}
	if err := w.d.child.Flush(ctx); err != nil {
		return err
	}
	w.header = *h
	return nil
}

// fail ends all changes: what is in memory is ahead of what is on disk. The caller holds mu.
func (w *writer) fail(err error) error {
	if w.fault == nil {
		w.fault = fmt.Errorf("the image takes no more changes until it is opened again: %w", err)
	}
	return err
}

// corrupted marks the image as corrupt and ends all changes. The caller holds mu.
func (w *writer) corrupted(ctx context.Context, format string, a ...any) error {
	err := corrupt(format, a...)
	if w.fault != nil {
		return err
	}
	w.fault = fmt.Errorf("the image takes no more changes: %w", err)
	if h := w.header; h.version >= 3 {
		h.incompatible |= featCorrupt
		if err2 := w.putHeader(ctx, &h); err2 != nil {
			return errors.Join(err, err2)
		}
	}
	return err
}

// corruptedNow is corrupted for who does not hold mu.
func (w *writer) corruptedNow(ctx context.Context, format string, a ...any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.corrupted(ctx, format, a...)
}

// change brings the entries [first, first+n) of a pinned slice up to date by f, which is
// told the index.
func (w *writer) change(s *slice, first, n int64, f func(i int64, e *entry)) {
	g := &w.d.geometry
	s.mu.Lock()
	for i := first; i < first+n; i++ {
		e := g.entryAt(s.words, i)
		f(i, &e)
		s.words[i*g.words] = e.word
		if g.words == 2 {
			s.words[2*i+1] = e.bitmap
		}
	}
	w.soil(s, first*g.words, (first+n)*g.words)
	s.mu.Unlock()
}

// soil takes note that words of a pinned slice are not on disk. The caller holds s.mu.
func (w *writer) soil(s *slice, low, high int64) {
	if s.dirty {
		s.low, s.high = min(s.low, low), max(s.high, high)
		return
	}
	s.dirty, s.low, s.high = true, low, high
	s.hold.Add(1)
	w.dirtyMu.Lock()
	w.dirty[s] = struct{}{}
	w.dirtyMu.Unlock()
	w.dirtyBytes.Add(int64(len(s.words)) * 8)
}

// table returns the offset of the L2 table i, which is there afterwards and is the active
// disk's alone.
func (w *writer) table(ctx context.Context, i int64) (int64, error) {
	l1 := &w.d.l1
	if e := l1.get(i); e&flagCopied != 0 && e&offsetMask != 0 {
		return l1.checked(e)
	}
	w.tables.Lock()
	defer w.tables.Unlock()
	old := l1.get(i)
	if old&flagCopied != 0 && old&offsetMask != 0 {
		return l1.checked(old)
	}
	from, err := l1.checked(old)
	if err != nil {
		return 0, err
	}
	first, _, err := w.allocate(ctx, 1, true)
	if err != nil {
		return 0, err
	}
	off := first * l1.cluster
	if err := w.fillTable(ctx, off, from); err != nil {
		return 0, err
	}
	w.fresh[off] = true
	l1.set(i, uint64(off)|flagCopied)
	w.dirtyL1[i/l1PerSector] = true
	if from != 0 {
		w.mu.Lock()
		w.free(from/l1.cluster, 1)
		w.mu.Unlock()
	}
	return off, nil
}

const l1PerSector = 512 / 8

// fillTable puts a new L2 table into the cache: a copy of the one at from, or an empty one.
func (w *writer) fillTable(ctx context.Context, off, from int64) error {
	g := &w.d.geometry
	step := g.perSlice * g.words
	w.meta.set(off/g.cluster, 1, metaL2)
	for at := int64(0); at < g.cluster; at += step * 8 {
		words := make([]uint64, step)
		if from != 0 {
			s, err := w.d.l2.get(ctx, from+at)
			if err != nil {
				return err
			}
			s.mu.RLock()
			copy(words, s.words)
			s.mu.RUnlock()
		}
		s := w.d.l2.put(off+at, words)
		s.mu.Lock()
		w.soil(s, 0, step)
		s.mu.Unlock()
		s.hold.Add(-1)
	}
	return nil
}

var errTooLarge = errors.New("the L1 table would exceed its limit of 32 MiB; larger clusters hold more")

// info edits what a reader says of itself.
func (w *writer) info(in *disk.Info) {
	in.ReadOnly = false
	in.Volatile = true
	in.Zero, in.Trim, in.FUA = disk.Native, disk.Native, disk.Emulated
	if w.d.geometry.version >= 3 {
		in.FastZero = disk.Native
	}
	in.KnownZero = w.empty && !w.wrote.Load()
	in.TrimAlign = max(w.d.geometry.sub, in.Min)
}
