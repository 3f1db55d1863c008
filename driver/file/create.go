package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Preallocation says how much of a new file takes space at once, by QEMU's names.
type Preallocation string

// The preallocation modes.
const (
	PreallocOff    Preallocation = "off"    // sparse
	PreallocFalloc Preallocation = "falloc" // reserved (fallocate), not written
	PreallocFull   Preallocation = "full"   // written with zeros
)

// Set parses a mode; with String and Type it makes Preallocation a command-line flag.
func (p *Preallocation) Set(s string) error {
	switch Preallocation(s) {
	case PreallocOff, PreallocFalloc, PreallocFull:
		*p = Preallocation(s)
		return nil
	}
	return fmt.Errorf("unknown preallocation %q: use off, falloc or full", s)
}

// String returns the mode's name; the zero value is off.
func (p Preallocation) String() string {
	if p == "" {
		return string(PreallocOff)
	}
	return string(p)
}

// Type names the kind of flag.
func (p Preallocation) Type() string { return "mode" }

// Create makes a new regular file of size bytes that reads as zeros; it fails if
// path exists. The file and its name are durable when Create returns. A file
// that could not be made whole, or whose making was cancelled, is removed again.
func Create(ctx context.Context, path string, size int64, prealloc Preallocation) error {
	return CreateMode(ctx, path, size, prealloc, 0)
}

// CreateMode is Create with the file's permissions, before the umask; 0 is 0644.
func CreateMode(ctx context.Context, path string, size int64, prealloc Preallocation, mode fs.FileMode) error {
	err := prealloc.check()
	if err == nil && size < 0 {
		err = fmt.Errorf("size %d is negative", size)
	}
	if err == nil {
		err = create(ctx, path, size, prealloc, uint32(mode.Perm()))
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	return nil
}

func (p Preallocation) check() error { return new(Preallocation).Set(p.String()) }

func create(ctx context.Context, path string, size int64, prealloc Preallocation, mode uint32) error {
	if mode == 0 {
		mode = newMode
	}
	fd, err := openMode(path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, mode)
	if err != nil {
		return err
	}
	err = fillNew(ctx, fd, size, prealloc)
	if err == nil {
		err = unix.Fsync(fd)
	}
	if err = errors.Join(err, unix.Close(fd)); err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func fillNew(ctx context.Context, fd int, size int64, prealloc Preallocation) error {
	if err := unix.Ftruncate(fd, size); err != nil {
		return fmt.Errorf("give it %d bytes: %w", size, err)
	}
	if prealloc.String() == string(PreallocOff) {
		return nil
	}
	// Also before writing: a file system that is too full says so at once.
	err := reserve(ctx, fd, size)
	if prealloc == PreallocFalloc && err == nil {
		return nil
	}
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	for off := int64(0); off < size; off += int64(len(zeroBuf)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := writeFull(fd, zeroBuf[:min(size-off, int64(len(zeroBuf)))], off, 0); err != nil {
			return fmt.Errorf("write zeros at offset %d: %w", off, err)
		}
	}
	return nil
}

// reserve allocates the file's space without writing it.
func reserve(ctx context.Context, fd int, size int64) error {
	step := int64(firstStep)
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := min(step, size-off)
		switch err := unix.Fallocate(fd, 0, off, part); err {
		case nil:
			off += part
		case unix.EINTR:
			step = max(step/2, leastStep)
		default:
			return fmt.Errorf("reserve %d bytes: %w", size, err)
		}
	}
	return nil
}

func syncDir(dir string) error {
	fd, err := openFD(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fsync(fd), unix.Close(fd))
}
