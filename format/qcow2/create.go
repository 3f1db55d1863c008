package qcow2

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/vmdisk/vmdisk/disk"
)

// CreateOptions say what Create makes. The zero value of each is QEMU's default.
type CreateOptions struct {
	Size int64
	// Version is 2 or 3; 0 is 3.
	Version int
	// ClusterSize is a power of two from 512 to 2 MiB; 0 is 64 KiB.
	ClusterSize int64
	// RefcountBits is a power of two from 1 to 64; 0 is 16.
	RefcountBits int
	ExtendedL2   bool
	// LazyRefcounts: refcounts are written when the image is closed, and have to be repaired
	// if it never is.
	LazyRefcounts bool
	// Zstd makes compressed clusters zstd's, not zlib's.
	Zstd bool
	// Preallocation is "off", "metadata" (mapped, the file sparse), "falloc" (space
	// reserved) or "full" (zeros written); "" is off.
	Preallocation string
	// Backing is the name of the backing file as it goes into the image, and BackingFormat
	// its format, without which the image would not open again.
	Backing, BackingFormat string
}

// Create makes an image in child, which it does not close. What child held is lost.
func Create(ctx context.Context, child *disk.Disk, o CreateOptions) error {
	h, err := o.header()
	if err != nil {
		return fmt.Errorf("create %s: %w", child.Name(), err)
	}
	if err := o.write(ctx, child, h); err != nil {
		return fmt.Errorf("create %s: %w", child.Name(), err)
	}
	return nil
}

func (o *CreateOptions) complete() {
	if o.Version == 0 {
		o.Version = 3
	}
	if o.ClusterSize == 0 {
		o.ClusterSize = 64 << 10
	}
	if o.RefcountBits == 0 {
		o.RefcountBits = 16
	}
}

// header checks the options and makes the header of an empty image.
func (o *CreateOptions) header() (*header, error) {
	o.complete()
	order := uint32(bits.TrailingZeros(uint(o.RefcountBits)))
	clusterBits := uint32(bits.TrailingZeros64(uint64(o.ClusterSize)))
	switch {
	case o.ClusterSize != 1<<clusterBits || clusterBits < minClusterBits || clusterBits > maxClusterBits:
		return nil, fmt.Errorf("a cluster size of %d bytes; it is a power of two from 512 to 2 MiB", o.ClusterSize)
	case o.RefcountBits < 1 || o.RefcountBits != 1<<order || order > maxRefcountOrder:
		return nil, fmt.Errorf("refcounts of %d bits; they have 1, 2, 4, 8, 16, 32 or 64", o.RefcountBits)
	case o.Version != 2 && o.Version != 3:
		return nil, fmt.Errorf("version %d of the format; it is 2 or 3", o.Version)
	case o.Version == 2 && (order != 4 || o.ExtendedL2 || o.LazyRefcounts || o.Zstd):
		return nil, errors.New("version 2 of the format has refcounts of 16 bits, and neither extended L2 entries, lazy refcounts nor zstd")
	case o.ExtendedL2 && clusterBits < minExtendedBits:
		return nil, fmt.Errorf("extended L2 entries need clusters of 16 KiB, not of %d bytes", o.ClusterSize)
	case o.Size < 0:
		return nil, fmt.Errorf("a size of %d bytes", o.Size)
	case len(o.Backing) > maxNameBytes || len(o.BackingFormat) > maxNameBytes:
		return nil, fmt.Errorf("a backing file's name of %d bytes; it has %d at the most", len(o.Backing), maxNameBytes)
	case (o.Backing == "") != (o.BackingFormat == ""):
		return nil, errors.New("a backing file goes with its format, which is never guessed")
	case o.Backing != "" && o.Preallocation != "" && o.Preallocation != "off":
		return nil, errors.New("preallocation would hide the backing file")
	}
	h := &header{version: uint32(o.Version), clusterBits: clusterBits, cluster: o.ClusterSize, refcountOrder: order,
		length: headerV2, l1Size: 1}
	if o.Version == 3 {
		h.length = headerV3 + 8
	}
	if o.ExtendedL2 {
		h.incompatible |= featExtendedL2
	}
	if o.LazyRefcounts {
		h.compatible |= featLazyRefcounts
	}
	if o.Zstd {
		h.incompatible |= featCompression
		h.compression = compressZstd
	}
	if g := h.geometry(); g.l1Entries(o.Size) > maxL1Bytes/8 {
		return nil, fmt.Errorf("%d bytes with clusters of %d: %w", o.Size, o.ClusterSize, errTooLarge)
	}
	return h, nil
}

// The clusters of a new image.
const (
	newRefTable = 1 + iota
	newRefBlock
	newL1
)

