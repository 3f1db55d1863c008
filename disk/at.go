package disk

import (
	"context"
	"io"
)

// IO is a Disk in the forms of package io, for code that knows io.ReaderAt and
// io.WriterAt: archive readers, checksums, io.NewSectionReader.
type IO struct {
	ctx context.Context
	d   *Disk
}

var (
	_ io.ReaderAt = (*IO)(nil)
	_ io.WriterAt = (*IO)(nil)
)

// IO returns d as an io.ReaderAt and io.WriterAt whose operations end with ctx.
func (d *Disk) IO(ctx context.Context) *IO { return &IO{ctx, d} }

// Size is that of the disk.
func (a *IO) Size() int64 { return a.d.Size() }

// ReadAt implements io.ReaderAt: what reaches beyond the end is cut off, with io.EOF.
func (a *IO) ReadAt(p []byte, off int64) (int, error) {
	size := a.d.Size()
	if off < 0 {
		return 0, a.d.wrap("read", off, int64(len(p)), ErrRange)
	}
	n := min(int64(len(p)), max(size-off, 0))
	if err := a.d.ReadAt(a.ctx, p[:n], min(off, size)); err != nil {
		return 0, err
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// WriteAt implements io.WriterAt. A disk does not grow by it: what reaches beyond the end
// is refused, and nothing of it is written.
func (a *IO) WriteAt(p []byte, off int64) (int, error) {
	if err := a.d.WriteAt(a.ctx, p, off, 0); err != nil {
		return 0, err
	}
	return len(p), nil
}
