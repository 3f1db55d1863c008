package client

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmdisk/vmdisk/nbd"
)

// CancelGrace is how long Cancel waits for a server.
const CancelGrace = 2 * time.Second

// conn is one connection in the transmission phase. Two goroutines use its
// socket: one that receives (receive) and, at any time, at most one that sends:
// whoever started a request when nobody was sending (flush), or pushRest.
type conn struct {
	client *Client
	nc     net.Conn
	mode   nbd.Mode
	ids    []uint32 // of the contexts
	in     stream
	out    *sender
	load   atomic.Int32  // requests in flight
	pulse  atomic.Uint64 // grows with progress
	seen   uint64        // pulse at the watcher's last look
	since  atomic.Int64  // when the watcher saw no progress first, in ns; 0: nothing is waited for
	done   chan struct{} // the receiver has ended

	mu       sync.Mutex
	taken    bool // a Pipe has it, or is taking it
	pipe     *Pipe
	idle     sync.Cond // flushing became false
	flushing bool
	slots    []*Request // by the lower half of the cookie; nil: free
	free     []uint32
	run      uint32 // the upper half of the next cookie
	pending  []*Request
	err      error // why the connection ended

	batch, late []*Request // the sender's
	push        sync.Once
	pusher      sync.WaitGroup
	rest        chan struct{} // tells pushRest that there is a rest
	scratch     []byte        // the receiver's
	status      []nbd.Status
}

func newConn(c *Client, h *handshake) *conn {
	n := &conn{client: c, nc: h.nc, mode: h.export.Mode, ids: h.ids, done: make(chan struct{}), rest: make(chan struct{}, 1)}
	n.in, n.out = newStream(h.nc, &n.pulse), newSender(h.nc, h.export.Mode, &n.pulse)
	n.idle.L = &n.mu
	return n
}

var errTaken = errors.New("the connection has an owner")

// enqueue puts a request in line to be sent. owner tells that the connection's
// owner does, if it has one.
func (c *conn) enqueue(r *Request, owner bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if c.taken != owner {
		return errTaken
	}
	c.takeSlot(r)
	r.state = queued
	c.pending = append(c.pending, r)
	return nil
}

func (c *conn) takeSlot(r *Request) {
	if len(c.free) == 0 {
		c.free = append(c.free, uint32(len(c.slots)))
		c.slots = append(c.slots, nil)
	}
	i := c.free[len(c.free)-1]
	c.free = c.free[:len(c.free)-1]
	c.slots[i] = r
	c.run++
	r.cookie = uint64(c.run)<<32 | uint64(i)
	c.load.Add(1)
}

func (c *conn) releaseSlot(r *Request) {
	i := uint32(r.cookie)
	c.slots[i] = nil
	c.free = append(c.free, i)
	r.state = idle
	c.load.Add(-1)
}

// lookup returns the request that has a cookie, or nil.
func (c *conn) lookup(cookie uint64) *Request {
	i := uint32(cookie)
	if uint64(i) >= uint64(len(c.slots)) || c.slots[i] == nil || c.slots[i].cookie != cookie {
		return nil
	}
	return c.slots[i]
}

// detach lets go of a request whose answer does not matter any more: a stand-in
// swallows it.
func (c *conn) detach(r *Request) {
	c.slots[uint32(r.cookie)] = &Request{Command: r.Command, Offset: r.Offset, Length: r.Length,
		Context: r.Context, cookie: r.cookie, state: sent, discard: true}
	r.state = idle
}

// flush sends what is pending, unless somebody does already. It does not wait
// for the socket: what that does not take is left to pushRest.
func (c *conn) flush() {
	c.mu.Lock()
	if c.flushing || len(c.pending) == 0 || c.err != nil {
		c.mu.Unlock()
		return
	}
	c.flushing = true
	for c.nextBatch() {
		c.mu.Unlock()
		done, err := c.out.try(c.batch)
		if !done && err == nil {
			c.push.Do(c.startPusher)
			c.rest <- struct{}{}
			return
		}
		c.batchSent(err)
		c.mu.Lock()
	}
	c.flushed()
}

// nextBatch makes the pending requests the batch; c.mu is held.
func (c *conn) nextBatch() bool {
	if len(c.pending) == 0 || c.err != nil {
		return false
	}
	c.batch, c.pending = c.pending, c.batch[:0]
	for _, r := range c.batch {
		r.state = sending
	}
	return true
}

// batchSent lets go of the batch, after an error too.
func (c *conn) batchSent(err error) {
	if err != nil {
		c.fail(fmt.Errorf("send: %w", err))
	}
	c.mu.Lock()
	c.markSent(c.batch)
	c.mu.Unlock()
	c.completeLate()
}

// flushed ends the sending; c.mu is held and given up.
func (c *conn) flushed() {
	c.flushing = false
	c.idle.Broadcast()
	c.mu.Unlock()
}

