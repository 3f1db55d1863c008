package server

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/uring"
)

// errIdle: the client has sent nothing more for now.
var errIdle = errors.New("idle")

// transport is a connection's byte stream. receive and fill have one user at a
// time, as have send and sendFile.
type transport interface {
	// receive reads what there is into p. It may wait a few milliseconds, and
	// fails with errIdle when nothing came, with io.EOF at the end.
	receive(p []byte) (int, error)
	// fill reads until p holds at least need bytes, for as long as it takes.
	fill(p []byte, need int) (int, error)
	// send writes all of p.
	send(p []byte) error
	// shut makes all calls fail, now and later.
	shut()
	// gone reports whether the peer is known to receive no more.
	gone() bool
	// left reports whether the peer is known to send no more.
	left() bool
	// close releases the connection; gently lets the peer receive what was sent
	// even if it still sends.
	close(gently bool)
}

// How long calls wait in the kernel, so that a thread is not tied up and the
// end of the server is noticed. Socket timeouts have the granularity of the
// kernel's timer tick, up to 10 ms.
const (
	hotWait  = 4 * time.Millisecond
	sendWait = 50 * time.Millisecond
	longWait = 250 // poll's milliseconds
	lingerly = 500 * time.Millisecond
)

// A goroutine that waits in the kernel, in recv or in epoll_wait, keeps its
// scheduler slot (P) until the scheduler takes it away, which it does late. So
// the two kinds of waiting share the slots, and where there are enough one is
// left for those that have work.

// waiters is how many goroutines wait in epoll_wait for new work.
func waiters() int32 { return max(1, int32(runtime.GOMAXPROCS(0))/4) }

// hotSlots is how many goroutines wait in recv for a connection's next request.
func hotSlots() int32 {
	procs := int32(runtime.GOMAXPROCS(0))
	return max(min(procs-1, 1), procs-waiters()-1)
}

// RecommendedProcs is a good runtime.GOMAXPROCS for a process that mainly
// serves, for its main function to set: with more slots than a small host has
// processors, each of several busy connections has a thread that waits for its
// next request in the kernel. On 2 processors, 8 slots instead of 2 gave 4
// connections at depth 1 1.7 times the requests at less processor time for each.
func RecommendedProcs() int { return max(8, runtime.GOMAXPROCS(0)) }

// sendBuffer is asked for on unix sockets; the kernel cuts it to
// net.core.wmem_max and doubles it. TCP finds its own.
const sendBuffer = 1 << 20

// socket is a connection whose file descriptor we own. It is in blocking mode
// with timeouts and unknown to Go's network poller: at one request at a time the
// poller costs as much as the request (every arrival wakes its thread, which
// then wakes another), a thread that waits in recv is woken by the kernel alone.
type socket struct {
	fd    int
	unix  bool
	stall stall
}

// stall is told when a transport waits for its peer for long.
type stall interface {
	begin() // may be called again and again
	progress(n int)
	end()
}

// newSocket takes the descriptor out of nc and closes nc. It fails with
// errors.ErrUnsupported where nc is not a plain socket.
func newSocket(nc net.Conn, s stall) (*socket, error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	switch nc.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return nil, errors.ErrUnsupported
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	if cerr := raw.Control(func(old uintptr) {
		fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3)
	}); cerr != nil {
		return nil, cerr
	}
	if err != nil {
		return nil, fmt.Errorf("duplicate the connection's descriptor: %w", err)
	}
	nc.Close()
	_, isUnix := nc.(*net.UnixConn)
	k := &socket{fd: fd, unix: isUnix, stall: s}
	if err := k.configure(); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return k, nil
}

func (k *socket) configure() error {
	if err := unix.SetNonblock(k.fd, false); err != nil {
		return fmt.Errorf("set the connection to blocking mode: %w", err)
	}
	if k.unix {
		_ = unix.SetsockoptInt(k.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
	}
	for opt, d := range map[int]time.Duration{unix.SO_RCVTIMEO: hotWait, unix.SO_SNDTIMEO: sendWait} {
		tv := unix.NsecToTimeval(d.Nanoseconds())
		if err := unix.SetsockoptTimeval(k.fd, unix.SOL_SOCKET, opt, &tv); err != nil {
			return fmt.Errorf("set the connection's timeouts: %w", err)
		}
	}
	return nil
}

func (k *socket) receive(p []byte) (int, error) {
	for {
		n, err := unix.Read(k.fd, p)
		switch {
		case n > 0:
			return n, nil
		case err == nil:
			return 0, io.EOF
		case err == unix.EAGAIN:
			return 0, errIdle
		case err != unix.EINTR:
			return 0, fmt.Errorf("receive: %w", err)
		}
	}
}

func (k *socket) fill(p []byte, need int) (int, error) {
	defer k.stall.end()
	have := 0
	if k.unix {
		have = k.soon(p, need)
	}
	for have < need {
		n, err := k.receive(p[have:])
		if have += n; n > 0 {
			k.stall.progress(n)
		}
		if err == errIdle {
			k.stall.begin()
			k.poll(unix.POLLIN, longWait)
			continue
		}
		if err == io.EOF {
			return have, io.ErrUnexpectedEOF
		}
		if err != nil {
			return have, err
		}
	}
	return have, nil
}

// soonTries is about a microsecond's worth of calls.
const soonTries = 4

// soon receives what is there or comes at once, without sleep: a client of a unix
// socket that sends a request's header and its payload by two calls is just at the
// second one, and would have to wake us up. At depth 1 that took 8 % off the processor
// time of both ends for each 4 KiB written, and as much off the time.
func (k *socket) soon(p []byte, need int) (have int) {
	for i := 0; i < soonTries && have < need; i++ {
		n, err := uring.RecvNow(k.fd, p[have:])
		if err != nil {
			continue
		}
		have += n
		if n == 0 {
			break // fill tells the end of the stream
		}
	}
	return have
}

func (k *socket) poll(events int16, ms int) int16 {
	fds := [1]unix.PollFd{{Fd: int32(k.fd), Events: events}}
	_, _ = unix.Poll(fds[:], ms)
	return fds[0].Revents
}

func (k *socket) send(p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(k.fd, p)
		if n > 0 {
			k.stall.progress(n)
			p = p[n:]
		}
		if err := k.waited(err); err != nil {
			return err
		}
	}
	k.stall.end()
	return nil
}