func (o *CreateOptions) write(ctx context.Context, child *disk.Disk, h *header) error {
	c := h.cluster
	g := h.geometry()
	// An L1 table that one refcount block cannot describe comes by growing.
	l1 := (g.l1Entries(o.Size)*8 + c - 1) / c
	first := int64(0)
	if newL1+l1 <= c*8>>h.refcountOrder {
		first = o.Size
	}
	l1 = max((g.l1Entries(first)*8+c-1)/c, 1)
	h.size, h.l1Size = uint64(first), uint32(max(g.l1Entries(first), 1))
	h.refTableOffset, h.refTableClusters, h.l1Offset = uint64(newRefTable*c), 1, uint64(newL1*c)
	head, err := o.encode(h)
	if err != nil {
		return err
	}
	used := newL1 + l1
	if err := child.Grow(ctx, used*c); err != nil {
		return err
	}
	if child.Size() < used*c {
		return fmt.Errorf("an empty image has %d bytes, and there are %d", used*c, child.Size())
	}
	block := &refBlock{data: make([]byte, c)}
	for i := range used {
		block.set(i, uint(h.refcountOrder), 1)
	}
	table := binary.BigEndian.AppendUint64(nil, uint64(newRefBlock*c))
	err = errors.Join(child.Zero(ctx, 0, used*c, disk.MayTrim), child.WriteAt(ctx, table, newRefTable*c, 0),
		child.WriteAt(ctx, block.data, newRefBlock*c, 0), child.Flush(ctx))
	if err == nil { // the header last: what has one is whole
		err = errors.Join(child.WriteAt(ctx, head, 0, 0), child.Flush(ctx))
	}
	if err == nil && (first != o.Size || o.Preallocation != "" && o.Preallocation != "off") {
		err = o.fill(ctx, child)
	}
	return err
}

// encode makes the header with its extensions and the backing file's name.
func (o *CreateOptions) encode(h *header) ([]byte, error) {
	var ext []byte
	add := func(kind uint32, data []byte) {
		ext = binary.BigEndian.AppendUint32(ext, kind)
		ext = binary.BigEndian.AppendUint32(ext, uint32(len(data)))
		ext = append(ext, data...)
		ext = append(ext, make([]byte, -len(data)&7)...)
	}
	if o.BackingFormat != "" {
		add(extBackingFormat, []byte(o.BackingFormat))
	}
	add(extEnd, nil)
	if o.Backing != "" {
		h.backing, h.backingOffset, h.backingSize = o.Backing, uint64(int(h.length)+len(ext)), uint32(len(o.Backing))
	}
	p := h.fixed()
	if h.version >= 3 {
		p = append(p, h.compression)
	}
	p = append(p, make([]byte, int(h.length)-len(p))...)
	p = append(append(p, ext...), o.Backing...)
	if int64(len(p)) > h.cluster {
		return nil, fmt.Errorf("the header has %d bytes with the backing file's name, and a cluster %d", len(p), h.cluster)
	}
	return p, nil
}

// keep is child without its Close.
type keep struct{ *disk.Disk }

func (keep) Close() error { return nil }

// Resize implements disk.Resizer.
func (k keep) Resize(ctx context.Context, size int64) error { return k.Disk.Resize(ctx, size) }

// Grow implements disk.Grower.
func (k keep) Grow(ctx context.Context, size int64) error { return k.Disk.Grow(ctx, size) }

// fill opens the new image and brings it to its size and its preallocation.
func (o *CreateOptions) fill(ctx context.Context, child *disk.Disk) error {
	noBacking := func(context.Context, string, string) (*disk.Disk, error) { return nil, nil } //nolint:nilnil // no disk: nothing is read from it
	d, err := open(ctx, disk.New(keep{child}, child.Name()), Options{Backing: noBacking})
	if err != nil {
		return err
	}
	err = d.w.resize(ctx, o.Size)
	if err == nil && o.Preallocation != "" && o.Preallocation != "off" {
		err = d.w.preallocate(ctx, o.Preallocation)
	}
	return errors.Join(err, d.Close())
}

// preallocate maps the whole disk. The clusters are new, so they read as zeros where
// nothing is written.
func (w *writer) preallocate(ctx context.Context, mode string) error {
	if mode != "metadata" && mode != "falloc" && mode != "full" {
		return fmt.Errorf("preallocation %q is none of off, metadata, falloc and full", mode)
	}
	for off, size := int64(0), w.d.size.Load(); off < size; {
		if err := w.makeRoom(ctx); err != nil {
			return err
		}
		n, err := w.preallocateSome(ctx, off, size-off, mode)
		if err != nil {
			return err
		}
		off += n
	}
	return nil
}

func (w *writer) preallocateSome(ctx context.Context, off, n int64, mode string) (int64, error) {
	g := &w.d.geometry
	span := g.perSlice << g.clusterBits
	n = min(n, span-off%span)
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
	first, count, err := w.allocate(ctx, (n+g.cluster-1)>>g.clusterBits, false)
	if err != nil {
		return 0, err
	}
	if err := w.fillNew(ctx, first<<g.clusterBits, count<<g.clusterBits, mode, w.isVirgin(first, count)); err != nil {
		return 0, err
	}
	at %= g.perSlice
	w.change(s, at, count, func(i int64, e *entry) {
		*e = entry{word: uint64((first+i-at)<<g.clusterBits) | flagCopied, bitmap: allSubs}
	})
	return min(count<<g.clusterBits, n), nil
}

func (w *writer) fillNew(ctx context.Context, off, n int64, mode string, virgin bool) error {
	switch {
	case mode == "full":
		for end := off + n; off < end; off += int64(len(zeros)) {
			if err := w.d.child.WriteAt(ctx, zeros[:min(int64(len(zeros)), end-off)], off, 0); err != nil {
				return err
			}
		}
		return nil
	case mode == "falloc":
		return w.d.child.Zero(ctx, off, n, 0)
	case virgin:
		return nil
	}
	return w.d.child.Zero(ctx, off, n, disk.MayTrim)
}
