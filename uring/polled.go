package uring

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// polled is what a ring of NewPolled has beside the ring. The kernel lets such a
// ring do nothing but reads and writes, so descriptors are watched by epoll.
type polled struct {
	inflight int // operations prepared and not yet reaped
	epoll    int
	users    []uint64 // of the watched descriptors; epoll's index 0 is the wake-up
	events   [16]unix.EpollEvent
	seen     []Completion // events of watched descriptors, not yet reaped
}

// NewPolled is New for a ring that polls the device for completions
// (IORING_SETUP_IOPOLL) instead of waiting for its interrupts: whoever waits for
// or reaps an operation keeps a CPU busy until it completes. It takes reads and
// writes of files opened with O_DIRECT, whose file system and device can poll;
// others complete with EOPNOTSUPP, and other operations with EINVAL. Where the
// device has no queues for polling, the kernel polls until the interrupt comes.
func NewPolled(entries int) (*Ring, error) {
	ladder := make([]uint32, len(setupFlags))
	for i, flags := range setupFlags {
		ladder[i] = flags | setupIOPoll
	}
	return newPolled(entries, ladder)
}

func newPolled(entries int, ladder []uint32) (*Ring, error) {
	r, err := newRing(entries, ladder)
	if err != nil {
		return nil, err
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("io_uring: epoll: %w", err)
	}
	r.polled = &polled{epoll: epoll}
	if err := r.arm(r.wakeFD, 0); err != nil {
		r.Close()
		return nil, fmt.Errorf("io_uring: watch the eventfd: %w", err)
	}
	return r, nil
}

// Polling reports whether the ring is a polled one with operations in flight:
// they complete only while it is waited for or reaped.
func (r *Ring) Polling() bool { return r.polled != nil && r.inflight > 0 }

func (p *polled) close() {
	if p != nil {
		_ = unix.Close(p.epoll) // nothing is written back through it
	}
}

// arm watches fd as a multishot poll does: one event each time it becomes readable.
func (p *polled) arm(fd int, index int32) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: index}
	return unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &ev)
}

// watch is Poll of a polled ring; a failure comes back as a completion.
func (p *polled) watch(fd int, user uint64) {
	p.users = append(p.users, user)
	var errno unix.Errno
	if errors.As(p.arm(fd, int32(len(p.users))), &errno) {
		p.seen = append(p.seen, Completion{User: user, Res: -int32(errno), Last: true})
	}
}

// look takes what epoll has to say; timeout is in milliseconds, -1 waits.
func (p *polled) look(timeout int) error {
	n, err := unix.EpollWait(p.epoll, p.events[:], timeout)
	if err == unix.EINTR {
		return nil
	}
	if err != nil {
		return fmt.Errorf("io_uring: epoll: %w", err)
	}
	for _, e := range p.events[:n] {
		if e.Fd > 0 {
			p.seen = append(p.seen, Completion{User: p.users[e.Fd-1], Res: int32(e.Events)})
		}
	}
	return nil
}

func (r *Ring) waitPolled(n int) error {
	if len(r.seen) > 0 {
		return r.Submit()
	}
	if r.inflight == 0 {
		return r.look(-1)
	}
	return r.enter(uint32(min(n, r.inflight)), enterGetEvents, n == 0 && r.bulk <= rawBulk)
}

// reapPolled asks the device once when no completion is there.
func (r *Ring) reapPolled(dst []Completion) (int, error) {
	n := r.take(dst)
	if n > 0 || len(dst) == 0 {
		return n, nil
	}
	if r.inflight > 0 {
		if err := r.enter(0, enterGetEvents, r.bulk <= rawBulk); err != nil {
			return 0, err
		}
		n = r.take(dst)
	}
	if len(r.users) > 0 && len(r.seen) == 0 {
		if err := r.look(0); err != nil {
			return n, err
		}
	}
	k := copy(dst[n:], r.seen)
	r.seen = r.seen[:copy(r.seen, r.seen[k:])]
	return n + k, nil
}
