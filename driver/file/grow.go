package file

import (
	"context"
	"errors"
	"math"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
)

// Grow is disk.Grower's. A block device has the size that it has.
func (f *File) Grow(ctx context.Context, size int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	now, err := f.fileSize()
	if err != nil {
		return err
	}
	if now == f.size.Load() && now >= size {
		return nil
	}
	if size > math.MaxInt64-f.ioAlign {
		return unix.EFBIG
	}
	f.tail.Lock()
	defer f.tail.Unlock()
	if size&(f.ioAlign-1) != 0 {
		size += f.ioAlign - size&(f.ioAlign-1) // whole sectors need no page cache at the end
	}
	if old := f.size.Load(); old&(f.ioAlign-1) != 0 {
		f.oldEnd.Store(old)
	}
	if now < size && !f.blockDev && !f.opts.ReadOnly {
		if err := f.extend(size); err != nil {
			return err
		}
	}
	if now, err = f.fileSize(); err != nil {
		return err
	}
	if now == f.size.Load() {
		return nil
	}
	f.size.Store(now)
	f.changed()
	f.editInfo(func(in *disk.Info) { in.Size = now })
	return nil
}

// extend allocates the last byte, which cannot make a file smaller that another program
// has made larger meanwhile, as ftruncate could. Only file systems without fallocate
// are left to that.
func (f *File) extend(size int64) error {
	err := unix.Fallocate(f.fd, 0, size-1, 1)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		if now, err := f.fileSize(); err != nil || now >= size {
			return err
		}
		return unix.Ftruncate(f.fd, size)
	}
	return err
}
