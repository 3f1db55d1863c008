package qcow2_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/format/qcow2"
)

// An image whose tables lead to its own metadata is not written to, and is marked: at
// the opening where the tables tell, else with the write that would have met them.
func TestOverlap(t *testing.T) {
	t.Parallel()
	good := small(t)
	be := binary.BigEndian
	l1, refs := be.Uint64(good[40:]), be.Uint64(good[48:])
	l2, block := be.Uint64(good[l1:])&(1<<56-1), be.Uint64(good[refs:])
	const copied = 1 << 63
	for _, e := range []struct {
		edit
		atOpen bool
	}{
		{edit{"data over the header", l2At, uint64(copied), "extent"}, false},
		{edit{"data over the L1 table", l2At, copied | l1, "the L1 table"}, false},
		{edit{"data over an L2 table", l2At, copied | l2, "an L2 table"}, false},
		{edit{"data over the refcount table", l2At, copied | refs, "the refcount table"}, false},
		{edit{"data over a refcount block", l2At, copied | block, "a refcount block"}, false},
		{edit{"an L2 table over the L1 table", int(l1), copied | l1, "overlaps"}, true},
		{edit{"an L2 table over the header", int(l1), uint64(copied), ""}, false},
		{edit{"the refcount table over the L1 table", 48, l1, "overlaps"}, true},
		{edit{"a refcount block over an L2 table", int(refs), l2, "overlaps"}, true},
		{edit{"a refcount block beyond the file", int(refs), uint64(1 << 50), "not inside the file"}, true},
		{edit{"refcounts that are 0", int(block), make([]byte, 64), "a free cluster is"}, false},
	} {
		p := bytes.Clone(good)
		e.apply(t, p)
		child := inMemory(t, append(p, make([]byte, 1<<20)...))
		d, err := qcow2.Open(t.Context(), child, qcow2.Options{})
		if err == nil && !e.atOpen {
			err = d.WriteAt(t.Context(), make([]byte, 65536), 0, 0)
			if err == nil {
				err = d.WriteAt(t.Context(), make([]byte, 65536), 512<<10, 0)
			}
		}
		if e.want == "extent" || e.want == "" {
			// An offset of 0 is none: the clusters are new ones.
			if err != nil {
				t.Errorf("%s: %v", e.name, err)
			}
			continue
		}
		if !errors.Is(err, disk.ErrCorrupt) || !strings.Contains(err.Error(), e.want) {
			t.Errorf("%s: got %v, want %q", e.name, err, e.want)
			continue
		}
		if e.atOpen {
			continue
		}
		if err := d.WriteAt(t.Context(), make([]byte, 65536), 768<<10, 0); !errors.Is(err, disk.ErrCorrupt) {
			t.Errorf("%s: the next write: %v", e.name, err)
		}
		var h [8]byte
		if err := child.ReadAt(t.Context(), h[:], 72); err != nil || h[7]&2 == 0 {
			t.Errorf("%s: the image is not marked as corrupt (%v)", e.name, err)
		}
	}
}
