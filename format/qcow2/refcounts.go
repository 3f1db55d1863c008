package qcow2

import (
	"context"
	"encoding/binary"

	"github.com/vmdisk/vmdisk/disk"
)

// refcounts is the refcount table and the blocks of it that were needed, in memory. The
// allocator's lock guards it.
type refcounts struct {
	child    *disk.Disk
	cluster  int64
	order    uint
	perBlock int64
	table    []uint64
	tableAt  int64
	blocks   map[int64]*refBlock
	// changed are table entries not yet on disk; moved: the whole table has a new place.
	changed map[int64]bool
	moved   bool
}

type refBlock struct {
	data  []byte
	dirty bool
}

// refcountRoom bounds the memory for blocks that are not dirty.
const refcountRoom = 32 << 20

// block returns the block i, nil if there is none.
func (r *refcounts) block(ctx context.Context, i int64) (*refBlock, error) {
	if i >= int64(len(r.table)) || r.table[i] == 0 {
		return nil, nil //nolint:nilnil // no block, no error: all its refcounts are 0
	}
	if b := r.blocks[i]; b != nil {
		return b, nil
	}
	off := int64(r.table[i] &^ (1<<9 - 1))
	if off < 0 || off&(r.cluster-1) != 0 || off > r.child.Size()-r.cluster {
		return nil, corrupt("a refcount block at offset %d", uint64(off))
	}
	if int64(len(r.blocks))*r.cluster > refcountRoom {
		r.shrink()
	}
	b := &refBlock{data: make([]byte, r.cluster)}
	if err := r.child.ReadAt(ctx, b.data, off); err != nil {
		return nil, err
	}
	r.blocks[i] = b
	return b, nil
}

func (r *refcounts) shrink() {
	for i, b := range r.blocks {
		if !b.dirty {
			delete(r.blocks, i)
		}
	}
}

func (r *refcounts) get(ctx context.Context, cluster int64) (uint64, error) {
	b, err := r.block(ctx, cluster/r.perBlock)
	if b == nil {
		return 0, err
	}
	return b.get(cluster%r.perBlock, r.order), nil
}

func (r *refcounts) set(ctx context.Context, cluster int64, v uint64) error {
	b, err := r.block(ctx, cluster/r.perBlock)
	if err != nil {
		return err
	}
	if b == nil {
		return corrupt("cluster %d has no refcount block", cluster)
	}
	b.set(cluster%r.perBlock, r.order, v)
	b.dirty = true
	return nil
}

func (b *refBlock) get(i int64, order uint) uint64 {
	switch be := binary.BigEndian; order {
	case 3:
		return uint64(b.data[i])
	case 4:
		return uint64(be.Uint16(b.data[2*i:]))
	case 5:
		return uint64(be.Uint32(b.data[4*i:]))
	case 6:
		return be.Uint64(b.data[8*i:])
	}
	bit := uint(i << order)
	return uint64(b.data[bit/8]) >> (bit % 8) & (1<<(1<<order) - 1)
}

func (b *refBlock) set(i int64, order uint, v uint64) {
	switch be := binary.BigEndian; order {
	case 3:
		b.data[i] = byte(v)
	case 4:
		be.PutUint16(b.data[2*i:], uint16(v))
	case 5:
		be.PutUint32(b.data[4*i:], uint32(v))
	case 6:
		be.PutUint64(b.data[8*i:], v)
	default:
		bit := uint(i << order)
		mask := byte(1<<(1<<order)-1) << (bit % 8)
		b.data[bit/8] = b.data[bit/8]&^mask | byte(v)<<(bit%8)
	}
}
