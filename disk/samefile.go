package disk

import (
	"os"
	"syscall"
)

// SameFile reports whether d's first bytes lie in the file that f is open on, as far as the
// driver tells (FileRanger). What writes a file beside a disk asks, because a log that is the disk
// destroys it.
func SameFile(d *Disk, f *os.File) bool {
	if d.Size() == 0 {
		return false
	}
	r, ok := d.FileRange(0, 1, false)
	if !ok {
		return false
	}
	defer r.Release()
	var a, b syscall.Stat_t
	if syscall.Fstat(r.FD, &a) != nil || syscall.Fstat(int(f.Fd()), &b) != nil {
		return false
	}
	return a.Dev == b.Dev && a.Ino == b.Ino
}
