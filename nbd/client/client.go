package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmdisk/vmdisk/nbd"
)

// Client is a session with one export over one or several connections. All
// methods are safe for concurrent use, except that Close is called last.
type Client struct {
	export Export
	limit  int64 // the longest zero, trim, cache or status
	conns  []*conn
	// shared are the connections that no Pipe has taken.
	shared atomic.Pointer[[]*conn]
	taking sync.Mutex
	closed atomic.Bool // by Close
	// ended tells the watcher that the session is over.
	ended   chan struct{}
	ending  sync.Once
	watcher sync.WaitGroup
}

// Dial connects to an export and negotiates. Further connections than the first
// are opened only if the server promises consistency among them; those that it
// does not take are done without.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	start := time.Now()
	first, err := dialExport(ctx, &cfg)
	if err != nil {
		return nil, err
	}
	hands := []*handshake{first}
	if first.export.Has(nbd.FlagCanMultiConn) && cfg.Connections > 1 {
		more := cfg
		more.HandshakeTimeout = min(cfg.HandshakeTimeout, max(morePatience*time.Since(start), minPatience))
		hands = append(hands, dialMore(ctx, &more)...)
	}
	for _, h := range hands[1:] {
		if !h.export.Same(&first.export) {
			for _, h := range hands {
				h.nc.Close()
			}
			return nil, fmt.Errorf("NBD server %s shows a different export %q on each connection", cfg.Addr, cfg.Export)
		}
	}
	return newClient(hands, cfg.Timeout), nil
}

// A server may promise consistency among connections and yet take only a few
// (qemu-nbd -e 2 leaves the third in its backlog for ever), so the others wait
// this many times as long as the first took, and minPatience at least.
const (
	morePatience = 20
	minPatience  = time.Second
)

// dialExport does a whole handshake.
func dialExport(ctx context.Context, cfg *Config) (*handshake, error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.HandshakeTimeout)
	defer cancel()
	h, err := connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := h.within(ctx, h.open); err != nil {
		h.nc.Close()
		return nil, err
	}
	return h, nil
}

// dialMore opens the connections after the first, all at once.
func dialMore(ctx context.Context, cfg *Config) (hands []*handshake) {
	var mu sync.Mutex
	var group sync.WaitGroup
	for range cfg.Connections - 1 {
		group.Go(func() {
			h, err := dialExport(ctx, cfg)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			hands = append(hands, h)
		})
	}
	group.Wait()
	return hands
}

func newClient(hands []*handshake, timeout time.Duration) *Client {
	c := &Client{export: hands[0].export, ended: make(chan struct{})}
	c.limit = 1<<32 - int64(c.export.Min)
	if c.export.Mode == nbd.Extended {
		c.limit = math.MaxInt64 &^ int64(c.export.Min-1)
	}
	for _, h := range hands {
		c.conns = append(c.conns, newConn(c, h))
	}
	shared := slices.Clone(c.conns)
	c.shared.Store(&shared)
	for _, conn := range c.conns {
		go conn.receive()
	}
	c.watcher.Go(func() { c.watch(timeout) })
	return c
}

// Export describes the export and what was negotiated.
func (c *Client) Export() Export { return c.export }

// Connections is the number of connections.
func (c *Client) Connections() int { return len(c.conns) }

// MaxEffect is the longest range in bytes of a request without payload
// (WRITE_ZEROES, TRIM, CACHE, BLOCK_STATUS). Reads and writes are bounded by
// Export.Max.
func (c *Client) MaxEffect() int64 { return c.limit }

// Start sends requests. Those that are started together on one connection go
// out together. A request that the export does not allow (outside it, too long,
// with a command or flag that was not offered) is refused without being sent.
// Start does not wait for the server.
func (c *Client) Start(rs ...*Request) {
	var last *conn
	for _, r := range rs {
		r.reset()
		err := c.check(r)
		if err == nil {
			last, err = c.enqueue(r)
		}
		if err != nil {
			r.Owner.Complete(r, err)
		}
	}
	switch {
	case last == nil:
	case len(rs) == 1:
		last.flush()
	default:
		for _, conn := range *c.shared.Load() {
			conn.flush()
		}
	}
}

// enqueue puts a request in line on a connection.
func (c *Client) enqueue(r *Request) (*conn, error) {
	for {
		conn := c.pick()
		r.conn = conn
		// A connection can be taken away just after it was picked.
		if err := conn.enqueue(r, false); err != errTaken {
			return conn, err
		}
	}
}

// pick returns the connection with the fewest requests in flight.
func (c *Client) pick() *conn {
	shared := *c.shared.Load()
	best := shared[0]
	if len(shared) == 1 {
		return best
	}
	load := best.load.Load()
	for _, conn := range shared[1:] {
		if l := conn.load.Load(); l < load {
			best, load = conn, l
		}
	}
	return best
}

