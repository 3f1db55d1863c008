package pattern

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/vmdisk/vmdisk/disk"
)

// Driver serves the pattern; see the package comment.
type Driver struct {
	size   int64
	verify bool
}

// Open returns a read-only disk of size bytes.
func Open(size int64) (*disk.Disk, error) { return open(size, false) }

// OpenVerify returns a disk of size bytes that accepts writes of the pattern alone.
func OpenVerify(size int64) (*disk.Disk, error) { return open(size, true) }

func open(size int64, verify bool) (*disk.Disk, error) {
	if size < 0 {
		return nil, fmt.Errorf("pattern: the size is %d bytes: it must not be negative", size)
	}
	return disk.New(&Driver{size: size, verify: verify}, fmt.Sprintf("pattern:%d", size)), nil
}

// Fill writes what the pattern holds at off into p.
func Fill(p []byte, off int64) {
	for ; len(p) > 0 && off&7 != 0; p, off = p[1:], off+1 {
		p[0] = at(off)
	}
	word := uint64(off)
	for ; len(p) >= 8; p, word = p[8:], word+8 {
		binary.BigEndian.PutUint64(p, word)
	}
	for i := range p {
		p[i] = at(int64(word) + int64(i))
	}
}

// at is the byte of the pattern at off.
func at(off int64) byte { return byte(off &^ 7 >> (56 - 8*(off&7))) }

// mismatch returns the index of the first byte of p that is not the pattern's, or -1.
func mismatch(p []byte, off int64) int {
	var want [512]byte
	for done := 0; done < len(p); done += len(want) {
		part := p[done:min(done+len(want), len(p))]
		Fill(want[:len(part)], off+int64(done))
		if string(part) == string(want[:len(part)]) {
			continue
		}
		for i := range part {
			if part[i] != want[i] {
				return done + i
			}
		}
	}
	return -1
}

// Info implements disk.Driver.
func (d *Driver) Info() disk.Info {
	return disk.Info{Size: d.size, MultiConn: true, ReadOnly: !d.verify, FUA: disk.Native, Cache: disk.Native}
}

// ReadAt implements disk.Driver.
func (d *Driver) ReadAt(_ context.Context, p []byte, off int64) error {
	Fill(p, off)
	return nil
}

// WriteAt implements disk.Driver. Only OpenVerify's disks get here.
func (d *Driver) WriteAt(_ context.Context, p []byte, off int64, _ disk.Flags) error {
	if i := mismatch(p, off); i >= 0 {
		return fmt.Errorf("the byte at offset %d is %#02x where the pattern has %#02x: %w",
			off+int64(i), p[i], at(off+int64(i)), syscall.EIO)
	}
	return nil
}

// Zero implements disk.Driver; the Disk writes zeros instead.
func (d *Driver) Zero(context.Context, int64, int64, disk.Flags) error { return errors.ErrUnsupported }

// Trim implements disk.Driver.
func (d *Driver) Trim(context.Context, int64, int64, disk.Flags) error { return errors.ErrUnsupported }

// Flush implements disk.Driver.
func (d *Driver) Flush(context.Context) error { return nil }

// Cache implements disk.Cacher.
func (d *Driver) Cache(context.Context, int64, int64) error { return nil }

// Extents implements disk.Driver: no map is known, all is data.
func (d *Driver) Extents(_ context.Context, m disk.MapName, _, _ int64, dst []disk.Extent) ([]disk.Extent, error) {
	return dst, fmt.Errorf("map %q: %w", m, errors.ErrUnsupported)
}

// Close implements disk.Driver.
func (d *Driver) Close() error { return nil }

// TryRead implements disk.Inliner.
func (d *Driver) TryRead(p []byte, off int64) error {
	Fill(p, off)
	return nil
}

// TryWrite implements disk.Inliner.
func (d *Driver) TryWrite(p []byte, off int64, f disk.Flags) error {
	return d.WriteAt(context.Background(), p, off, f)
}

// NewQueue implements disk.Queuer: operations run at once.
func (d *Driver) NewQueue(int) (disk.Queue, error) { return nil, disk.ErrInline }
