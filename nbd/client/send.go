package client

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/uring"
	"golang.org/x/sys/unix"
)

// sender is the sending side of a connection, used by one goroutine at a time.
type sender struct {
	nc     net.Conn
	closer io.Closer
	mode   nbd.Mode
	hdr    []byte          // the headers of a batch
	vec    [][]byte        // what to send, in order
	raw    syscall.RawConn // of a plain socket, for sendfile
	file   *fileSend
	// Between try and finish: what is left, or a batch that was not begun.
	left   [][]byte
	whole  []*Request
	err    error
	write  func(fd uintptr) bool // tryWrite, made once
	push   func(fd uintptr) bool // pushWrite, made once
	pulse  *atomic.Uint64        // counts what goes out though the socket was full
	joined []byte                // where small pieces are joined, not on plain sockets
}

func newSender(nc net.Conn, m nbd.Mode, pulse *atomic.Uint64) *sender {
	s := &sender{nc: nc, mode: m, closer: nc, pulse: pulse}
	if t, ok := nc.(*tls.Conn); ok {
		// Closing a tls.Conn would wait for a stalled peer to take an alert.
		s.closer = t.NetConn()
	}
	if sc, ok := nc.(syscall.Conn); ok {
		s.raw, _ = sc.SyscallConn()
	}
	if s.raw != nil {
		enlarge(nc)
		s.file = newFileSend(pulse)
		s.write, s.push = s.tryWrite, s.pushWrite
	}
	return s
}

// sendBuffer is asked for on unix sockets, which hold 208 KiB otherwise: a part of
// a large write, and the end of a batch would wait for the server to read. TCP
// finds its own.
const sendBuffer = 1 << 20

func enlarge(nc net.Conn) {
	if u, ok := nc.(*net.UnixConn); ok {
		_ = u.SetWriteBuffer(sendBuffer) // less is slower, never wrong
	}
}

// try sends as much of a batch as the socket takes at once; false means that
// finish has to send the rest.
func (s *sender) try(batch []*Request) (done bool, err error) {
	if s.raw == nil || slices.ContainsFunc(batch, (*Request).fromFile) {
		s.whole = batch
		return false, nil
	}
	s.left = s.gather(batch)
	if err := s.raw.Write(s.write); err != nil {
		return false, err
	}
	return len(s.left) == 0, s.err
}

func (r *Request) fromFile() bool { return r.File != nil }

// finish sends what try left over, and waits for the socket to take it.
func (s *sender) finish() error {
	if batch := s.whole; batch != nil {
		s.whole = nil
		return s.send(batch)
	}
	return s.pushLeft()
}

// pushLeft sends what is left, waiting for the socket.
func (s *sender) pushLeft() error {
	if err := s.raw.Write(s.push); err != nil {
		return err
	}
	return s.err
}

// tryWrite is try's part with the descriptor.
func (s *sender) tryWrite(fd uintptr) bool {
	s.left, _, s.err = writev(int(fd), s.left)
	return true
}

// pushWrite is pushLeft's part with the descriptor; false waits for the socket.
func (s *sender) pushWrite(fd uintptr) bool {
	var moved bool
	if s.left, moved, s.err = writev(int(fd), s.left); moved {
		s.pulse.Add(1)
	}
	return len(s.left) == 0 || s.err != nil
}

// writev sends vec until the socket takes no more and returns what is left, and
// whether anything went.
func writev(fd int, vec [][]byte) (left [][]byte, moved bool, err error) {
	for len(vec) > 0 {
		n, err := uring.Writev(fd, vec[:min(len(vec), uring.MaxWritev)])
		switch {
		case err == unix.EAGAIN:
			return vec, moved, nil
		case err == unix.EINTR:
			continue
		case err != nil:
			return vec, moved, os.NewSyscallError("writev", err)
		}
		moved = true
		vec = advance(vec, n)
	}
	return nil, moved, nil
}

// advance drops n bytes from the start of vec, and empty parts behind them: of
// these alone writev would send nothing for ever.
func advance(vec [][]byte, n int) [][]byte {
	for len(vec) > 0 && n >= len(vec[0]) {
		n -= len(vec[0])
		vec[0] = nil
		vec = vec[1:]
	}
	if n > 0 {
		vec[0] = vec[0][n:]
	}
	return vec
}

const (
	// joinPayload is the size up to which a write's data is copied behind its
	// header: cheaper than two more pieces.
	joinPayload = 2 << 10
	// joinLimit bounds what is copied for one batch.
	joinLimit = 256 << 10
)

