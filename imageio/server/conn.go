package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/splice"
)

// unauthorizedTimeout bounds each receive and send of a connection that has
// shown no valid ticket yet; then the ticket's inactivity_timeout does.
const unauthorizedTimeout = 60 * time.Second

// lingerTime is how long a server goes on reading the body that it refused, so
// that a client in the middle of sending reads the answer instead of a reset.
const lingerTime = 5 * time.Second

// conn is one client's connection; its methods run on its goroutine alone,
// interrupt excepted.
type conn struct {
	id       uint64
	svc      *service
	socket   net.Conn // what io is over: below TLS
	address  string   // what the connection is counted by
	io       *timedConn
	plain    syscall.RawConn // nil under TLS
	pipe     *splice.Pipe    // empty, made when first needed; see upload.splice
	reader   *bufio.Reader
	client   string
	ctx      context.Context
	attached map[*Ticket]*disk.Disk
	unread   func(p []byte) (int, error) // the rest of a refused request
	clock    clock
	pace     pace // of the storage in the last transfer
	lines    noise

	// What follows belongs to service.mu.
	busy  bool      // serving a request
	known bool      // a ticket was shown
	since time.Time // when busy changed
}

// timedConn gives every receive and send its own time limit.
type timedConn struct {
	net.Conn
	timeout     time.Duration
	limit       time.Time // of all receives together; zero: none
	head        headReader
	readUntil   time.Time // the deadlines that are set
	writeUntil  time.Time
	answering   atomic.Bool // something of the answer has been written
	interrupted atomic.Bool // no more reads
	cut         atomic.Bool // no more writes either
}

var errInterrupted = errors.New("interrupted")

