package client

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/vmdisk/vmdisk/nbd"
	"golang.org/x/sys/unix"
)

// sender is the sending side of a connection, used by one goroutine at a time.
type sender struct {
	nc     net.Conn
	closer io.Closer
	mode   nbd.Mode
	hdr    []byte   // the headers of a batch
	vec    [][]byte // what to send, in order
	rest   net.Buffers
	raw    syscall.RawConn // of a plain socket, for sendfile
	file   *fileSend
	joined []byte // where small pieces are joined, not on plain sockets
}

func newSender(nc net.Conn, m nbd.Mode) sender {
	s := sender{nc: nc, mode: m, closer: nc}
	if t, ok := nc.(*tls.Conn); ok {
		// Closing a tls.Conn would wait for a stalled peer to take an alert.
		s.closer = t.NetConn()
	}
	if sc, ok := nc.(syscall.Conn); ok {
		s.raw, _ = sc.SyscallConn()
	}
	if s.raw != nil {
		s.file = newFileSend()
	}
	return s
}

// send sends a batch of requests whole.
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
	s.rest = s.vec
	_, err := s.rest.WriteTo(s.nc)
	return err
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

func newFileSend() *fileSend {
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
