package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// publish gives a complete file its name, durably, and never takes the name
// from a file that appeared meanwhile.
func publish(partial, final string) error {
	err := unix.Renameat2(unix.AT_FDCWD, partial, unix.AT_FDCWD, final, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // a file system without the flag
		if _, there := os.Lstat(final); there == nil {
			err = unix.EEXIST
		} else {
			err = os.Rename(partial, final)
		}
	}
	if err != nil {
		return fmt.Errorf("target: the copy is complete as %s but cannot be named %s: %w", partial, final, err)
	}
	return syncDir(filepath.Dir(final))
}

// syncDir makes a new name durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}
