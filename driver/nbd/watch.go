package nbd

import (
	"context"
	"fmt"
	"sync"

	"github.com/vmdisk/vmdisk/disk"
	"golang.org/x/sys/unix"
)

// watchList waits for readable descriptors, and for wake.
type watchList struct {
	mu     sync.Mutex // guards closed, and event against being closed
	closed bool
	event  int // eventfd that ends a wait
	fds    []unix.PollFd
	tags   []uint64
	// done is the context that ends a wait now, stop forgets it. It is kept from
	// one wait to the next, since registering costs allocations.
	done <-chan struct{}
	stop func() bool
}

func newWatchList() (*watchList, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("create eventfd: %w", err)
	}
	return &watchList{event: fd, tags: make([]uint64, firstWatch),
		fds: []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: -1}}}, nil
}

// Entries of fds before the watched descriptors.
const (
	eventEntry = iota
	pipeEntry  // of the connection; negative: none
	firstWatch
)

// setPipe sets what to wait for on the connection, fd < 0 for nothing.
func (w *watchList) setPipe(fd int, events int16) {
	w.fds[pipeEntry] = unix.PollFd{Fd: int32(fd), Events: events}
}

func (w *watchList) add(fd int, tag uint64) error {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
		return fmt.Errorf("watch file descriptor %d: %w", fd, err)
	}
	w.fds = append(w.fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	w.tags = append(w.tags, tag)
	return nil
}

// pipeReady tells whether the last wait found the connection ready.
func (w *watchList) pipeReady() bool {
	return w.fds[pipeEntry].Fd >= 0 && w.fds[pipeEntry].Revents != 0
}

// wake ends a wait; any goroutine may call it.
func (w *watchList) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	one := [8]byte{1}
	_, _ = unix.Write(w.event, one[:])
}

// ready reports the readable descriptors without waiting.
func (w *watchList) ready(dst []disk.Completion) (n int) {
	if len(w.fds) == firstWatch || !w.poll(0) {
		return 0
	}
	for i := firstWatch; i < len(w.fds) && n < len(dst); i++ {
		if w.fds[i].Revents != 0 {
			dst[n] = disk.Completion{Tag: w.tags[i]}
			n++
		}
	}
	return n
}

// wait returns after wake, or when a descriptor is ready, or with ctx.
func (w *watchList) wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w.follow(ctx)
	if w.poll(-1) && w.fds[eventEntry].Revents != 0 {
		var drain [8]byte
		_, _ = unix.Read(w.event, drain[:])
	}
	return ctx.Err()
}

func (w *watchList) follow(ctx context.Context) {
	if ctx.Done() == w.done {
		return
	}
	if w.stop != nil {
		w.stop()
		w.stop = nil
	}
	if w.done = ctx.Done(); w.done != nil {
		w.stop = context.AfterFunc(ctx, w.wake)
	}
}

func (w *watchList) poll(timeout int) bool {
	for {
		n, err := unix.Poll(w.fds, timeout)
		if err != unix.EINTR {
			return n > 0 && err == nil
		}
	}
}

func (w *watchList) close() error {
	w.follow(context.Background())
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	return unix.Close(w.event)
}