func (c *conn) startPusher() { c.pusher.Go(c.pushRest) }

// pushRest is the goroutine that waits for the socket in place of those who
// start requests, since these have contexts to heed. It ends with drain.
func (c *conn) pushRest() {
	for range c.rest {
		c.batchSent(c.out.finish())
		c.mu.Lock()
		for c.nextBatch() {
			c.mu.Unlock()
			done, err := c.out.try(c.batch)
			if !done && err == nil {
				err = c.out.finish()
			}
			c.batchSent(err)
			c.mu.Lock()
		}
		c.flushed()
	}
}

// markSent lets go of the batch. Requests that were answered or cancelled while
// their memory was being sent go to late.
func (c *conn) markSent(batch []*Request) {
	for i, r := range batch {
		batch[i] = nil
		r.state = sent
		switch {
		case r.replied:
			c.releaseSlot(r)
			c.late = append(c.late, r)
		case r.cancelled != nil && !r.changes() && !r.receiving:
			c.detach(r)
			r.result = r.cancelled
			c.late = append(c.late, r)
		}
	}
}

func (c *conn) completeLate() {
	for i, r := range c.late {
		c.late[i] = nil
		r.complete(r.outcome())
	}
	c.late = c.late[:0]
}

func (r *Request) complete(err error) {
	if !r.discard {
		r.Owner.Complete(r, err)
	}
}

// cancel does Cancel for a request of this connection.
func (c *conn) cancel(r *Request, err error) {
	c.mu.Lock()
	if r.state == idle || c.lookup(r.cookie) != r {
		c.mu.Unlock()
		return
	}
	now := true
	switch {
	case r.state == queued:
		c.unqueue(r)
		c.releaseSlot(r)
	case r.state == sent && !r.receiving && !r.changes():
		c.detach(r)
	default:
		now = false
		r.cancelled = err
		cookie := r.cookie
		// A server that has been silent for so long already gets no more time.
		time.AfterFunc(max(0, CancelGrace-c.stalled()), func() { c.giveUp(r, cookie) })
	}
	c.mu.Unlock()
	if now {
		r.complete(err)
	}
}

func (c *conn) unqueue(r *Request) {
	for i, p := range c.pending {
		if p == r {
			c.pending = append(c.pending[:i], c.pending[i+1:]...)
			return
		}
	}
}

var errStalled = errors.New("the server did not finish a cancelled request in time")

// giveUp ends the connection if a cancelled request is still on it.
func (c *conn) giveUp(r *Request, cookie uint64) {
	c.mu.Lock()
	still := c.lookup(cookie) == r
	c.mu.Unlock()
	if still {
		c.fail(errStalled)
	}
}

// fail ends the session since this connection broke; not while it is being closed,
// when a server may hang up before disconnect has returned.
func (c *conn) fail(err error) {
	if c.client.closed.Load() {
		c.end(ErrClosed)
		return
	}
	if why := c.failure(); why != nil {
		// It was ended: what its receiver says of the closed socket is not why, and
		// must not get to the other connections before the reason does.
		c.client.fail(why)
		return
	}
	c.client.fail(fmt.Errorf("%w: %w", ErrDisconnected, err))
}

// end closes the socket, which ends the receiver and the sender. The receiver
// then completes what is in flight.
func (c *conn) end(err error) {
	c.mu.Lock()
	first, pipe := c.err == nil, c.pipe
	if first {
		c.err = err
	}
	c.mu.Unlock()
	switch {
	case first && pipe != nil:
		pipe.shutdown()
	case first:
		_ = c.out.closer.Close()
	}
}

// wait returns when all requests of a connection that has ended have completed.
func (c *conn) wait() {
	if p := c.owner(); p != nil {
		p.mu.Lock()
		p.drain()
		p.mu.Unlock()
		return
	}
	<-c.done
}

func (c *conn) owner() *Pipe {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pipe
}

func (c *conn) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// disconnect ends the connection politely.
func (c *conn) disconnect() {
	c.mu.Lock()
	polite := !c.flushing && c.err == nil && !c.taken
	c.flushing = c.flushing || polite
	c.mu.Unlock()
	if polite {
		_ = c.nc.SetWriteDeadline(time.Now().Add(time.Second))
		_ = c.out.send([]*Request{{Command: nbd.CmdDisconnect}})
		c.mu.Lock()
		c.flushed()
	}
	c.end(ErrClosed)
}

// drain completes everything in flight once the connection has ended and nobody
// sends any more. It runs on the receiver's goroutine, so no memory is in use.
func (c *conn) drain() {
	c.mu.Lock()
	for c.flushing {
		c.idle.Wait()
	}
	left := c.slots
	c.slots, c.free, c.pending = nil, nil, nil
	err := c.err
	for _, r := range left {
		if r != nil {
			r.state = idle
		}
	}
	c.mu.Unlock()
	for _, r := range left {
		if r != nil {
			r.complete(err)
		}
	}
}
