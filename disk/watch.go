package disk

import (
	"fmt"
	"sync"
	"syscall"
)

// watcher turns readable file descriptors into completions, for the queues that
// have no ring to arm. Its goroutine ends with close.
type watcher struct {
	epoll      int
	stopR      int
	stopW      int
	mu         sync.Mutex
	tags       []uint64
	out        chan<- Completion
	quit, done chan struct{}
}

const stopIndex = -1

func newWatcher(out chan<- Completion) (*watcher, error) {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll instance: %w", err)
	}
	var pipe [2]int
	if err := syscall.Pipe2(pipe[:], syscall.O_CLOEXEC); err != nil {
		syscall.Close(epoll)
		return nil, fmt.Errorf("create pipe: %w", err)
	}
	w := &watcher{epoll: epoll, stopR: pipe[0], stopW: pipe[1], out: out,
		quit: make(chan struct{}), done: make(chan struct{})}
	if err := w.arm(w.stopR, stopIndex); err != nil {
		w.closeFDs()
		return nil, err
	}
	go w.loop()
	return w, nil
}

func (w *watcher) arm(fd int, index int32) error {
	// Edge-triggered: one completion each time the descriptor becomes readable,
	// as a multishot poll in a ring behaves.
	ev := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLET&0xffffffff, Fd: index}
	if err := syscall.EpollCtl(w.epoll, syscall.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("watch file descriptor %d: %w", fd, err)
	}
	return nil
}

func (w *watcher) watch(fd int, tag uint64) error {
	w.mu.Lock()
	w.tags = append(w.tags, tag)
	index := int32(len(w.tags) - 1)
	w.mu.Unlock()
	return w.arm(fd, index)
}

func (w *watcher) loop() {
	defer close(w.done)
	var events [16]syscall.EpollEvent
	for {
		n, err := syscall.EpollWait(w.epoll, events[:], -1)
		if err != nil && err != syscall.EINTR {
			return
		}
		for _, ev := range events[:max(n, 0)] {
			if ev.Fd == stopIndex {
				return
			}
			w.mu.Lock()
			tag := w.tags[ev.Fd]
			w.mu.Unlock()
			select {
			case w.out <- Completion{Tag: tag}:
			case <-w.quit:
				return
			}
		}
	}
}

func (w *watcher) close() {
	close(w.quit)
	_, _ = syscall.Write(w.stopW, []byte{0}) // an empty pipe takes it
	<-w.done
	w.closeFDs()
}

func (w *watcher) closeFDs() {
	for _, fd := range []int{w.epoll, w.stopR, w.stopW} {
		syscall.Close(fd)
	}
}
