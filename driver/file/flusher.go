package file

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// flusher makes sure that a lost write is told to everybody. When the kernel
// cannot write a page back, it says so once to each open file description: to
// whichever call on it syncs next. Measured: after a failed RWF_DSYNC write
// fdatasync succeeds, and of eight fdatasync at one time one fails. So flushes
// have a description that nothing else uses, go one by one, and their first error
// stays. Those that come while one is under way share the next one, and are woken at
// once: thousands that took turns at a lock kept the processors from everybody else.
type flusher struct {
	fd   int
	mu   sync.Mutex
	now  *fdatasync // under way
	next *fdatasync // will begin after now
	idle *fdatasync // to be used again: a flush that nobody shares allocates nothing
	err  error
	call func(fd int) error // for tests; nil: fdatasync
}

// fdatasync is one of them, for all who asked before it began.
type fdatasync struct {
	done   chan struct{} // nil while nobody waits for it
	shared int           // who asked, under the flusher's mu
	err    error
}

// open gives the flusher a description of the file behind fd.
func (f *flusher) open(fd int) (err error) {
	f.fd, err = openFD(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_CLOEXEC)
	return err
}

// sync makes completed writes durable. Who only waits for what another does is let
// go when ctx ends.
func (f *flusher) sync(ctx context.Context) error {
	mine, before, first := f.ask()
	if first {
		if before != nil {
			<-before.done
		}
		return f.run(mine)
	}
	select {
	case <-mine.done:
		return mine.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ask joins the next fdatasync. The first one runs it, after the one before.
func (f *flusher) ask() (mine, before *fdatasync, first bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.next == nil {
		first, before = true, f.now
		f.next, f.idle = f.idle, nil
		if f.next == nil {
			f.next = new(fdatasync)
		}
		if before != nil {
			before.await()
		}
	} else {
		f.next.await()
	}
	f.next.shared++
	return f.next, before, first
}

// await makes the channel that somebody is going to wait at.
func (s *fdatasync) await() {
	if s.done == nil {
		s.done = make(chan struct{})
	}
}

func (f *flusher) run(mine *fdatasync) error {
	f.mu.Lock()
	f.now, f.next = mine, nil // who asks from now on is not covered
	err := f.err
	f.mu.Unlock()
	if err == nil {
		err = f.store()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err, mine.err, f.now = err, err, nil
	if mine.done != nil {
		close(mine.done)
	} else {
		*mine = fdatasync{}
		f.idle = mine // nobody else has it
	}
	return err
}

func (f *flusher) store() error {
	call := unix.Fdatasync
	if f.call != nil {
		call = f.call
	}
	for {
		if err := call(f.fd); err != unix.EINTR {
			return err
		}
	}
}
