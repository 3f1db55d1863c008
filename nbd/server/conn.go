package server

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/nbd"
)

// How the reading side of a connection ends.
var (
	errDisconnect = errors.New("the client disconnected")
	errDrained    = errors.New("the server ends")
	errYielded    = errors.New("an idle client made room for another")
)

// roundsAtOnce is how many times a connection's socket is read before another
// that wants to may wait in recv. (Changing places costs: the Go scheduler
// watches for 10 ms a thread that went to wait in epoll.)
const roundsAtOnce = 256

// drainRounds is how many times more it is read when the server ends, so that
// what had arrived by then is answered.
const drainRounds = 8

// conn is a connection in the transmission phase.
//
// At most one goroutine reads and serves it, the one that claimed it. Tasks run
// beside that; each of them and the reader hold a reference, and the last to go
// closes the connection.
type conn struct {
	s        *Server
	exp      *export
	peer     string
	mode     nbd.Mode
	flags    nbd.TransmissionFlags
	allowed  [nbd.CmdBlockStatus + 1]nbd.CommandFlags
	contexts []metaContext
	ctx      context.Context
	cancel   context.CancelFunc
	unwatch  func() bool // of the lease

	place    *place
	opened   int64        // when the session began, Unix ns
	failures tokens       // lines of the log about failed requests
	asked    atomic.Int64 // when the last request came, or 0

	t       transport
	socket  *socket // t, when it is a plain socket
	busy    atomic.Bool
	refs    atomic.Int32
	seq     uint64 // older ones have lower numbers
	done    chan struct{}
	lag     lag
	holds   holding
	quick   atomic.Bool  // the last large request did not have to wait for the client
	waits   atomic.Int64 // how often it was waited for
	turn    sync.Mutex   // to answer large reads, had by tasks of a client that is not quick
	slots   chan struct{}
	queued  atomic.Bool   // a task waits for room among those of all
	alone   chan struct{} // tells it that it is the only one
	flushes flushes
	out     output

	// The reader's.
	saved      [nbd.ExtendedRequestSize]byte // a part of a header
	nsaved     int
	dispatched bool // a task was started since the last wait
	served     int  // requests in this batch
	gather     gatherer
	waitsSeen  int64     // of waits, after the last batch
	waited     bool      // a request of this batch had to wait for others to end
	crowded    bool      // one of the last batch had, or there was none
	large      bool      // the last request was a write with more data than goes through a workspace
	now        time.Time // when the batch began
	yielded    time.Time
	wrote      bool          // inline in this batch
	longest    time.Duration // of the inline writes of this batch
	slowSeen   int           // slow batches of late
	fast       int           // quick batches since the last slow one
	slowUntil  time.Time
	slow       bool // inline writes were seen to block
	dataFrom   int64
	dataTo     int64 // known not to be a hole
	extents    [2]disk.Extent
}

// newConn begins the transmission phase. The connection belongs to the conn
// unless there is an error.
func (s *Server) newConn(a *agreement, p *place) (*conn, error) {
	c := &conn{
		s: s, exp: a.exp, peer: a.peer, mode: a.mode, flags: a.flags, contexts: a.contexts,
		slots: make(chan struct{}, s.cfg.Depth), alone: make(chan struct{}, 1), crowded: true, place: p, opened: time.Now().UnixNano(),
	}
	c.allowed = allowedFlags(a.mode, a.flags)
	k, err := newSocket(a.conn, c)
	switch {
	case err == nil:
		c.t, c.socket = k, k
	case errors.Is(err, errors.ErrUnsupported):
		c.t = &stream{conn: a.conn, stall: c}
	default:
		return nil, err
	}
	c.out.t, c.out.poll, c.out.freeSlot = c.t, s.poll, c.freeSlot
	c.ctx, c.cancel = context.WithCancel(s.ctx)
	c.refs.Store(1)
	c.busy.Store(true)
	s.mu.Lock()
	s.seq++
	c.seq, c.done = s.seq, make(chan struct{})
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	c.watchLease()
	return c, nil
}

