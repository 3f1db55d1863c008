package disk

import "context"

// Kind is the kind of a queued operation.
type Kind uint8

// The operations of a Queue.
const (
	Read Kind = iota
	Write
	Zero
	Trim
	Flush
)

// String returns the lower-case name that Error.Op and traces use.
func (k Kind) String() string {
	switch k {
	case Read:
		return "read"
	case Write:
		return "write"
	case Zero:
		return "zero"
	case Trim:
		return "trim"
	}
	return "flush"
}

// Op is one operation for a Queue.
type Op struct {
	Kind  Kind
	Flags Flags
	Off   int64
	// Len in bytes; for Read and Write the sum of the lengths of Vec.
	Len int64
	// Vec holds the buffers of a Read or Write. They belong to the queue until
	// the operation completes.
	Vec [][]byte
	// Buf is 0, or 1 + the index of the registered memory that Vec[0] lies in.
	Buf int
	// Tag comes back in the Completion.
	Tag uint64
}

// Completion reports the end of one operation, or that a watched descriptor
// became readable.
type Completion struct {
	Tag uint64
	Err error
}

// Queue is batched asynchronous I/O with one owner: all methods are called from
// one goroutine, which should be locked to its thread. It allocates nothing per
// operation. Completions come in any order.
type Queue interface {
	// Register hands over memory that later operations use (Op.Buf). It may be
	// called once, before the first Submit.
	Register(mem [][]byte) error
	// WatchFD makes Reap return a completion with tag whenever fd is readable.
	WatchFD(fd int, tag uint64) error
	// Submit starts operations in order and returns how many it took; fewer than
	// len(ops) without an error means busy: Reap, then submit the rest. An op
	// that is invalid completes with an error like any other.
	Submit(ops []Op) (int, error)
	// Reap waits until at least min completions are there (or nothing is in
	// flight or watched) and returns up to len(dst) of them. min 0 polls. A
	// cancelled ctx ends the wait with ctx.Err() and the number got so far.
	Reap(ctx context.Context, min int, dst []Completion) (int, error)
	// Cancel asks that the operation with tag end early; it still completes.
	Cancel(tag uint64)
	// Close waits until no buffer is in use any more and releases the queue.
	Close() error
}

// Queuer is optional: a driver with asynchronous I/O of its own. depth is the
// number of operations that may be in flight (>= 1).
type Queuer interface {
	NewQueue(depth int) (Queue, error)
}