// waited turns a timeout of a send into patience.
func (k *socket) waited(err error) error {
	switch err {
	case nil, unix.EINTR:
	case unix.EAGAIN:
		k.stall.begin()
	default:
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// sendFile sends a range of a file, and reports how many bytes left: fewer than
// r.Len when the file turned out shorter or could not be read.
func (k *socket) sendFile(r disk.FileRange) (int64, error) {
	sent, off := int64(0), r.Off
	for sent < r.Len {
		n, err := unix.Sendfile(k.fd, r.FD, &off, int(r.Len-sent))
		if n > 0 {
			k.stall.progress(n)
			sent += int64(n)
			continue
		}
		if err == nil {
			return sent, io.ErrUnexpectedEOF
		}
		if err := k.waited(err); err != nil {
			return sent, err
		}
	}
	k.stall.end()
	return sent, nil
}

// cork keeps TCP from sending a packet for a header alone.
func (k *socket) cork(on bool) {
	if k.unix {
		return
	}
	v := 0
	if on {
		v = 1
	}
	_ = unix.SetsockoptInt(k.fd, unix.IPPROTO_TCP, unix.TCP_CORK, v)
}

func (k *socket) shut() { _ = unix.Shutdown(k.fd, unix.SHUT_RDWR) }

func (k *socket) gone() bool { return k.poll(0, 0)&(unix.POLLHUP|unix.POLLERR) != 0 }

// A TCP socket that is closed while data waits in it resets the connection, and
// what was sent last may be lost.
func (k *socket) close(gently bool) {
	if gently && !k.unix {
		_ = unix.Shutdown(k.fd, unix.SHUT_WR)
		var junk [512]byte
		for end := time.Now().Add(lingerly); k.poll(unix.POLLIN, 0) != 0 && time.Now().Before(end); {
			if _, err := k.receive(junk[:]); err != nil {
				break
			}
		}
	}
	unix.Close(k.fd)
}

// stream is a connection that only net.Conn describes, such as TLS.
type stream struct {
	conn  net.Conn
	stall stall
	late  *time.Timer // tells the stall
}

func (t *stream) receive(p []byte) (int, error) {
	_ = t.conn.SetReadDeadline(time.Now().Add(hotWait))
	n, err := t.conn.Read(p)
	_ = t.conn.SetReadDeadline(time.Time{})
	if n > 0 {
		return n, nil
	}
	return 0, t.idleOr(err)
}

func (t *stream) idleOr(err error) error {
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return errIdle
	}
	return err
}

func (t *stream) fill(p []byte, need int) (have int, err error) {
	defer t.stall.end()
	defer func() { _ = t.conn.SetReadDeadline(time.Time{}) }()
	for wait := hotWait; have < need; {
		_ = t.conn.SetReadDeadline(time.Now().Add(wait))
		n, err := t.conn.Read(p[have:])
		if have += n; n > 0 {
			t.stall.progress(n)
		}
		switch {
		case have >= need:
		case t.idleOr(err) == errIdle:
			t.stall.begin()
			wait = longWait * time.Millisecond
		case err == io.EOF:
			return have, io.ErrUnexpectedEOF
		case err != nil:
			return have, err
		}
	}
	return have, nil
}

// streamStep is sent before progress is noticed.
const streamStep = 64 << 10

// send has no time-out of its own: one that passes in the middle of a TLS record ends
// the session.
func (t *stream) send(p []byte) error {
	if t.late == nil {
		t.late = time.AfterFunc(sendWait, t.stall.begin)
	} else {
		t.late.Reset(sendWait)
	}
	defer t.stall.end()
	defer t.late.Stop()
	for len(p) > 0 {
		n, err := t.conn.Write(p[:min(len(p), streamStep)])
		if err != nil {
			return err
		}
		t.stall.progress(n)
		p = p[n:]
	}
	return nil
}

// wire is the connection below TLS.
func (t *stream) wire() net.Conn {
	for nc := t.conn; ; {
		w, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			return nc
		}
		nc = w.NetConn()
	}
}

func (t *stream) shut() { t.wire().Close() }

// gone is always true: nobody closes half of a TLS session and waits.
func (t *stream) gone() bool { return true }

func (t *stream) close(bool) { t.conn.Close() }
