package server

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/nbd"
)

// A client that loses its connection connects again and repeats what was not
// acknowledged, and goes on. A write of its old connection that lands after that
// destroys what was acknowledged on the new one, so a new connection is not served
// before those that were there before it, and whose clients are known to have left,
// have come to their end: with all that they still had to do on the same disk. (What the
// server cannot know is that a client has left whose host or network died without a
// word; then nobody but the client can tell its two connections apart.)

// lateWarning is after how long of such a wait somebody is told.
const lateWarning = 10 * time.Second

// awaitLeft waits for the connections of clients that left.
func (c *conn) awaitLeft() {
	if c.flags&nbd.FlagReadOnly != 0 {
		return
	}
	for _, done := range c.s.leftBefore(c) {
		select {
		case <-done:
			continue
		case <-c.ctx.Done():
			return
		case <-time.After(lateWarning):
			c.s.log.Warn("a new client waits for requests of one that left", "export", c.exp.Name, "client", c.peer)
		}
		select {
		case <-done:
		case <-c.ctx.Done():
			return
		}
	}
}

// leftBefore lists the ends of older connections to the same disk whose clients send
// no more. Each waits for older ones only, so there is no circle.
func (s *Server) leftBefore(c *conn) (ends []chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sockets []*conn
	for o := range s.conns {
		switch {
		case o.seq >= c.seq || o.exp.Disk != c.exp.Disk:
		case o.socket != nil:
			sockets = append(sockets, o)
		case o.t.left():
			ends = append(ends, o.done)
		}
	}
	return append(ends, leftOf(sockets)...)
}

// leftOf asks for all at once: a call for each of a thousand connections, with the
// server's lock held, kept all newcomers waiting.
func leftOf(sockets []*conn) (ends []chan struct{}) {
	fds := make([]unix.PollFd, len(sockets))
	for i, o := range sockets {
		fds[i] = unix.PollFd{Fd: int32(o.socket.fd), Events: unix.POLLRDHUP}
	}
	_, err := unix.Poll(fds, 0)
	for i, o := range sockets {
		if fds[i].Revents != 0 || err != nil && o.t.left() {
			ends = append(ends, o.done)
		}
	}
	return ends
}

// left reports whether the peer of fd has closed at least its sending half.
func left(fd int) bool {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	_, _ = unix.Poll(fds[:], 0)
	return fds[0].Revents != 0
}

func (k *socket) left() bool { return left(k.fd) }

func (t *stream) left() bool {
	sc, ok := t.wire().(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	gone := true // closed already
	_ = raw.Control(func(fd uintptr) { gone = left(int(fd)) })
	return gone
}
