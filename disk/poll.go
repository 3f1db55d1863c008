package disk

import (
	"errors"
	"fmt"
)

// Polling says how the queue of a PollQueuer polls for completions.
type Polling struct {
	// Calls: each read and write is a system call of its own inside Submit, which
	// asks the kernel to poll (RWF_HIPRI). Otherwise operations are in flight
	// together, and Reap polls for them.
	Calls bool
	// Percent of the calls that ask for polling, 1 to 100; it is 100 without Calls.
	Percent int
	// Refused, if not nil, is called once from inside Submit or Reap when the
	// kernel refuses to poll; the queue goes on without.
	Refused func(error)
}

var errPercent = errors.New("the share of polled operations is not between 1 and 100 %, or not 100 % of a queue that polls for all")

func (p *Polling) check() error {
	if p.Percent < 1 || p.Percent > 100 || !p.Calls && p.Percent != 100 {
		return fmt.Errorf("%w: %d", errPercent, p.Percent)
	}
	return nil
}

// PollQueuer is optional: a driver whose queues can poll the device for
// completions instead of waiting for its interrupts. Whoever waits for such a
// queue keeps a CPU busy, and a cancelled context ends the wait only where
// nothing is in flight, or with the next completion. Where the disk cannot be
// polled the answer is errors.ErrUnsupported.
type PollQueuer interface {
	NewPollQueue(depth int, p Polling) (Queue, error)
}

// NewPollQueue is NewQueue for a queue that polls, which only a disk without
// filters over it has; on others it fails with errors.ErrUnsupported.
func (d *Disk) NewPollQueue(depth int, p Polling) (Queue, error) {
	if err := errors.Join(checkDepth(depth), p.check()); err != nil {
		return nil, d.wrap("queue", -1, 0, err)
	}
	drv, ok := d.drv.(PollQueuer)
	if !ok || d.trace != nil {
		return nil, d.wrap("queue", -1, 0, fmt.Errorf("only files and devices are polled, without filters: %w", errors.ErrUnsupported))
	}
	q, err := drv.NewPollQueue(depth, p)
	if err != nil {
		return nil, d.wrap("queue", -1, 0, err)
	}
	return newCheckedQueue(d, q, depth), nil
}
