package engine

import (
	"context"
	"errors"

	"github.com/vmdisk/vmdisk/disk"
)

// nothing is the queue of ioengine=null where no disk was named: every operation is
// done when it is submitted, and no buffer is touched, as in fio. (The disk null:SIZE
// must return zeros, and clearing 4 KiB costs a quarter of what an I/O costs there.)
// It has the I/O of one thread, one at a time.
type nothing struct{ done []disk.Completion }

func (q *nothing) Register([][]byte) error { return nil }

func (q *nothing) Submit(ops []disk.Op) (int, error) {
	for i := range ops {
		q.done = append(q.done, disk.Completion{Tag: ops[i].Tag})
	}
	return len(ops), nil
}

func (q *nothing) Reap(_ context.Context, _ int, dst []disk.Completion) (int, error) {
	n := copy(dst, q.done)
	q.done = q.done[:copy(q.done, q.done[n:])]
	return n, nil
}

// WatchFD is not needed: nothing is ever in flight while a job waits.
func (q *nothing) WatchFD(int, uint64) error { return errors.ErrUnsupported }

func (q *nothing) Cancel(uint64) {}

func (q *nothing) Close() error { return nil }
