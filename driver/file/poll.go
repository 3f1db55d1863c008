package file

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/uring"
)

// NewPollQueue returns a queue that polls the device for completions: of a ring
// set up for it (IORING_SETUP_IOPOLL), or by calls with RWF_HIPRI, which Linux
// accepts for any file and from 5.19 on ignores. A ring needs a cache mode past the
// page cache, and a file system and device that can be polled: where the kernel
// refuses an operation, workers do what is in flight, and an ordinary ring all that
// follows. From 6.14 on it refuses where the device has no queues for polling; before,
// it polled until the interrupt came. Writes that a file system has to follow up (ext4)
// are accepted and wait for the interrupt.
//
// Flushes, zeroes, trims and what O_DIRECT does not take go to workers.
func (f *File) NewPollQueue(depth int, p disk.Polling) (disk.Queue, error) {
	newRing := uring.NewPolled
	if p.Calls {
		newRing = uring.New
	}
	if err := f.pollable(p.Calls); err != nil {
		return nil, err
	}
	q, err := newRingQueue(f, depth, newRing)
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", err, errors.ErrUnsupported)
	}
	q.polls = &polls{Polling: p}
	return q, nil
}

// pollable says why a queue cannot poll, in an error that is errors.ErrUnsupported.
func (f *File) pollable(calls bool) error {
	switch {
	case f.opts.AIO == Threads:
		return fmt.Errorf("threads that block in system calls (AIO mode threads) do not poll: %w", errors.ErrUnsupported)
	case calls:
		return nil
	case !f.opts.Cache.direct():
		return fmt.Errorf("only I/O past the page cache (cache mode none or directsync) can be polled: %w", errors.ErrUnsupported)
	case f.inMemory:
		return fmt.Errorf("the file lies in memory: %w", unix.EOPNOTSUPP)
	}
	return nil
}

// polls is the polling of a queue. A nil one polls for nothing.
type polls struct {
	disk.Polling
	refused bool
	alone   bool // refused, and no other ring is to be had: workers do everything
}

// giveUp reports whether a polled ring has been refused: whatever it was given
// would be refused, too.
func (p *polls) giveUp() bool { return p != nil && p.refused && !p.Calls }

// endPolling puts an ordinary ring in the place of a polled one that was refused;
// false means that first everything in flight must complete.
func (q *ringQueue) endPolling() (ready bool, err error) {
	if !q.polls.giveUp() || q.polls.alone {
		return true, nil
	}
	if q.inflight() > 0 {
		return false, nil
	}
	ring, err := uring.New(ringEntries(len(q.slots)))
	if err != nil {
		q.polls.alone = true
		return true, nil
	}
	q.disarm()
	q.ring.Close()
	q.use(ring)
	q.fixed = q.mem != nil && ring.RegisterBuffers(q.mem) == nil
	q.polls = nil
	for i := range q.watches {
		err = errors.Join(err, q.arm(i))
	}
	return true, err
}

// answered looks whether an operation failed because it was polled. FUA is a flag
// that a file system may not know either.
func (p *polls) answered(s *slot, err error) {
	if p == nil || p.refused || err != unix.EOPNOTSUPP || s.Flags&disk.FUA != 0 {
		return
	}
	p.refused = true
	if p.Refused != nil {
		p.Refused(fmt.Errorf("its file system or device refuses polled %ss: %w", s.Kind, err))
	}
}

// called does a read or write by a system call that may poll, if the queue is one
// of such calls.
func (q *ringQueue) called(s *slot) bool {
	p := q.polls
	if p == nil || !p.Calls || p.refused || s.Kind != disk.Read && s.Kind != disk.Write || !q.suits(s) {
		return false
	}
	rwf := 0
	if p.Percent == 100 || rand.IntN(100) < p.Percent {
		rwf = unix.RWF_HIPRI
	}
	n, err := q.f.polledCall(s, rwf)
	if err != nil || int64(n) != s.Len {
		p.answered(s, err)
		s.err = q.f.perform(&s.ctx, &s.Op) // it finishes the rest, or tells what is wrong
	}
	return true
}

func (f *File) polledCall(s *slot, rwf int) (int, error) {
	single := len(s.Vec) == 1
	switch {
	case s.Kind == disk.Read && single:
		return uring.Pread2(f.fd, s.Vec[0], s.Off, rwf)
	case s.Kind == disk.Read:
		return unix.Preadv2(f.fd, s.Vec, s.Off, rwf)
	case single:
		return uring.Pwrite2(f.fd, s.Vec[0], s.Off, rwf|f.rwf(s.Flags))
	}
	return unix.Pwritev2(f.fd, s.Vec, s.Off, rwf|f.rwf(s.Flags))
}

var _ disk.PollQueuer = (*File)(nil)