// gather lays out a batch in few pieces.
func (s *sender) gather(batch []*Request) [][]byte {
	s.hdr, s.vec = s.hdr[:0], s.vec[:0]
	start := 0
	for _, r := range batch {
		s.hdr = r.appendHeader(s.hdr, s.mode)
		if r.Command != nbd.CmdWrite {
			continue
		}
		if r.Length <= joinPayload && len(s.hdr) < joinLimit {
			for _, part := range r.Vec {
				s.hdr = append(s.hdr, part...)
			}
			continue
		}
		s.vec = append(s.vec, s.hdr[start:])
		s.vec = append(s.vec, r.Vec...)
		start = len(s.hdr)
	}
	if start < len(s.hdr) {
		s.vec = append(s.vec, s.hdr[start:])
	}
	return s.vec
}

// send sends a batch of requests whole, waiting for the socket.
func (s *sender) send(batch []*Request) error {
	s.hdr, s.vec = s.hdr[:0], s.vec[:0]
	start := 0
	for _, r := range batch {
		s.hdr = r.appendHeader(s.hdr, s.mode)
		if r.Command != nbd.CmdWrite {
			continue
		}
		s.vec = append(s.vec, s.hdr[start:])
		start = len(s.hdr)
		if r.File == nil {
			s.vec = append(s.vec, r.Vec...)
			continue
		}
		if err := s.sendFile(r); err != nil {
			return err
		}
	}
	s.vec = append(s.vec, s.hdr[start:])
	return s.flush()
}

// flush sends vec.
func (s *sender) flush() error {
	defer clear(s.vec)
	if s.raw == nil {
		return s.join()
	}
	s.left = s.vec
	return s.pushLeft()
}

// joinSize is what one write of a connection with a cost per write carries: four
// TLS records.
const joinSize = 64 << 10

// join sends vec through a buffer.
func (s *sender) join() error {
	if s.joined == nil {
		s.joined = make([]byte, 0, joinSize)
	}
	buf := s.joined
	for _, p := range s.vec {
		for len(p) > 0 {
			n := copy(buf[len(buf):cap(buf)], p)
			buf, p = buf[:len(buf)+n], p[n:]
			if len(buf) < cap(buf) {
				continue
			}
			if _, err := s.nc.Write(buf); err != nil {
				return err
			}
			s.pulse.Add(1) // the last write of a batch does not tell that any earlier one was taken
			buf = buf[:0]
		}
	}
	if len(buf) == 0 {
		return nil
	}
	_, err := s.nc.Write(buf)
	return err
}

var errShortFile = fmt.Errorf("the file ends before the range to be sent does: %w", io.ErrUnexpectedEOF)

// sendFile sends vec and then a payload out of a file. The header promised a
// length, so when the file fails, zeros fill up and the request fails.
func (s *sender) sendFile(r *Request) error {
	if err := s.flush(); err != nil {
		return err
	}
	s.vec = s.vec[:0]
	left, err := s.file.send(s.raw, r.File.FD, r.File.Off, r.Length)
	if left == 0 || err != nil && errors.As(err, new(*net.OpError)) {
		return err
	}
	r.source = err
	if err == nil {
		r.source = errShortFile
	}
	zeros := make([]byte, min(left, joinSize))
	for left > 0 {
		n, err := s.nc.Write(zeros[:min(left, joinSize)])
		if left -= int64(n); err != nil {
			return err
		}
		s.pulse.Add(1)
	}
	return nil
}

// fileSend is the state of a sendfile.
type fileSend struct {
	fd   int
	off  int64
	left int64
	err  error
	try  func(fd uintptr) bool // made once
}

func newFileSend(pulse *atomic.Uint64) *fileSend {
	f := new(fileSend)
	f.try = func(fd uintptr) bool {
		for f.left > 0 {
			n, err := unix.Sendfile(int(fd), f.fd, &f.off, int(min(f.left, 1<<30)))
			switch {
			case err == unix.EAGAIN:
				return false
			case err == unix.EINTR:
				continue
			case err != nil || n == 0:
				f.err = err
				return true
			}
			f.left -= int64(n)
			pulse.Add(1)
		}
		return true
	}
	return f
}

// send returns how many bytes it could not send. An error of the socket is a
// *net.OpError, any other is the file's.
func (f *fileSend) send(raw syscall.RawConn, fd int, off, n int64) (int64, error) {
	f.fd, f.off, f.left, f.err = fd, off, n, nil
	if err := raw.Write(f.try); err != nil {
		return f.left, err
	}
	if f.err == unix.EPIPE || f.err == unix.ECONNRESET {
		return f.left, &net.OpError{Op: "sendfile", Net: "nbd", Err: os.NewSyscallError("sendfile", f.err)}
	}
	return f.left, os.NewSyscallError("sendfile", f.err)
}