// needs are the transmission flags without which a command may not be sent.
var needs = [...]nbd.TransmissionFlags{
	nbd.CmdFlush: nbd.FlagSendFlush, nbd.CmdTrim: nbd.FlagSendTrim,
	nbd.CmdCache: nbd.FlagSendCache, nbd.CmdWriteZeroes: nbd.FlagSendWriteZeroes,
	nbd.CmdBlockStatus: 0,
}

var (
	errNotOffered = fmt.Errorf("the NBD server does not offer this: %w", errors.ErrUnsupported)
	errReadOnly   = &Error{Errno: nbd.EPERM, Message: "the export is read-only", Offset: -1}
	errBounds     = errors.New("NBD request outside the export, or too long for the server")
	errAborted    = fmt.Errorf("%w: given up by the client", ErrDisconnected)
	errRequest    = errors.New("malformed NBD request")
)

func (c *Client) check(r *Request) error {
	if r.Offset < 0 || r.Length < 0 || r.Offset > c.export.Size || r.Length > c.export.Size-r.Offset {
		return errBounds
	}
	if int(r.Command) >= len(needs) || r.Command == nbd.CmdDisconnect || !c.export.Has(needs[r.Command]) {
		return errNotOffered
	}
	if r.changes() && c.export.Has(nbd.FlagReadOnly) {
		return errReadOnly
	}
	if err := c.checkFlags(r); err != nil {
		return err
	}
	switch r.Command {
	case nbd.CmdRead, nbd.CmdWrite:
		return c.checkPayload(r)
	case nbd.CmdFlush:
		return nil
	case nbd.CmdBlockStatus:
		if r.Context < 0 || r.Context >= len(c.export.Contexts) {
			return errNotOffered
		}
	}
	if r.Length > c.limit {
		return errBounds
	}
	if r.Length == 0 {
		return errRequest
	}
	return nil
}

func (c *Client) checkFlags(r *Request) error {
	need := nbd.TransmissionFlags(0)
	if r.Flags&nbd.CmdFlagFUA != 0 {
		need |= nbd.FlagSendFUA
	}
	if r.Flags&nbd.CmdFlagDF != 0 {
		need |= nbd.FlagSendDF
	}
	if r.Flags&nbd.CmdFlagFastZero != 0 {
		need |= nbd.FlagSendFastZero
	}
	if !c.export.Has(need) {
		return errNotOffered
	}
	return nil
}

func (c *Client) checkPayload(r *Request) error {
	if r.Length == 0 {
		return errRequest
	}
	if r.Length > int64(c.export.Max) {
		return errBounds
	}
	if r.Command == nbd.CmdWrite && r.File != nil {
		if !c.CanSendFile() {
			return fmt.Errorf("sending from a file needs a plain socket: %w", errors.ErrUnsupported)
		}
		return nil
	}
	n := int64(0)
	for _, p := range r.Vec {
		n += int64(len(p))
	}
	if n != r.Length {
		return errRequest
	}
	return nil
}

// CanSendFile reports whether writes may take their payload from a file.
func (c *Client) CanSendFile() bool { return c.conns[0].out.raw != nil }

// Cancel asks that a request which was started and perhaps has not completed
// yet end soon, with err. What is not sent yet is taken back; reads, flushes and
// the like are given up. A change of the export that the server may be doing is
// waited for, for CancelGrace: a later write to the same place could otherwise
// be overtaken by it. After that, or when memory stays in the hands of a
// stalled connection, the client is disconnected. Complete is called as ever.
func (c *Client) Cancel(r *Request, err error) {
	if r.conn != nil {
		r.conn.cancel(r, err)
	}
}

// Err returns why the session ended, or nil.
func (c *Client) Err() error { return c.conns[0].failure() }

// Close says goodbye to the server and ends the connections; requests in flight
// fail with ErrClosed. It does not flush.
func (c *Client) Close() error {
	c.closed.Store(true)
	for _, conn := range c.conns {
		conn.disconnect()
	}
	c.wait()
	return nil
}

// Abort ends the connections without a word to the server and returns when all
// requests have completed; those in flight fail with ErrDisconnected.
func (c *Client) Abort() {
	c.fail(errAborted)
	c.wait()
}

func (c *Client) wait() {
	c.ending.Do(func() { close(c.ended) })
	c.watcher.Wait()
	for _, conn := range c.conns {
		conn.wait()
	}
}

// fail ends all connections: with one gone, nobody can tell any more what the
// server has done.
func (c *Client) fail(err error) {
	for _, conn := range c.conns {
		conn.end(err)
	}
}