func (c *timedConn) Read(p []byte) (int, error) {
	if err := c.beforeRead(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	if full := c.head.add(n); full != nil {
		return 0, full
	}
	return n, err
}

func (c *timedConn) beforeRead() error {
	if c.moved(&c.readUntil, c.limit) {
		if err := c.SetReadDeadline(c.readUntil); err != nil {
			return err
		}
	}
	if c.interrupted.Load() {
		return errInterrupted
	}
	return nil
}

func (c *timedConn) Write(p []byte) (int, error) {
	if err := c.beforeWrite(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (c *timedConn) beforeWrite() error {
	c.answering.Store(true)
	if c.moved(&c.writeUntil, time.Time{}) {
		if err := c.SetWriteDeadline(c.writeUntil); err != nil {
			return err
		}
	}
	if c.cut.Load() {
		return errInterrupted
	}
	return nil
}

// moved sets until to the end of the timeout from now on, or to limit, though not for
// less than a sixteenth of it: a read under TLS is 16 KiB at most.
func (c *timedConn) moved(until *time.Time, limit time.Time) bool {
	now := time.Now().Add(c.timeout)
	if !limit.IsZero() && limit.Before(now) {
		now = limit
	}
	if now.Sub(*until).Abs() <= c.timeout/16 {
		return false
	}
	*until = now
	return true
}

// interrupt ends a Read that is waiting, from another goroutine, and a Write
// that is part of an answer: another answer, to say why, is no longer possible.
// Setting a deadline fails on a closed connection alone, where nothing waits.
func (c *timedConn) interrupt() {
	c.interrupted.Store(true)
	_ = c.SetReadDeadline(time.Unix(1, 0))
	if c.answering.Load() {
		c.cut.Store(true)
		_ = c.SetWriteDeadline(time.Unix(1, 0))
	}
}

func (c *conn) serve() {
	c.clock.start("connection")
	shown := c.svc.log.allow(nil)
	if shown {
		c.svc.log.info("http", "OPEN connection=%d client=%s", c.id, c.client)
	}
	for c.serveOne() {
		if c.reader.Buffered() > 0 {
			// Whoever sends requests without end gets one at a time: else the scheduler
			// leaves it 10 ms, and with hundreds of them all others wait for seconds.
			runtime.Gosched()
		}
	}
	c.linger()
	for t := range c.attached {
		if err := t.detach(c.id); err != nil {
			c.svc.log.error("http", "closing the image of transfer %s: %v", t.spec.TransferID, err)
		}
	}
	c.io.Close()
	c.closePipe()
	c.clock.stop("connection")
	if shown || c.known {
		c.svc.log.info("http", "CLOSE connection=%d client=%s %s", c.id, c.client, c.clock.String())
	}
}

// serveOne serves one request and reports whether the connection goes on.
func (c *conn) serveOne() bool {
	req, err := c.nextRequest()
	defer c.io.head.release()
	var bad *httpError
	if err != nil && !errors.As(err, &bad) {
		if errors.Is(err, os.ErrDeadlineExceeded) && !c.io.interrupted.Load() {
			c.warn("Timeout reading or writing to socket: connection=%d client=%s", c.id, c.client)
		}
		return false
	}
	if !c.svc.enter(c) {
		return false
	}
	defer c.svc.leave(c)
	c.io.answering.Store(false)
	w := &response{c: c, status: 200}
	if bad == nil {
		w.noBody, w.minor = req.method == "HEAD", req.minor
		w.close = !req.keepAlive()
		req.body.onRead = c.continueHook(req)
		err = c.svc.dispatch(c, req, w)
	}
	return c.finish(req, w, err)
}

// nextRequest waits for a request, for as long as the client may be idle, and reads its
// head, for which there is a time in all.
func (c *conn) nextRequest() (*request, error) {
	c.io.limit = time.Time{}
	if _, err := c.reader.Peek(1); err != nil {
		return nil, err
	}
	c.io.limit = time.Now().Add(c.svc.headTime)
	c.io.head.begin()
	defer c.io.head.end()
	return readRequest(c.reader)
}

// continueHook answers "Expect: 100-continue" when the body is wanted.
func (c *conn) continueHook(req *request) func() error {
	if req.minor == 0 || !strings.EqualFold(req.header["expect"], "100-continue") {
		return nil
	}
	return func() error {
		_, err := io.WriteString(c.io, "HTTP/1.1 100 Continue\r\n\r\n")
		c.io.answering.Store(false) // the answer is yet to come
		return err
	}
}

// finish answers an error, and decides whether the stream of requests is still
// in step.
func (c *conn) finish(req *request, w *response, err error) bool {
	if req != nil {
		req.body.onRead = nil // an interim answer comes before the final one or not at all
	}
	if err == nil && !w.started {
		err = w.send(nil)
	} else if err != nil && !w.started {
		e := c.svc.explain(c, err)
		unread := req == nil || !req.body.done()
		w.close = w.close || e.close || unread
		err = w.sendError(e)
		if unread && err == nil {
			c.unread = c.reader.Read
			if req != nil {
				c.unread = req.body.Read
			}
		}
		return err == nil && !w.close
	}
	if err != nil {
		c.warn("Request aborted after starting response: connection=%d: %v", c.id, err)
		return false
	}
	return !w.close && req.body.done() && !c.svc.stopping()
}

// linger reads on, and drops, what a refused request still sends. The end of the
// service does not wait for it.
func (c *conn) linger() {
	if c.unread == nil {
		return
	}
	c.io.limit = time.Now().Add(lingerTime)
	buf := make([]byte, 4<<10)
	for {
		if _, err := c.unread(buf); err != nil {
			return
		}
	}
}

// SetLimit sets the time limit of each receive and send from here on.
func (c *conn) SetLimit(d time.Duration) { c.io.timeout = d }

// image authorizes op on the ticket with this id and returns the ticket and its
// disk, open for this connection.
func (c *conn) image(id, op string) (*Ticket, *disk.Disk, error) {
	t, err := c.svc.tickets.authorize(id, op)
	if err != nil {
		return nil, nil, err
	}
	c.vouched()
	d, ok := c.attached[t]
	if ok && t.attachedBy(c.id) {
		return t, d, d.Grow(c.ctx, 0) // others may have changed its size
	}
	if d, err = t.attach(c.ctx, c.id); err != nil {
		return nil, nil, err
	}
	c.attached[t] = d
	c.SetLimit(seconds(max(t.spec.InactivityTimeout, 1)))
	return t, d, d.Grow(c.ctx, 0)
}

// run is Ticket.run with the connection's reads interrupted when the ticket is
// canceled.
func (c *conn) run(t *Ticket, name string, off int64, f func(ctx context.Context, op *operation) error) error {
	return t.run(c.ctx, off, func(ctx context.Context, op *operation) error {
		stop := context.AfterFunc(ctx, c.io.interrupt)
		defer stop()
		start := time.Now()
		err := f(ctx, op)
		c.clock.add(name, time.Since(start), op.done.Load())
		c.svc.metrics.count(name, time.Since(start), op.done.Load(), err)
		return err
	})
}

// sendFile sends n bytes of the file from off without copying them through
// user space. It fails with errors.ErrUnsupported, having sent nothing, where
// the kernel will not.
func (c *conn) sendFile(fd int, off, n int64, done *atomic.Int64) error {
	sent := false
	for n > 0 {
		if err := c.io.beforeWrite(); err != nil {
			return err
		}
		var got int
		var err error
		// At most 2 MiB a call, so that progress and the time limit stay fine.
		if werr := c.plain.Write(func(sock uintptr) bool {
			got, err = unix.Sendfile(int(sock), fd, &off, int(min(n, 2<<20)))
			return err != unix.EAGAIN
		}); werr != nil {
			return werr
		}
		switch {
		case err == unix.EINTR:
			continue
		case !sent && (err == unix.EINVAL || err == unix.ENOSYS):
			return errors.ErrUnsupported
		case err != nil:
			return fmt.Errorf("sendfile: %w", err)
		case got == 0:
			return fmt.Errorf("sendfile at offset %d: %w", off, io.ErrUnexpectedEOF)
		}
		sent = true
		n -= int64(got)
		done.Add(int64(got))
	}
	return nil
}

// bufferSize is the piece in which images are received and sent: two of them
// per transfer keep storage and socket busy at once, in half a MiB.
const bufferSize = 256 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}
