package mem

import (
	"context"
	"errors"
	"fmt"
	"math/bits"

	"github.com/vmdisk/vmdisk/disk"
)

const hole = disk.ExtentZero | disk.ExtentHole

// Extents implements disk.Driver. It costs one step per allocated chunk, plus
// one per absent table (512 MiB) or middle node (4 TiB).
func (d *Driver) Extents(_ context.Context, m disk.MapName, off, n int64, dst []disk.Extent) ([]disk.Extent, error) {
	if m != disk.Allocation {
		return dst, fmt.Errorf("map %q: %w", m, errors.ErrUnsupported)
	}
	s := d.shape.Load()
	run := runs{dst: dst, first: len(dst)}
	for pos, end := off, off+n; pos < end && !run.full; {
		t, next := d.tableAt(pos)
		next = min(next, s.size)
		if t == nil {
			run.add(next-pos, hole)
			pos = next
			continue
		}
		for pos < min(next, end) && !run.full {
			at, part := inChunk(pos, next-pos)
			run.addChunk(t[pos>>chunkShift&(1<<fanBits-1)].Load(), at, part)
			pos += part
		}
	}
	return run.dst, nil
}

// runs gathers extents, joining equal neighbours, as long as there is room.
type runs struct {
	dst   []disk.Extent
	first int
	full  bool
}

func (r *runs) add(n int64, f disk.ExtentFlags) {
	last := len(r.dst) - 1
	switch {
	case r.full:
	case last >= r.first && r.dst[last].Flags == f:
		r.dst[last].Len += n
	case len(r.dst) < cap(r.dst):
		r.dst = append(r.dst, disk.Extent{Len: n, Flags: f})
	default:
		r.full = true
	}
}

// addChunk adds the bytes [at, at+n) of a chunk.
func (r *runs) addChunk(c *chunk, at, n int64) {
	var pages uint16
	if c != nil {
		c.mu.RLock()
		pages = c.pages
		c.mu.RUnlock()
	}
	for n > 0 && !r.full {
		page := at / pageSize
		rest, flags := pages>>page, disk.ExtentFlags(0)
		if rest&1 == 0 {
			rest, flags = ^rest, hole
		}
		same := int64(bits.TrailingZeros16(^rest))
		part := min((page+same)*pageSize-at, n)
		r.add(part, flags)
		at, n = at+part, n-part
	}
}
