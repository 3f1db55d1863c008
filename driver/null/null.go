package null

import (
	"context"
	"errors"
	"fmt"

	"github.com/vmdisk/vmdisk/disk"
)

// Driver discards everything; see the package comment.
type Driver struct{ size int64 }

// Open returns a discard-all disk of size bytes.
func Open(size int64) (*disk.Disk, error) {
	if size < 0 {
		return nil, fmt.Errorf("null: the size is %d bytes: it must not be negative", size)
	}
	return disk.New(&Driver{size: size}, fmt.Sprintf("null:%d", size)), nil
}

// Info implements disk.Driver.
func (d *Driver) Info() disk.Info {
	return disk.Info{
		Size: d.size, MultiConn: true, KnownZero: true,
		Zero: disk.Native, FastZero: disk.Native, Trim: disk.Native, FUA: disk.Native, Cache: disk.Native,
		Maps: []disk.MapName{disk.Allocation},
	}
}

// ReadAt implements disk.Driver.
func (*Driver) ReadAt(_ context.Context, p []byte, _ int64) error {
	clear(p)
	return nil
}

// WriteAt implements disk.Driver.
func (*Driver) WriteAt(context.Context, []byte, int64, disk.Flags) error { return nil }

// Zero implements disk.Driver.
func (*Driver) Zero(context.Context, int64, int64, disk.Flags) error { return nil }

// Trim implements disk.Driver.
func (*Driver) Trim(context.Context, int64, int64, disk.Flags) error { return nil }

// Flush implements disk.Driver.
func (*Driver) Flush(context.Context) error { return nil }

// Cache implements disk.Cacher.
func (*Driver) Cache(context.Context, int64, int64) error { return nil }

// Extents implements disk.Driver: one hole.
func (d *Driver) Extents(_ context.Context, m disk.MapName, off, _ int64, dst []disk.Extent) ([]disk.Extent, error) {
	if m != disk.Allocation {
		return dst, fmt.Errorf("map %q: %w", m, errors.ErrUnsupported)
	}
	return append(dst, disk.Extent{Len: d.size - off, Flags: disk.ExtentZero | disk.ExtentHole}), nil
}

// Close implements disk.Driver.
func (*Driver) Close() error { return nil }

// TryRead implements disk.Inliner.
func (*Driver) TryRead(p []byte, _ int64) error {
	clear(p)
	return nil
}

// TryWrite implements disk.Inliner.
func (*Driver) TryWrite([]byte, int64, disk.Flags) error { return nil }

// Readv implements disk.Vectorer.
func (*Driver) Readv(_ context.Context, vec [][]byte, _ int64) error {
	for _, p := range vec {
		clear(p)
	}
	return nil
}

// Writev implements disk.Vectorer.
func (*Driver) Writev(context.Context, [][]byte, int64, disk.Flags) error { return nil }

// NewQueue implements disk.Queuer: operations run at once.
func (*Driver) NewQueue(int) (disk.Queue, error) { return nil, disk.ErrInline }
