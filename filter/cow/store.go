package cow

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// store keeps the overlay's blocks. A block is written whole before a part of it
// is read or written. The caller keeps uses of one block apart.
type store interface {
	read(p []byte, block, off int64) error
	write(p []byte, block, off, size int64) error
	punch(block, off, size int64) error
	discard() error
}

type memory struct {
	mu     sync.RWMutex
	blocks map[int64][]byte
}

func (m *memory) read(p []byte, block, off int64) error {
	m.mu.RLock()
	b := m.blocks[block]
	m.mu.RUnlock()
	copy(p, b[off&int64(len(b)-1):])
	return nil
}

func (m *memory) write(p []byte, block, off, size int64) error {
	m.mu.RLock()
	b := m.blocks[block]
	m.mu.RUnlock()
	if b == nil {
		b = make([]byte, size)
		m.mu.Lock()
		m.blocks[block] = b
		m.mu.Unlock()
	}
	copy(b[off&(size-1):], p)
	return nil
}

func (m *memory) punch(block, _, _ int64) error {
	m.mu.Lock()
	delete(m.blocks, block)
	m.mu.Unlock()
	return nil
}

func (m *memory) discard() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blocks = nil
	return nil
}

// file is a sparse file without a name, as large as the disk.
type file struct{ *os.File }

func newFile(dir string) (*file, error) {
	if dir == "" {
		dir = os.Getenv("TMPDIR")
	}
	if dir == "" {
		dir = "/var/tmp"
	}
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return &file{os.NewFile(uintptr(fd), dir+"/(overlay)")}, nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return nil, fmt.Errorf("make a temporary file in %s for the overlay: %w", dir, err)
	}
	f, err := os.CreateTemp(dir, "vmdisk-cow-") // a file system without O_TMPFILE, such as NFS
	if err != nil {
		return nil, fmt.Errorf("make a temporary file for the overlay: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("remove the name of the overlay's file: %w", err), f.Close())
	}
	return &file{f}, nil
}

func (f *file) read(p []byte, _, off int64) error {
	if n, err := f.ReadAt(p, off); n < len(p) {
		return fmt.Errorf("read the overlay: %w", err)
	}
	return nil
}

func (f *file) write(p []byte, _, off, _ int64) error {
	if _, err := f.WriteAt(p, off); err != nil {
		return fmt.Errorf("write the overlay: %w", err)
	}
	return nil
}

// punch gives the space back. What cannot be given back is merely kept: the
// state says that the block is zero.
func (f *file) punch(_, off, size int64) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, size)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("free a block of the overlay: %w", err)
	}
	return nil
}

func (f *file) discard() error { return f.Close() }
