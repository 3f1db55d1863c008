package readonly

import (
	"context"
	"errors"

	"github.com/vmdisk/vmdisk/disk"
)

// filter forwards the reading half of every interface. The Disk above refuses
// the rest, so changes never get here, by a queue or a file range either.
type filter struct {
	disk.Driver
	child *disk.Disk
}

// New puts the filter over child, which it owns from here on.
func New(child *disk.Disk) *disk.Disk {
	return disk.New(&filter{Driver: child, child: child}, child.Name())
}

// Info implements disk.Driver.
func (f *filter) Info() disk.Info {
	in := f.child.Info()
	in.ReadOnly, in.Volatile, in.MultiConn = true, false, true
	in.Zero, in.FastZero, in.Trim = disk.None, disk.None, disk.None
	return in
}

// Cache implements disk.Cacher.
func (f *filter) Cache(ctx context.Context, off, n int64) error { return f.child.Cache(ctx, off, n) }

// TryRead implements disk.Inliner.
func (f *filter) TryRead(p []byte, off int64) error { return f.child.TryRead(p, off) }

// TryWrite implements disk.Inliner.
func (f *filter) TryWrite([]byte, int64, disk.Flags) error { return disk.ErrReadOnly }

// Readv implements disk.Vectorer.
func (f *filter) Readv(ctx context.Context, vec [][]byte, off int64) error {
	return f.child.Readv(ctx, vec, off)
}

// Writev implements disk.Vectorer.
func (f *filter) Writev(context.Context, [][]byte, int64, disk.Flags) error { return disk.ErrReadOnly }

// FileRange implements disk.FileRanger.
func (f *filter) FileRange(off, n int64, write bool) (disk.FileRange, bool) {
	return f.child.FileRange(off, n, write)
}

// NewQueue implements disk.Queuer.
func (f *filter) NewQueue(depth int) (disk.Queue, error) { return f.child.NewQueue(depth) }

// Inspect implements disk.Inspector.
func (f *filter) Inspect(ctx context.Context) ([]disk.Attr, error) {
	if i, ok := disk.As[disk.Inspector](f.child); ok {
		return i.Inspect(ctx)
	}
	return nil, errors.ErrUnsupported
}
