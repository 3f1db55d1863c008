package disk

import (
	"context"
	"errors"
	"fmt"
)

// FileSender is optional: writes whose bytes the kernel moves from a file
// (sendfile). A driver may also find at run time that it cannot.
type FileSender interface {
	// WriteFromFile writes src.Len bytes of src at off, as WriteAt would. It
	// answers errors.ErrUnsupported, having done nothing, where it cannot.
	WriteFromFile(ctx context.Context, off int64, src FileRange, f Flags) error
}

var errNoSend = fmt.Errorf("this disk cannot take data from a file: %w", errors.ErrUnsupported)

// WriteFromFile writes src at off without its bytes passing through this
// process. It fails with errors.ErrUnsupported, having done nothing, where the
// driver cannot do that or the range is not in whole blocks; the caller then
// reads and writes. src stays the caller's to release. f may hold FUA.
func (d *Disk) WriteFromFile(ctx context.Context, off int64, src FileRange, f Flags) error {
	l := d.limits.Load()
	sender, ok := d.drv.(FileSender)
	err := l.checkChange(off, src.Len, f, FUA)
	if err == nil && (!ok || d.trace != nil || !l.aligned(off, src.Len)) {
		err = errNoSend
	}
	if err == nil && src.Len > 0 {
		native, flush := l.fua(f)
		if err = d.sendParts(ctx, l, sender, off, src, native); err == nil && flush {
			err = d.flush(ctx)
		}
	}
	return d.wrap("write", off, src.Len, err)
}

func (d *Disk) sendParts(ctx context.Context, l *limits, s FileSender, off int64, src FileRange, f Flags) error {
	if l.mask != 0 {
		node, err := d.locks.lock(ctx, off, src.Len, false)
		if err != nil {
			return err
		}
		defer d.locks.unlock(node)
	}
	for src.Len > 0 {
		part := src
		part.Len = min(src.Len, l.maxIO)
		if err := s.WriteFromFile(ctx, off, part, f); err != nil {
			return err
		}
		off, src.Off, src.Len = off+part.Len, src.Off+part.Len, src.Len-part.Len
	}
	return nil
}