// first hands a new connection to the poller, or serves it where there is no
// descriptor to poll.
func (c *conn) first() {
	c.awaitLeft()
	if c.socket == nil {
		c.runStream()
		return
	}
	c.busy.Store(false)
	if err := c.s.poll.add(c, c.socket.fd); err != nil && c.claim() {
		c.finish(err)
	} else if c.s.draining.Load() {
		c.drain()
	}
}

// claim makes the caller the reader of an idle connection.
func (c *conn) claim() bool { return c.busy.CompareAndSwap(false, true) }

// run serves a claimed connection until it is idle or ends.
func (c *conn) run() {
	for {
		err := c.serve()
		if err != errIdle {
			c.finish(err)
			return
		}
		fd := c.socket.fd
		c.busy.Store(false)
		if err := c.s.poll.arm(fd); err != nil && c.claim() {
			c.finish(err)
			return
		}
		if !c.s.draining.Load() || !c.claim() {
			return
		}
	}
}

// runStream serves a stream until it ends. Between requests it holds no buffer.
func (c *conn) runStream() {
	t := c.t.(*stream)
	if c.s.draining.Load() { // it may have begun before there was a deadline to shorten
		c.finish(errDrained)
		return
	}
	for {
		c.busy.Store(false)
		n, err := t.conn.Read(c.saved[c.nsaved:])
		if !c.claim() {
			c.finish(errYielded)
			return
		}
		c.nsaved += n
		if err == nil {
			err = c.serve()
		}
		if t.idleOr(err) != errIdle || c.s.draining.Load() {
			c.finish(err)
			return
		}
	}
}

// serve handles what has arrived and what arrives soon after it. It fails with
// errIdle when there is no more.
func (c *conn) serve() error {
	ws, err := c.space()
	if err != nil {
		return err
	}
	defer c.putSpace(ws)
	ws.w = copy(ws.in, c.saved[:c.nsaved])
	c.nsaved = 0
	err = c.rounds(ws)
	if err == errIdle {
		c.nsaved = copy(c.saved[:], ws.in[ws.r:ws.w])
	}
	return err
}

func (c *conn) rounds(ws *workspace) error {
	hot, drained := false, 0
	defer func() {
		if hot {
			c.s.hot.Add(1)
		}
	}()
	for round := 0; ; round++ {
		if round > 0 || c.socket != nil {
			c.pause(round)
			n, err := c.t.receive(ws.in[ws.w:c.ahead(ws)])
			if err == errIdle && c.s.draining.Load() {
				return errDrained
			}
			if err != nil {
				return err
			}
			ws.w += n
		}
		err := c.batch(ws)
		if err == nil {
			err = c.ctx.Err() // it was cut
		}
		if err != nil {
			return err
		}
		if c.s.draining.Load() {
			if drained++; drained > drainRounds || c.socket == nil || c.socket.poll(unix.POLLIN, 0) == 0 {
				return errDrained
			}
			continue
		}
		if !hot && c.socket != nil {
			hot = c.mayWait()
		}
		if !hot && c.socket != nil || round >= roundsAtOnce && c.s.hotWanted.Swap(false) {
			return errIdle
		}
	}
}

// pause lets others have their turn, and lets requests gather after the first round.
func (c *conn) pause(round int) {
	c.yield()
	if round > 0 && c.socket != nil {
		c.gather.wait(c.served)
	}
}

// aheadLarge is what is read ahead after a large write: the next headers. Of the
// payload that follows them, what is read ahead has to be copied once more: half of
// a write of 256 KiB.
const aheadLarge = 1 << 10

// ahead is where reading ahead ends.
func (c *conn) ahead(ws *workspace) int {
	switch {
	case c.large:
		return min(ws.w+aheadLarge, len(ws.in))
	case c.crowded:
		return min(ws.w+aheadCrowded, len(ws.in))
	}
	return len(ws.in)
}

// mayWait decides whether the reader waits in recv for what comes next.
func (c *conn) mayWait() bool {
	if c.s.hot.Add(-1) < 0 {
		c.s.hot.Add(1)
		if !c.s.hotWanted.Load() {
			c.s.hotWanted.Store(true)
		}
		return false
	}
	c.s.poll.ensureWaiter()
	return true
}

