// Package outfile opens the file that a filter writes beside its disk.
package outfile

import (
	"errors"
	"fmt"
	"os"

	"github.com/vmdisk/vmdisk/disk"
)

// Open opens or makes the file name for writing, at its end if keep is set and else empty. The
// disk's own file is refused and not touched: `--filter log:logfile=a` over the disk a made
// 445 bytes of 16 MiB.
func Open(child *disk.Disk, name string, keep bool) (*os.File, error) {
	mode := os.O_CREATE | os.O_WRONLY
	if keep {
		mode |= os.O_APPEND
	}
	f, err := os.OpenFile(name, mode, 0o644)
	if err != nil {
		return nil, err
	}
	if err = empty(child, f, keep); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func empty(child *disk.Disk, f *os.File, keep bool) error {
	if disk.SameFile(child, f) {
		return fmt.Errorf("%s is the disk itself: name another file", f.Name())
	}
	if st, err := f.Stat(); err != nil || keep || !st.Mode().IsRegular() {
		return err
	}
	return f.Truncate(0)
}
