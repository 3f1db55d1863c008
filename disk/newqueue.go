package disk

import (
	"context"
	"errors"
	"fmt"
)

// ErrInline is what a driver's NewQueue answers when its methods never block:
// the Disk then runs queued operations at once, on the owner's thread.
var ErrInline = errors.New("operations never block")

// maxDepth bounds a queue's depth; io_uring's own limit on entries is the same.
const maxDepth = 32768

// NewQueue returns a queue of depth operations in flight (1 to 32768), with the
// same checks and emulations as the Disk's methods: the driver's own where it
// has one, else a pool of workers. What a driver's queue cannot do as it stands
// (unaligned or overlong operations, an emulated FUA or zero) is done
// synchronously inside Submit, when nothing else of this queue is in flight.
func (d *Disk) NewQueue(depth int) (Queue, error) {
	if err := checkDepth(depth); err != nil {
		return nil, d.wrap("queue", -1, 0, err)
	}
	drv, ok := d.drv.(Queuer)
	if !ok || d.trace != nil {
		return newPoolQueue(d, depth), nil
	}
	q, err := drv.NewQueue(depth)
	switch {
	case err == nil:
		return newCheckedQueue(d, q, depth), nil
	case errors.Is(err, ErrInline):
		return newInlineQueue(d, depth), nil
	case errors.Is(err, errors.ErrUnsupported):
		return newPoolQueue(d, depth), nil
	}
	return nil, d.wrap("queue", -1, 0, err)
}

// NewSyncQueue returns a queue that runs each operation inside Submit, on the owner's
// thread, by the Disk's ordinary methods, whatever queue the driver has. It is what
// Linux's libaio is on the page cache, which a measurement of that has to be.
func (d *Disk) NewSyncQueue(depth int) (Queue, error) {
	if err := checkDepth(depth); err != nil {
		return nil, d.wrap("queue", -1, 0, err)
	}
	return newInlineQueue(d, depth), nil
}

func checkDepth(depth int) error {
	if depth < 1 || depth > maxDepth {
		return fmt.Errorf("depth %d is not between 1 and %d", depth, maxDepth)
	}
	return nil
}

var errOp = errors.New("malformed queue operation: unknown kind, or Len is not the length of Vec")

// valid reports whether an operation is well formed in itself.
func (op *Op) valid() bool {
	switch op.Kind {
	case Read, Write:
		return op.Len == vecLen(op.Vec)
	case Zero, Trim, Flush:
		return true
	}
	return false
}

// run performs one queued operation by the Disk's ordinary methods.
func (d *Disk) run(ctx context.Context, op *Op) error {
	if !op.valid() {
		return d.wrap(op.Kind.String(), op.Off, op.Len, errOp)
	}
	switch op.Kind {
	case Read:
		if len(op.Vec) == 1 {
			return d.ReadAt(ctx, op.Vec[0], op.Off)
		}
		return d.Readv(ctx, op.Vec, op.Off)
	case Write:
		if len(op.Vec) == 1 {
			return d.WriteAt(ctx, op.Vec[0], op.Off, op.Flags)
		}
		return d.Writev(ctx, op.Vec, op.Off, op.Flags)
	case Zero:
		return d.Zero(ctx, op.Off, op.Len, op.Flags)
	case Trim:
		return d.Trim(ctx, op.Off, op.Len, op.Flags)
	}
	return d.Flush(ctx)
}
