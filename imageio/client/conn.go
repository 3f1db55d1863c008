package client

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// Bounds on what a server's answer may make the client hold, in bytes.
const (
	maxHead  = 64 << 10
	maxError = 4 << 10
)

// conn is one connection; it serves one request at a time.
type conn struct {
	nc   *timedConn
	raw  syscall.RawConn // nil under TLS
	r    *bufio.Reader
	head []byte
	// timeout is the usual one of a send or receive.
	timeout time.Duration
	// hide takes what is secret out of a server's message.
	hide  func(string) string
	spent bool // the server will close it, or the stream is out of step
}

// timedConn gives every receive and send its own time limit, and can be
// interrupted, once and for good, by another goroutine.
type timedConn struct {
	net.Conn
	timeout     time.Duration // negative: none
	until       time.Time     // the deadline that is set
	waits       *waits
	interrupted atomic.Bool
}

// limit moves the deadline, though not for less than a sixteenth of the
// timeout: a read under TLS is 16 KiB at most.
func (t *timedConn) limit() error {
	now := time.Now()
	t.waits.moved(now)
	until := now.Add(t.timeout)
	if t.timeout < 0 {
		until = time.Time{}
	}
	if gap := until.Sub(t.until).Abs(); gap > t.timeout/16 && gap > 0 {
		if err := t.SetDeadline(until); err != nil {
			return err
		}
		t.until = until
	}
	if t.interrupted.Load() {
		return net.ErrClosed
	}
	return nil
}

func (t *timedConn) Read(p []byte) (int, error) {
	if err := t.limit(); err != nil {
		return 0, err
	}
	return t.Conn.Read(p)
}

func (t *timedConn) Write(p []byte) (int, error) {
	if err := t.limit(); err != nil {
		return 0, err
	}
	return t.Conn.Write(p)
}

func (t *timedConn) interrupt() {
	t.interrupted.Store(true)
	_ = t.SetDeadline(time.Unix(1, 0)) // fails when it is closed, which ends it as well
}

func newConn(nc net.Conn, plain bool, timeout time.Duration, w *waits) *conn {
	timed := &timedConn{Conn: nc, timeout: timeout, waits: w}
	c := &conn{nc: timed, timeout: timeout, r: bufio.NewReaderSize(timed, 16<<10), hide: func(s string) string { return s }}
	if sc, ok := nc.(syscall.Conn); ok && plain {
		c.raw, _ = sc.SyscallConn()
	}
	return c
}

// call is one request. Of body and file at most one is set.
type call struct {
	method, path string
	headers      []string // "name: value"
	body         []byte
	file         *fileBody
	slow         bool          // the server may be silent for slowFactor times as long
	more         time.Duration // and for this long besides
}

// fileBody is a body that the kernel takes from a file.
type fileBody struct {
	fd     int
	off, n int64
}

// answer is a response whose body is still to be read.
type answer struct {
	status  int
	header  map[string]string
	length  int64 // -1: chunked
	body    io.Reader
	drained func() bool // the whole body was read
}

// roundTrip sends a request and reads the head of the answer.
func (c *conn) roundTrip(host string, k *call) (a *answer, err error) {
	c.nc.timeout = k.timeout(c.timeout)
	if err := c.send(host, k); err != nil {
		var final errHandled
		if errors.As(err, &final) {
			return nil, err // the file's fault: the server still waits for the rest
		}
		// The server may have answered early (403, 416) and stopped reading: its
		// answer says more than the broken pipe.
		if a, readErr := c.readHead(); readErr == nil && a.status >= 300 {
			c.spent = true
			return a, nil
		}
		return nil, err
	}
	return c.readHead()
}

