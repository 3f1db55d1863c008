package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vmdisk/vmdisk/nbd"
	"golang.org/x/sys/unix"
)

// Pipe is a connection of the session that one owner sends and receives on
// without other goroutines in between, and waits for by its descriptor. A round
// trip costs two system calls less and no switch between threads. All methods
// belong to the owner, who calls Receive whenever the descriptor is ready.
//
// Requests of a Pipe complete in Start, Receive and Close, or in whatever ends
// the session.
type Pipe struct {
	c     *conn
	fd    int
	src   *pollSource
	mu    sync.Mutex // held while the socket or a request's memory is used
	shut  sync.Mutex // guards closing fd
	batch []*Request // being sent
	vec   [][]byte   // what is left of it
}

// Pipe takes a connection out of the session's. It returns nil if there is no
// idle one besides the last, or no plain socket.
func (c *Client) Pipe() *Pipe {
	c.taking.Lock()
	defer c.taking.Unlock()
	shared := *c.shared.Load()
	for i := len(shared) - 1; i > 0; i-- {
		conn := shared[i]
		if conn.out.raw == nil || !conn.take() {
			continue
		}
		rest := slices.Delete(slices.Clone(shared), i, i+1)
		c.shared.Store(&rest)
		p := &Pipe{c: conn, fd: -1}
		if conn.settle(p) {
			return p
		}
	}
	return nil
}

// take keeps requests off an idle connection and makes its receiver stop.
func (c *conn) take() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.flushing || c.load.Load() != 0 {
		return false
	}
	c.taken = true
	return c.nc.SetReadDeadline(time.Unix(1, 0)) == nil
}

// handOver reports whether the receiver stops to give the connection to a Pipe.
func (c *conn) handOver() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.taken && c.err == nil
}

// settle gives the connection to p once the receiver has stopped.
func (c *conn) settle(p *Pipe) bool {
	<-c.done
	_ = c.nc.SetReadDeadline(time.Time{})
	c.mu.Lock()
	defer c.mu.Unlock()
	// The runtime's poller would wake a thread for whatever arrives on a
	// descriptor that it knows: a third of all CPU at depth 1. It does not know
	// this copy.
	fd, err := dup(c.out.raw)
	_ = c.nc.Close()
	if err != nil {
		return false
	}
	if c.err != nil {
		_ = unix.Close(fd)
		return false
	}
	p.fd = fd
	p.src = &pollSource{fd: p.fd, pulse: &c.pulse}
	c.in.src = p.src
	c.pipe = p
	return true
}

func dup(raw syscall.RawConn) (fd int, err error) {
	if e := raw.Control(func(orig uintptr) {
		fd, err = unix.FcntlInt(orig, unix.F_DUPFD_CLOEXEC, 0)
	}); e != nil {
		return -1, e
	}
	return fd, err
}

// shutdown ends the connection and so wakes the owner, who closes it.
func (p *Pipe) shutdown() {
	p.shut.Lock()
	defer p.shut.Unlock()
	if p.fd >= 0 {
		_ = unix.Shutdown(p.fd, unix.SHUT_RDWR)
	}
}

// Start sends requests, as far as the socket takes them; Receive goes on with
// the rest. Requests that send from a file are refused.
func (p *Pipe) Start(rs ...*Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range rs {
		r.reset()
		err := p.c.client.check(r)
		if err == nil && r.File != nil {
			err = errNotOffered
		}
		if err == nil {
			r.conn = p.c
			err = p.c.enqueue(r, true)
		}
		if err != nil {
			r.Owner.Complete(r, err)
		}
	}
	_ = p.check(p.send()) // the requests tell
}

// Events is the descriptor to wait for and for what (POLLIN, POLLOUT).
func (p *Pipe) Events() (fd int, events int16) {
	if len(p.vec) > 0 {
		return p.fd, unix.POLLIN | unix.POLLOUT
	}
	return p.fd, unix.POLLIN
}

// Receive handles what has arrived and sends what is left, without waiting;
// except that a reply that has begun is waited for until ctx ends, and then
// CancelGrace. An error means that the session has ended and all requests of the
// Pipe have completed.
func (p *Pipe) Receive(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.src.ctx = ctx
	err := p.receive()
	p.src.ctx = nil
	if err == nil {
		err = p.send()
	}
	return p.check(err)
}

// check ends the session at an error.
func (p *Pipe) check(err error) error {
	if err == nil {
		return nil
	}
	p.c.fail(err)
	p.drain()
	return err
}

