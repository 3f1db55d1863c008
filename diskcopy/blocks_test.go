package diskcopy

import (
	"context"
	"syscall"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
)

// unreadable is a target in large blocks that cannot be read, and whose map is finer
// than its blocks.
type unreadable struct {
	remote
	unit int64 // of the map
}

const largeBlock = 64 << 10

func (u *unreadable) Info() disk.Info {
	in := u.remote.Info()
	in.Min, in.Maps = largeBlock, []disk.MapName{disk.Allocation}
	return in
}

func (u *unreadable) ReadAt(context.Context, []byte, int64) error { return syscall.EIO }

// Extents: the first unit and a half is known to be zero, then one unit of two is.
func (u *unreadable) Extents(_ context.Context, _ disk.MapName, off, n int64, dst []disk.Extent) ([]disk.Extent, error) {
	for end := off + n; off < end && len(dst) < max(1, cap(dst)); off += u.unit {
		e := disk.Extent{Len: u.unit}
		if off < largeBlock+u.unit || off/u.unit%2 == 0 {
			e.Flags = disk.ExtentZero | disk.ExtentHole
		}
		dst = append(dst, e)
	}
	return dst, nil
}

// What covers whole blocks of a target needs none of them read, whatever the strategy
// and however the target's own map lies.
func TestUnreadableTarget(t *testing.T) {
	t.Parallel()
	const size = 4 * mib
	src := memDisk(t, size)
	for _, off := range []int64{200 << 10, mib + 512, 3*mib - 4096} {
		fill(t, src, off, 5000, off)
	}
	for _, s := range Strategies() {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			child := memDisk(t, size)
			u := &unreadable{remote{child: child, keep: true}, largeBlock / 2}
			zeroUnits(t, u, child)
			dst := disk.New(u, "unreadable")
			defer dst.Close()
			if _, err := Copy(context.Background(), dst, src, Options{Strategy: s}); err != nil {
				t.Fatal(err)
			}
			if r, err := Compare(context.Background(), child, src, CompareOptions{}); err != nil || !r.Equal {
				t.Errorf("%+v %v", r, err)
			}
		})
	}
}

// zeroUnits fills what u's map does not call zero.
func zeroUnits(t *testing.T, u *unreadable, child *disk.Disk) {
	for off := int64(0); off < child.Size(); off += u.unit {
		e, err := u.Extents(context.Background(), disk.Allocation, off, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !isZeroExtent(e[0]) {
			fill(t, child, off, u.unit, off)
		}
	}
}