// batch serves the requests in the workspace and sends the replies.
func (c *conn) batch(ws *workspace) error {
	start := time.Now()
	c.now, c.waited = start, false
	if c.slow && start.After(c.slowUntil) {
		c.slow = false
	}
	err := c.consume(ws)
	if c.served > 0 {
		c.asked.Store(start.UnixNano())
		waits := c.waits.Load()
		c.crowded = c.waited || waits != c.waitsSeen
		c.waitsSeen = waits
	}
	if c.wrote {
		c.watch(c.longest)
		c.wrote, c.longest = false, 0
	}
	if len(ws.out) > 0 {
		if serr := c.flush(ws); err == nil {
			err = serr
		}
	}
	ws.w = copy(ws.in, ws.in[ws.r:ws.w])
	ws.r = 0
	return err
}

// flush sends the replies of a batch.
func (c *conn) flush(ws *workspace) error {
	if c.socket == nil || !c.socket.unix {
		return c.out.flush(ws)
	}
	c.gather.replying(c.socket.fd)
	err := c.out.flush(ws)
	c.gather.replied(c.socket.fd, c.served)
	return err
}

// consume decodes and serves the complete requests in the workspace.
func (c *conn) consume(ws *workspace) error {
	var r nbd.Request
	for c.served = 0; ; c.served++ {
		n, err := r.Decode(ws.in[ws.r:ws.w], c.mode)
		if err == nbd.ErrShort {
			return nil
		}
		if err != nil {
			return err
		}
		ws.r += n
		if err := c.request(ws, &r); err != nil {
			return err
		}
	}
}

// Inline writes block when the kernel throttles writers of dirty pages, which
// it does in pauses of up to 200 ms. When slowTimes batches had a write of
// slowWrite or longer, with fewer than fastTimes quick ones in a row between
// them, writes go to workers for slowTime. A single slow write is scheduling
// noise of a busy host; throttling slows nearly every batch. (The time of a whole
// batch says little: with 64 requests on each of four connections and 40 us a
// write, as large folios cost, it is 10 ms without any blocking.) Where no kernel takes
// the data, as with a disk in memory, there is nothing but noise: three processes on
// two busy processors sent a third of a copy's writes to workers.
const (
	slowWrite = 10 * time.Millisecond
	slowTimes = 3
	fastTimes = 16
	slowTime  = time.Second
)

// watch looks at the longest inline write of a batch.
func (c *conn) watch(longest time.Duration) {
	if longest < slowWrite || !c.exp.Disk.Info().KernelIO {
		if c.fast++; c.fast >= fastTimes {
			c.slowSeen = 0
		}
		return
	}
	c.fast = 0
	if c.slowSeen++; c.slowSeen >= slowTimes {
		c.slow, c.slowUntil, c.slowSeen = true, time.Now().Add(slowTime), 0
	}
}

// finish ends the reading side.
func (c *conn) finish(err error) {
	switch {
	case err == errDisconnect, err == errDrained, err == errYielded:
	case c.t.gone() || err != io.EOF:
		c.cancel()
	}
	if errors.Is(err, nbd.ErrMalformed) || errors.Is(err, errFlood) {
		c.s.log.Warn("protocol error, disconnecting", "export", c.exp.Name, "client", c.peer, "error", err)
		c.t.shut()
	}
	c.unref()
}

func (c *conn) unref() {
	if c.refs.Add(-1) > 0 {
		return
	}
	c.cancel()
	if c.socket != nil {
		c.s.poll.remove(c.socket.fd)
	}
	c.s.mu.Lock()
	delete(c.s.conns, c)
	c.s.mu.Unlock()
	c.t.close(c.s.draining.Load())
	c.endLease()
	close(c.done)
	c.s.ended(c.place)
}

// drain makes the reader end once it has served what has arrived.
func (c *conn) drain() {
	if c.socket == nil {
		_ = c.t.(*stream).conn.SetReadDeadline(time.Now())
		return
	}
	if !c.claim() {
		return
	}
	if c.nsaved == 0 && c.socket.poll(unix.POLLIN, 0) == 0 {
		c.finish(errDrained)
		return
	}
	go c.run() // it is waited for as an open connection
}

// kill ends the connection as it is. The caller holds Server.mu, under which the
// connection is not closed.
func (c *conn) kill() {
	c.cancel()
	c.t.shut()
}
