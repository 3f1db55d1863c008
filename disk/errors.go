package disk

import (
	"context"
	"errors"
	"fmt"
)

// The sentinels that callers match with errors.Is. The errno of a failed system
// call stays the leaf of the chain beside them.
var (
	// ErrReadOnly: a write, zero or trim on a read-only disk.
	ErrReadOnly = errors.New("disk is read-only")
	// ErrRange: outside the disk, or a negative offset or length.
	ErrRange = errors.New("outside the disk")
	// ErrCorrupt: the image's own structures contradict themselves.
	ErrCorrupt = errors.New("image is corrupt")
	// ErrNotFast: a zero that cannot be fast; nothing was touched. It matches
	// errors.ErrUnsupported.
	ErrNotFast error = notFast{}
	// ErrWouldBlock: an inline operation that would have to wait; nothing was done.
	ErrWouldBlock = errors.New("operation would block")
	// ErrFlags: a flag that this operation does not take.
	ErrFlags = errors.New("flag does not apply to the operation")
)

var (
	errNoResize = fmt.Errorf("this disk cannot be resized: %w", errors.ErrUnsupported)
	errNoMap    = fmt.Errorf("this disk has no such map: %w", errors.ErrUnsupported)
	errBadMap   = fmt.Errorf("the driver returned an empty extent: %w", ErrCorrupt)
)

type notFast struct{}

func (notFast) Error() string        { return "zeroing would not be fast" }
func (notFast) Is(target error) bool { return target == errors.ErrUnsupported }

// Error says what failed, where. Off and Len are -1 when the operation has no range.
type Error struct {
	Op       string // "read", "write", "zero", "trim", "flush", "extents", "cache", "resize", "close"
	Disk     string // the disk's name, as its opener gave it
	Off, Len int64
	Err      error
}

func (e *Error) Error() string {
	if e.Off < 0 {
		return fmt.Sprintf("%s: %s: %v", e.Disk, e.Op, e.Err)
	}
	return fmt.Sprintf("%s: %s %d bytes at offset %d: %v", e.Disk, e.Op, e.Len, e.Off, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// wrap adds where and what to err once: the layer nearest to the fault names
// it, those above pass it on.
func (d *Disk) wrap(op string, off, n int64, err error) error {
	if err == nil || err == ErrWouldBlock {
		return err
	}
	var have *Error // on the heap: hot paths end above
	if errors.As(err, &have) {
		return err
	}
	return &Error{Op: op, Disk: d.name, Off: off, Len: n, Err: err}
}

func isCancel(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