func (c *conn) send(host string, k *call) error {
	length := int64(len(k.body))
	if k.file != nil {
		length = k.file.n
	}
	h := fmt.Appendf(c.head[:0], "%s %s HTTP/1.1\r\nhost: %s\r\n", k.method, k.path, host)
	if k.method != "GET" && k.method != "OPTIONS" || length > 0 {
		h = fmt.Appendf(h, "content-length: %d\r\n", length)
	}
	for _, line := range k.headers {
		h = append(append(h, line...), "\r\n"...)
	}
	c.head = append(h, "\r\n"...)
	if k.file != nil {
		if _, err := c.nc.Write(c.head); err != nil {
			return err
		}
		if c.raw == nil {
			return c.copyFile(k.file)
		}
		return c.sendFile(k.file)
	}
	if c.raw == nil || len(k.body) < 16<<10 {
		// Under TLS one record holds the head and the beginning of the body.
		first := min(len(k.body), 12<<10)
		if _, err := c.nc.Write(append(c.head, k.body[:first]...)); err != nil {
			return err
		}
		_, err := c.nc.Write(k.body[first:])
		return err
	}
	return c.sendBody(k.body)
}

// step is how much of a body may take one time-out to be sent: progress within a
// long body has to show, since a link may need minutes for 8 MiB.
const step = 512 << 10

// sendBody sends the head and a body, with one system call for both beginnings.
func (c *conn) sendBody(body []byte) error {
	head := c.head
	for len(body) > 0 {
		if err := c.nc.limit(); err != nil {
			return err
		}
		part := body[:min(step, len(body))]
		bufs := net.Buffers{head, part}
		if _, err := bufs.WriteTo(c.nc.Conn); err != nil { // writev
			return err
		}
		head, body = nil, body[len(part):]
	}
	return nil
}

// errSendfile comes before a byte of the body went out.
var errSendfile = errHandled{errors.New("the kernel cannot send from this file")}

func (c *conn) sendFile(f *fileBody) error {
	off, left := f.off, f.n
	for left > 0 {
		var n int
		var err error
		if err := c.nc.limit(); err != nil {
			return err
		}
		if werr := c.raw.Write(func(sock uintptr) bool {
			n, err = unix.Sendfile(int(sock), f.fd, &off, int(min(left, 2<<20)))
			return err != unix.EAGAIN
		}); werr != nil {
			return werr
		}
		switch {
		case err == unix.EINTR:
		case err == unix.EINVAL && left == f.n:
			return errSendfile
		case err != nil:
			return fmt.Errorf("sendfile: %w", err)
		case n == 0:
			return endedEarly(left)
		}
		left -= int64(max(n, 0))
	}
	return nil
}

func endedEarly(left int64) error {
	return errHandled{fmt.Errorf("the file ended %d bytes early: %w", left, io.ErrUnexpectedEOF)}
}

// piece is as much as goes out in one system call, so that what is read is still
// in the processor's nearest cache when it is encrypted.
const piece = 64 << 10

var pieces = sync.Pool{New: func() any { return new([piece]byte) }}

// copyFile is sendFile under TLS.
func (c *conn) copyFile(f *fileBody) error {
	buf := pieces.Get().(*[piece]byte)
	defer pieces.Put(buf)
	for off, left := f.off, f.n; left > 0; {
		n, err := unix.Pread(f.fd, buf[:min(left, piece)], off)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil && left == f.n:
			return errSendfile // reading it the usual way meets and names what is wrong
		case err != nil:
			return errHandled{fmt.Errorf("read the file: %w", err)}
		case n == 0:
			return endedEarly(left)
		}
		if _, err := c.nc.Write(buf[:n]); err != nil {
			return err
		}
		off, left = off+int64(n), left-int64(n)
	}
	return nil
}

func (c *conn) readHead() (*answer, error) {
	a := &answer{header: map[string]string{}}
	total := 0
	line, err := c.readLine(&total)
	if err != nil {
		return nil, err
	}
	version, rest, _ := bytes.Cut(line, []byte{' '})
	code, _, _ := bytes.Cut(rest, []byte{' '})
	if a.status, err = strconv.Atoi(string(code)); err != nil || !bytes.HasPrefix(version, []byte("HTTP/1.")) || a.status < 200 || a.status > 999 {
		return nil, fmt.Errorf("the server does not speak HTTP/1: %.60q", line)
	}
	for {
		if line, err = c.readLine(&total); err != nil {
			return nil, err
		}
		if len(line) == 0 {
			return a, c.frame(a)
		}
		name, value, ok := bytes.Cut(line, []byte{':'})
		if !ok {
			return nil, fmt.Errorf("bad header line from the server: %.60q", line)
		}
		a.header[strings.ToLower(string(name))] = string(bytes.TrimSpace(value))
	}
}

