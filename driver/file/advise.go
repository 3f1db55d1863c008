package file

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
)

// Advise implements disk.Adviser by posix_fadvise on the description that data goes through. To drop
// the cache of a whole block device takes BLKFLSBUF: fadvise leaves the pages that the
// device's other openers have.
func (f *File) Advise(off, n int64, a disk.Advice) error {
	if a == disk.AdviceDrop && f.blockDev {
		err := unix.IoctlSetInt(f.fd, unix.BLKFLSBUF, 0)
		if err == unix.EACCES || err == unix.EPERM {
			return nil // only root may; the pages stay
		}
		return os.NewSyscallError("BLKFLSBUF", err)
	}
	advice := map[disk.Advice]int{disk.AdviceRandom: unix.FADV_RANDOM, disk.AdviceSequential: unix.FADV_SEQUENTIAL,
		disk.AdviceNoReuse: unix.FADV_NOREUSE, disk.AdviceDrop: unix.FADV_DONTNEED}
	value, ok := advice[a]
	if !ok {
		return fmt.Errorf("advice %d is unknown", a)
	}
	return os.NewSyscallError("fadvise", unix.Fadvise(f.fd, off, n, value))
}

var _ disk.Adviser = (*File)(nil)
