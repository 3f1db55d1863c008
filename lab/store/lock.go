package store

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// lockDir makes us the only user of a folder; the kernel ends that with us.
func lockDir(path, dir string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			return nil, errors.Join(lockError(f, dir, err), f.Close())
		}
		if !sameFile(f, path) { // its owner removed it while we opened it
			f.Close()
			continue
		}
		// For people, and the message above: nothing depends on it.
		if err = f.Truncate(0); err == nil {
			_, err = fmt.Fprintln(f, os.Getpid())
		}
		if err != nil {
			return nil, errors.Join(err, os.Remove(path), f.Close())
		}
		return f, nil
	}
}

func lockError(f *os.File, dir string, err error) error {
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("lock %s: %w", dir, err)
	}
	var text [32]byte
	n, _ := f.ReadAt(text[:], 0)
	who := "another process"
	if pid := strings.TrimSpace(string(text[:n])); pid != "" {
		who = "process " + pid
	}
	return fmt.Errorf("%s is in use by %s: wait for it to end, or use another folder", dir, who)
}

func sameFile(f *os.File, path string) bool {
	a, errA := f.Stat()
	b, errB := os.Stat(path)
	return errA == nil && errB == nil && os.SameFile(a, b)
}
