// Package batch is TLS whose records go to the socket several at a time.
//
// crypto/tls makes a system call for each record of 16 KiB at most. Four of them
// at once save about a twelfth of the processor time of both ends of a transfer.
// More of them save nothing: a system call that takes beyond 20 us makes Go's
// scheduler hand the processor to another thread.
package batch

import (
	"crypto/tls"
	"net"
	"sync"
)

// record is the size of a record on the wire with its header and tag, in bytes.
const record = 16<<10 + 22

// held is how many bytes of records are sent at once.
const held = 4 * record

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, held); return &b }}

// Conn is a TLS connection. Its methods are as safe for concurrent use as
// those of tls.Conn, but for Write, which one goroutine at a time may call.
type Conn struct {
	*tls.Conn
	below *socket
}

// Server is tls.Server; config comes from Config.
func Server(nc net.Conn, config *tls.Config) *Conn {
	below := &socket{Conn: nc}
	return &Conn{tls.Server(below, config), below}
}

// Client is tls.Client; config comes from Config.
func Client(nc net.Conn, config *tls.Config) *Conn {
	below := &socket{Conn: nc}
	return &Conn{tls.Client(below, config), below}
}

// Config returns a configuration without the small records that a connection begins
// with: they let a browser show the head of a page sooner. It is made once for all
// connections: a copy for each would have its own keys for session tickets, and no
// session would ever be resumed.
func Config(config *tls.Config) *tls.Config {
	config = config.Clone()
	config.DynamicRecordSizingDisabled = true
	return config
}

// Write returns when all of p was handed to the socket. What fits one record
// does not wait for others.
func (c *Conn) Write(p []byte) (int, error) {
	if len(p) <= 16<<10 {
		return c.Conn.Write(p)
	}
	c.below.hold()
	n, err := c.Conn.Write(p)
	if sendErr := c.below.release(); err == nil {
		err = sendErr
	}
	return n, err
}

// socket is what TLS writes its records to. Reading may make TLS write too (an
// alert, a new key), hence the lock.
type socket struct {
	net.Conn
	mu  sync.Mutex
	buf *[]byte // nil: nothing is held back
}

func (s *socket) hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf = buffers.Get().(*[]byte)
}

// release sends what is left.
func (s *socket) release() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.send()
	buffers.Put(s.buf)
	s.buf = nil
	return err
}

func (s *socket) send() error {
	b := *s.buf
	*s.buf = b[:0]
	if len(b) == 0 {
		return nil
	}
	_, err := s.Conn.Write(b)
	return err
}

func (s *socket) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buf == nil {
		return s.Conn.Write(p)
	}
	if len(*s.buf)+len(p) > held {
		if err := s.send(); err != nil {
			return 0, err
		}
	}
	*s.buf = append(*s.buf, p...)
	return len(p), nil
}