// readLine reads a line of the head, without its end.
func (c *conn) readLine(total *int) ([]byte, error) {
	line, err := c.r.ReadSlice('\n')
	if *total += len(line); *total > maxHead || errors.Is(err, bufio.ErrBufferFull) {
		return nil, fmt.Errorf("the server's answer has a head beyond %d bytes", maxHead)
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return bytes.TrimRight(line, "\r\n"), err
}

// frame finds out where the body ends (RFC 9112, 6.3).
func (c *conn) frame(a *answer) error {
	c.spent = strings.Contains(strings.ToLower(a.header["connection"]), "close")
	if strings.EqualFold(a.header["transfer-encoding"], "chunked") {
		a.length = -1
		chunks := &chunkReader{c: c}
		a.body, a.drained = chunks, func() bool { return chunks.ended }
		return nil
	}
	text, ok := a.header["content-length"]
	if !ok && a.status == 204 {
		text, ok = "0", true
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if !ok || err != nil || n < 0 {
		return fmt.Errorf("the server's answer %d has no usable content-length (%.30q)", a.status, text)
	}
	body := &lengthReader{c.r, n}
	a.length, a.body, a.drained = n, body, func() bool { return body.left == 0 }
	return nil
}

// lengthReader reads a body of known length; its early end is an error.
type lengthReader struct {
	r    io.Reader
	left int64
}

func (l *lengthReader) Read(p []byte) (int, error) {
	if l.left == 0 {
		return 0, io.EOF
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// chunkReader reads a chunked body (RFC 9112, 7.1).
type chunkReader struct {
	c       *conn
	left    int64
	started bool
	ended   bool
}

func (k *chunkReader) Read(p []byte) (int, error) {
	if k.left == 0 && !k.ended {
		if err := k.next(); err != nil {
			return 0, err
		}
	}
	if k.ended {
		return 0, io.EOF
	}
	n, err := k.c.r.Read(p[:min(int64(len(p)), k.left)])
	k.left -= int64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (k *chunkReader) next() error {
	total := 0
	if k.started {
		if line, err := k.c.readLine(&total); err != nil || len(line) > 0 {
			return fmt.Errorf("bad end of a chunk from the server: %.20q %w", line, err)
		}
	}
	k.started = true
	line, err := k.c.readLine(&total)
	if err != nil {
		return err
	}
	size, _, _ := bytes.Cut(line, []byte{';'})
	n, err := strconv.ParseUint(string(bytes.TrimSpace(size)), 16, 62)
	if err != nil {
		return fmt.Errorf("bad chunk size from the server: %.20q", size)
	}
	if k.left = int64(n); n > 0 {
		return nil
	}
	k.ended = true
	for {
		if line, err = k.c.readLine(&total); err != nil || len(line) == 0 {
			return err
		}
	}
}

// fail reads the message of an error answer.
func (c *conn) fail(a *answer) error {
	text, err := io.ReadAll(io.LimitReader(a.body, maxError))
	if err != nil || !a.drained() {
		c.spent = true
	}
	if a.status < 300 { // the body is no message
		return &StatusError{Status: a.status}
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return &StatusError{Status: a.status, Message: printable(c.hide(line))}
}

// printable cuts a server's message to what fits a line.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
	return s[:min(len(s), 200)]
}

// StatusError is an answer other than the one the API promises.
type StatusError struct {
	Status  int
	Message string // the server's, one line
}

// HTTPStatus is the server's answer, for a daemon that passes it on to its own client.
func (e *StatusError) HTTPStatus() (status int, message string) { return e.Status, e.Message }

func (e *StatusError) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("the server answered %d, which is not what was asked for", e.Status)
	}
	return fmt.Sprintf("the server answered %d: %s", e.Status, e.Message)
}