// drain completes all requests once the connection has ended; p.mu is held.
func (p *Pipe) drain() {
	p.vec, p.batch = nil, nil
	p.c.drain()
}

func (p *Pipe) receive() error {
	in := &p.c.in
	for {
		if len(in.buffered()) == 0 {
			got, err := in.tryMore(p.src)
			if err != nil {
				return fmt.Errorf("receive: %w", err)
			}
			if !got {
				return nil
			}
		}
		if err := p.c.reply(); err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if len(in.buffered()) == 0 && p.src.short {
			return nil
		}
	}
}

// tryMore buffers what there is; false if nothing.
func (s *stream) tryMore(src *pollSource) (bool, error) {
	s.r, s.w = 0, 0
	n, err := src.try(nil, s.buf[:s.ahead])
	s.w = n
	if err == unix.EAGAIN {
		return false, nil
	}
	return err == nil, err
}

// send sends what is pending until the socket takes no more.
func (p *Pipe) send() error {
	for {
		stuck := len(p.vec) > 0
		if !stuck {
			p.sent()
			if !p.next() {
				return nil
			}
		}
		var moved bool
		var err error
		if p.vec, moved, err = writev(p.fd, p.vec); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		if stuck && moved {
			p.c.pulse.Add(1)
		}
		if len(p.vec) > 0 {
			return nil
		}
	}
}

// next makes the pending requests the batch to be sent; false if there are none.
func (p *Pipe) next() bool {
	c := p.c
	c.mu.Lock()
	if len(c.pending) == 0 || c.err != nil {
		c.mu.Unlock()
		return false
	}
	p.batch, c.pending = c.pending, p.batch[:0]
	for _, r := range p.batch {
		r.state = sending
	}
	c.mu.Unlock()
	p.vec = c.out.gather(p.batch)
	return true
}

// sent lets go of a batch that was sent whole.
func (p *Pipe) sent() {
	if len(p.batch) == 0 {
		return
	}
	c := p.c
	c.mu.Lock()
	c.markSent(p.batch)
	p.batch = p.batch[:0]
	c.mu.Unlock()
	c.completeLate()
}

// Close cancels what is in flight, says goodbye to the server and closes the
// connection. The session keeps going on its others.
func (p *Pipe) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.c
	c.mu.Lock()
	clean := c.err == nil && c.load.Load() == 0
	if clean {
		c.err = ErrClosed
	}
	c.mu.Unlock()
	if clean {
		_, _ = unix.Write(p.fd, (&Request{Command: nbd.CmdDisconnect}).appendHeader(nil, c.mode))
	} else {
		c.fail(errors.New("closed with requests in flight"))
		p.drain()
	}
	p.shut.Lock()
	defer p.shut.Unlock()
	err := unix.Close(p.fd)
	p.fd = -1
	return err
}

// pollSource reads from a socket and waits for it by poll.
type pollSource struct {
	fd    int
	vec   [2][]byte
	short bool // the last read emptied the socket
	ctx   context.Context
	pulse *atomic.Uint64
}

// try reads what there is, or fails with EAGAIN.
func (s *pollSource) try(dst, spare []byte) (int, error) {
	s.vec = [2][]byte{dst, spare}
	defer func() { s.vec = [2][]byte{} }()
	for {
		n, err := unix.Readv(s.fd, s.vec[:])
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			s.short = true
			return 0, err
		case err != nil:
			return 0, os.NewSyscallError("readv", err)
		case n == 0:
			return 0, io.ErrUnexpectedEOF
		}
		s.short = n < len(dst)+len(spare)
		s.pulse.Add(1)
		return n, nil
	}
}

// stallCheck is how often a wait for the rest of a reply looks at the context.
const stallCheck = 100 * time.Millisecond

func (s *pollSource) read(dst, spare []byte) (int, error) {
	var stop time.Time
	for {
		n, err := s.try(dst, spare)
		if err != unix.EAGAIN {
			return n, err
		}
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, int(stallCheck.Milliseconds()))
		if err != nil && err != unix.EINTR {
			return 0, os.NewSyscallError("poll", err)
		}
		if ready > 0 || s.ctx == nil || s.ctx.Err() == nil {
			continue
		}
		if stop.IsZero() {
			stop = time.Now().Add(CancelGrace)
		} else if time.Now().After(stop) {
			return 0, errStalled
		}
	}
}
