package file

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
)

var errNoCache = fmt.Errorf("no page cache that could be written back: %w", errors.ErrUnsupported)

// WriteBehind implements disk.WriteBehinder by sync_file_range and
// POSIX_FADV_DONTNEED. What the former answers of a lost write it takes from the
// description that data is written through; the flusher has its own and hears of it too.
func (f *File) WriteBehind(off, n int64, drop bool) error {
	if f.opts.Cache.direct() || f.opts.Cache == Unsafe || f.opts.ReadOnly || f.inMemory {
		return errNoCache
	}
	if n <= 0 {
		return nil // which sync_file_range takes for everything up to the end
	}
	flags := unix.SYNC_FILE_RANGE_WRITE
	if drop {
		flags |= unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	}
	for {
		switch err := unix.SyncFileRange(f.fd, off, n, flags); {
		case err == unix.EINTR:
		case err != nil || !drop:
			return err
		default:
			return unix.Fadvise(f.fd, off, n, unix.FADV_DONTNEED)
		}
	}
}

var _ disk.WriteBehinder = (*File)(nil)
