package limit

import (
	"context"
	"fmt"

	"github.com/vmdisk/vmdisk/disk"
)

// Config is the filter's parameters.
type Config struct {
	Offset int64
	// Size of 0 means up to the end.
	Size int64
	// Partition of 0 means the whole disk.
	Partition int
	// SectorSize of 0 means to find out.
	SectorSize int64
}

type filter struct {
	child      *disk.Disk
	base, size int64
}

// New puts the filter over child, which it owns from here on unless it fails.
// It reads the partition table under ctx.
func New(ctx context.Context, child *disk.Disk, cfg Config) (*disk.Disk, error) {
	whole := part{0, child.Size()}
	if cfg.Partition != 0 {
		var err error
		if whole, err = findPartition(ctx, child, cfg.Partition, cfg.SectorSize); err != nil {
			return nil, fmt.Errorf("partition %d of %s: %w", cfg.Partition, child, err)
		}
	}
	if cfg.Offset < 0 || cfg.Size < 0 || cfg.Offset > whole.size || cfg.Size > whole.size-cfg.Offset {
		return nil, fmt.Errorf("offset %d, size %d: outside of the %d bytes there are", cfg.Offset, cfg.Size, whole.size)
	}
	size := whole.size - cfg.Offset
	if cfg.Size > 0 {
		size = cfg.Size
	}
	return disk.New(&filter{child: child, base: whole.off + cfg.Offset, size: size}, child.Name()), nil
}

// Info implements disk.Driver. A unit that the part's beginning is no multiple
// of says nothing here; the disk below aligns for itself then.
func (f *filter) Info() disk.Info {
	in := f.child.Info()
	in.Size = f.size
	for _, unit := range []*int64{&in.Min, &in.Preferred, &in.TrimAlign, &in.Atomic} {
		if *unit > 0 && f.base%*unit != 0 {
			*unit = 0
		}
	}
	if in.ID != "" {
		in.ID = fmt.Sprintf("%s+%d+%d", in.ID, f.base, f.size)
	}
	return in
}

// ReadAt implements disk.Driver.
func (f *filter) ReadAt(ctx context.Context, p []byte, off int64) error {
	return f.child.ReadAt(ctx, p, f.base+off)
}

// WriteAt implements disk.Driver.
func (f *filter) WriteAt(ctx context.Context, p []byte, off int64, flags disk.Flags) error {
	return f.child.WriteAt(ctx, p, f.base+off, flags)
}

// Zero implements disk.Driver.
func (f *filter) Zero(ctx context.Context, off, n int64, flags disk.Flags) error {
	return f.child.Zero(ctx, f.base+off, n, flags)
}

// Trim implements disk.Driver.
func (f *filter) Trim(ctx context.Context, off, n int64, flags disk.Flags) error {
	return f.child.Trim(ctx, f.base+off, n, flags)
}

// Flush implements disk.Driver.
func (f *filter) Flush(ctx context.Context) error { return f.child.Flush(ctx) }

// Extents implements disk.Driver. The Disk above cuts what reaches past the part.
func (f *filter) Extents(ctx context.Context, m disk.MapName, off, n int64, dst []disk.Extent) ([]disk.Extent, error) {
	return f.child.Extents(ctx, m, f.base+off, n, dst)
}

// Close implements disk.Driver.
func (f *filter) Close() error { return f.child.Close() }

// Cache implements disk.Cacher.
func (f *filter) Cache(ctx context.Context, off, n int64) error {
	return f.child.Cache(ctx, f.base+off, n)
}

// TryRead implements disk.Inliner.
func (f *filter) TryRead(p []byte, off int64) error { return f.child.TryRead(p, f.base+off) }

// TryWrite implements disk.Inliner.
func (f *filter) TryWrite(p []byte, off int64, flags disk.Flags) error {
	return f.child.TryWrite(p, f.base+off, flags)
}

// Readv implements disk.Vectorer.
func (f *filter) Readv(ctx context.Context, vec [][]byte, off int64) error {
	return f.child.Readv(ctx, vec, f.base+off)
}

// Writev implements disk.Vectorer.
func (f *filter) Writev(ctx context.Context, vec [][]byte, off int64, flags disk.Flags) error {
	return f.child.Writev(ctx, vec, f.base+off, flags)
}
