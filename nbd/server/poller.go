package server

import (
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// poller waits for the plain sockets. Its goroutines wait in epoll_wait and
// serve the connection of the event they got; each event is delivered once
// (EPOLLONESHOT), and the connection is armed again when it is idle. The kernel
// spreads events over the waiting goroutines, so that connections are served in
// parallel and a busy one cannot keep others waiting: whoever may block sees to
// it first that somebody waits.
//
// Somebody always hears the idle connections, because of four rules. waiting
// counts goroutines that are in epoll_wait or on their way from having been
// counted to there, and nobody else.
//
//  1. Who got an event uncounts itself before it serves (busy), and nobody else does.
//  2. Who has served ends only if it saw, by one load, that another is counted
//     (stay); else it counts itself, by a compare-and-swap of what it saw.
//  3. Who may block while it serves sees first that another is counted, or starts
//     one that is (ensureWaiter).
//  4. add does as 3 for the first connection.
//
// So when waiting falls to 0, it does by rule 1, through one goroutine G. Until it
// rises again, G is serving and has not blocked (rule 3 would have raised it), and has
// not ended (rule 2 would have seen 0 and counted G). G therefore comes to its end
// or to where it may block, and waiting rises. At any time, somebody waits or somebody
// who does not block will.
//
// (Rule 2 was two steps, waiting.Add(1) > keep and then waiting.Add(-1). Between
// them the last real waiter could get an event, serve it, take the leaver for a
// waiter, and leave too: all idle connections then hung until somebody connected.)
//
// What blocks against all expectation, such as an inline write that the kernel
// throttles or a log that nobody reads, is found by the guard.
type poller struct {
	s       *Server
	epfd    int
	wake    int // an eventfd: readable once the poller is closed
	keep    int32
	waiting atomic.Int32
	guard   guard
	mu      sync.Mutex
	conns   map[int32]*conn
	closed  bool
	wg      sync.WaitGroup
	between func() // for tests: what happens between the two steps of stay
}

func newPoller(s *Server) (*poller, error) {
	p := &poller{s: s, conns: map[int32]*conn{}, keep: waiters()}
	var err error
	if p.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("nbd server: epoll: %w", err)
	}
	if p.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
		err = unix.EpollCtl(p.epfd, unix.EPOLL_CTL_ADD, p.wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(p.wake)})
	}
	if err != nil {
		unix.Close(p.epfd)
		return nil, fmt.Errorf("nbd server: epoll: %w", err)
	}
	p.guard.kick, p.guard.end = make(chan struct{}, 1), make(chan struct{})
	p.wg.Add(1)
	go p.watch()
	return p, nil
}

// add makes the poller responsible for a connection, which is idle from now on.
func (p *poller) add(c *conn, fd int) error {
	p.mu.Lock()
	p.conns[int32(fd)] = c
	p.mu.Unlock()
	p.ensureWaiter()
	return p.ctl(unix.EPOLL_CTL_ADD, fd)
}

// arm asks for one event on an idle connection.
func (p *poller) arm(fd int) error { return p.ctl(unix.EPOLL_CTL_MOD, fd) }

func (p *poller) ctl(op, fd int) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(fd)}
	return unix.EpollCtl(p.epfd, op, fd, &ev)
}

// remove ends the responsibility; the caller closes fd afterwards.
func (p *poller) remove(fd int) {
	p.mu.Lock()
	delete(p.conns, int32(fd))
	p.mu.Unlock()
	_ = unix.EpollCtl(p.epfd, unix.EPOLL_CTL_DEL, fd, nil)
}

// ensureWaiter is called before something that may block.
func (p *poller) ensureWaiter() {
	if p.waiting.Load() > 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.waiting.Load() > 0 {
		return
	}
	p.waiting.Add(1)
	p.wg.Add(1)
	go p.loop()
}

// loop serves events until enough others wait. It begins and ends counted as waiting.
func (p *poller) loop() {
	defer p.wg.Done()
	var events [1]unix.EpollEvent
	for {
		n, err := unix.EpollWait(p.epfd, events[:], -1)
		if n > 0 && events[0].Fd == int32(p.wake) || err != nil && err != unix.EINTR {
			p.waiting.Add(-1)
			return
		}
		if n <= 0 {
			continue
		}
		p.mu.Lock()
		c := p.conns[events[0].Fd]
		p.mu.Unlock()
		if c == nil || !c.claim() {
			continue
		}
		p.busy()
		c.run()
		if !p.stay() {
			return
		}
	}
}

// busy uncounts the caller, who got an event.
func (p *poller) busy() {
	if p.waiting.Add(-1) == 0 {
		p.guard.alone()
	}
}

// stay counts the caller as waiting again, unless enough others do.
func (p *poller) stay() bool {
	for {
		n := p.waiting.Load()
		if p.between != nil {
			p.between()
		}
		if n >= p.keep {
			return false
		}
		if p.waiting.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// close ends the goroutines; no connection is left.
func (p *poller) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	close(p.guard.end)
	_, _ = unix.Write(p.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	p.wg.Wait()
	unix.Close(p.wake)
	unix.Close(p.epfd)
}
