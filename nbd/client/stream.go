package client

import (
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	streamSize = 64 << 10
	// largePayload is the size from which on a payload is worth a system call of
	// its own; after one, aheadLarge bytes are read ahead: enough for the next
	// headers, little to be copied.
	largePayload = 32 << 10
	aheadLarge   = 1 << 10
)

// stream is the receiving side of a connection: one goroutine reads replies
// from it. Bytes are read ahead into a buffer, but payload goes past it.
type stream struct {
	src   source
	buf   []byte
	r, w  int
	ahead int
}

// source reads into dst, then into spare, by one call; n counts both. dst may
// be empty.
type source interface {
	read(dst, spare []byte) (n int, err error)
}

// newStream makes one that counts its receives in pulse.
func newStream(nc net.Conn, pulse *atomic.Uint64) stream {
	s := stream{buf: make([]byte, streamSize), ahead: streamSize}
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			s.src = newRawSource(raw, pulse)
			return s
		}
	}
	s.src = connSource{nc, pulse}
	return s
}

// buffered is what has arrived and was not consumed.
func (s *stream) buffered() []byte { return s.buf[s.r:s.w] }

// consume drops n buffered bytes.
func (s *stream) consume(n int) { s.r += n }

// more waits for at least one more buffered byte.
func (s *stream) more() error {
	if s.r == s.w {
		s.r, s.w = 0, 0
	} else if s.r > 0 && len(s.buf)-s.w < aheadLarge {
		s.w = copy(s.buf, s.buf[s.r:s.w])
		s.r = 0
	}
	n, err := s.src.read(nil, s.buf[s.w:min(len(s.buf), s.w+s.ahead)])
	s.w += n
	return err
}

// need waits until n bytes (at most aheadLarge) are buffered and returns them.
func (s *stream) need(n int) ([]byte, error) {
	for s.w-s.r < n {
		if err := s.more(); err != nil {
			return nil, err
		}
	}
	return s.buf[s.r : s.r+n], nil
}

// payload fills dst.
func (s *stream) payload(dst []byte) error {
	s.ahead = streamSize
	if len(dst) >= largePayload {
		s.ahead = aheadLarge
	}
	n := copy(dst, s.buf[s.r:s.w])
	s.r += n
	dst = dst[n:]
	for len(dst) > 0 {
		s.r, s.w = 0, 0
		n, err := s.src.read(dst, s.buf[:s.ahead])
		if err != nil {
			return err
		}
		if n > len(dst) {
			s.w = n - len(dst)
			n = len(dst)
		}
		dst = dst[n:]
	}
	return nil
}

// skip drops n bytes.
func (s *stream) skip(n int64) error {
	for n > 0 {
		if s.r == s.w {
			if err := s.more(); err != nil {
				return err
			}
		}
		part := int(min(n, int64(s.w-s.r)))
		s.r += part
		n -= int64(part)
	}
	return nil
}

// connSource reads from a connection that is not a plain socket.
type connSource struct {
	nc    net.Conn
	pulse *atomic.Uint64
}

func (c connSource) read(dst, spare []byte) (int, error) {
	if len(dst) == 0 {
		dst = spare
	}
	n, err := c.nc.Read(dst)
	if n > 0 {
		c.pulse.Add(1)
		return n, nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return 0, err
}

// rawSource reads from a socket by readv.
type rawSource struct {
	raw   syscall.RawConn
	vec   [2][]byte
	n     int
	err   error
	try   func(fd uintptr) bool // made once: a closure for each call would be garbage
	pulse *atomic.Uint64
}

func newRawSource(raw syscall.RawConn, pulse *atomic.Uint64) *rawSource {
	s := &rawSource{raw: raw, pulse: pulse}
	s.try = func(fd uintptr) bool {
		for {
			s.n, s.err = unix.Readv(int(fd), s.vec[:])
			if s.err != unix.EINTR {
				return s.err != unix.EAGAIN
			}
		}
	}
	return s
}

func (s *rawSource) read(dst, spare []byte) (int, error) {
	s.vec = [2][]byte{dst, spare}
	err := s.raw.Read(s.try)
	s.vec = [2][]byte{}
	switch {
	case err != nil:
		return 0, err
	case s.err != nil:
		return 0, os.NewSyscallError("readv", s.err)
	case s.n == 0:
		return 0, io.ErrUnexpectedEOF
	}
	s.pulse.Add(1)
	return s.n, nil
}
