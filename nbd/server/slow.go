package server

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// Nobody waits for buffers that a slow client holds. The buffers of all connections
// come out of one budget, and who holds some works with them, or waits for the disk.
// As soon as a connection waits for its client, all that it holds is moved to a second
// budget, of slow clients, so that the first is free for others. When the second is
// full, the client that lags most loses its connection. (Before, 300 clients that sent
// a payload byte by byte held all buffers, and an honest read took 25.8 s.)

// minRate is the rate in bytes a second at which a client that is waited for does not
// lag. One that is slower lags by what it is late, for which it is cut before others
// when slow ones hold too much.
const minRate = 4 << 10

// maxLag bounds what is held against a client that stood still and goes on.
const maxLag = time.Minute

// lag is how late a client is.
type lag struct {
	since atomic.Int64 // when it would have been asked first, had it kept to minRate; Unix ns; 0: not waited for
	debt  atomic.Int64 // ns, while it is not waited for
}

// begin and end surround waiting for the client; begin may be called again and again.
func (l *lag) begin() {
	if l.since.Load() == 0 {
		l.since.CompareAndSwap(0, time.Now().UnixNano()-l.debt.Load())
	}
}

func (l *lag) end() {
	if since := l.since.Load(); since != 0 {
		l.debt.Store(min(max(time.Now().UnixNano()-since, 0), int64(maxLag)))
		l.since.Store(0)
	}
}

// progress tells that n bytes went through.
func (l *lag) progress(n int) {
	gain := int64(n) * int64(time.Second) / minRate
	if since := l.since.Load(); since != 0 {
		l.since.CompareAndSwap(since, min(since+gain, time.Now().UnixNano()))
	} else if debt := l.debt.Load(); debt != 0 {
		l.debt.Store(max(debt-gain, 0))
	}
}

// now is how late the client is, 0 if nobody waits for it.
func (l *lag) now() time.Duration {
	since := l.since.Load()
	if since == 0 {
		return 0
	}
	return time.Duration(time.Now().UnixNano() - since)
}

// holding is what a connection holds of the shared buffers.
type holding struct {
	mu     sync.Mutex
	spaces int64               // workspaces
	bytes  int64               // of pieces
	kept   int64               // of parked workspaces, always of the slow clients' budget
	part   *semaphore.Weighted // of the workspaces, that it has its from; nil: of all
	slow   bool                // of the slow clients' budget, until all is given back
	cut    bool                // under Server.mu: it is being cut
}

func (h *holding) cost() int64 { return h.spaces*spaceCost + h.bytes }

// slowCost is what it takes of the slow clients' budget.
func (h *holding) slowCost() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.slow {
		return h.kept
	}
	return h.cost() + h.kept
}

// keep notes that a parked workspace holds n bytes.
func (h *holding) keep(n int64) {
	h.mu.Lock()
	h.kept += n
	h.mu.Unlock()
}

// took accounts for what was acquired of the fast budget, and reports whether it was
// moved to the other.
func (h *holding) took(m *memory, spaces, bytes int64) (slow bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.spaces += spaces
	h.bytes += bytes
	if h.slow {
		m.slow.Add(spaces*spaceCost + bytes)
		m.release(spaces, bytes)
	}
	return h.slow
}

// tookPart notes of which part the workspace will be.
func (h *holding) tookPart(part *semaphore.Weighted) {
	h.mu.Lock()
	h.part = part
	h.mu.Unlock()
}

// leavePart gives that back. The caller holds h.mu.
func (h *holding) leavePart() {
	if h.part != nil {
		h.part.Release(1)
		h.part = nil
	}
}

// gave gives back.
func (h *holding) gave(m *memory, spaces, bytes int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if spaces > 0 {
		h.leavePart()
	}
	h.spaces -= spaces
	h.bytes -= bytes
	if !h.slow {
		m.release(spaces, bytes)
		return
	}
	m.slow.Add(-spaces*spaceCost - bytes)
	h.slow = h.cost() > 0
}

// move moves all to the slow clients' budget.
func (h *holding) move(m *memory) (moved bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.slow || h.cost() == 0 {
		return false
	}
	h.slow = true
	h.leavePart()
	m.slow.Add(h.cost())
	m.release(h.spaces, h.bytes)
	return true
}

// begin and end make conn a stall: what tells it that it waits for its client.
func (c *conn) begin() {
	c.s.poll.ensureWaiter()
	c.lag.begin()
	c.quick.Store(false)
	c.waits.Add(1)
	c.lend()
}

// went tells that a large request went through since the client had been waited for
// so many times.
func (c *conn) went(waits int64) {
	if c.waits.Load() == waits && !c.quick.Load() {
		c.quick.Store(true)
	}
}

// portion is what of n bytes is worth a buffer at a time: little as long as the client
// has not proved to be quick, so that many slow ones fit into their budget.
func (c *conn) portion(n int64) int64 {
	if !c.quick.Load() {
		return min(n, pieceSmall)
	}
	return min(n, pieceLarge)
}

func (c *conn) end() { c.lag.end() }

func (c *conn) progress(n int) { c.lag.progress(n) }

// lend leaves the fast budget to others while the connection waits.
func (c *conn) lend() {
	if c.holds.move(c.s.mem) {
		c.s.cutSlowest()
	}
}

// space takes a workspace.
func (c *conn) space() (*workspace, error) {
	if part := c.part(); part != nil {
		if err := c.s.mem.wait(c.ctx, part, 1); err != nil {
			return nil, err
		}
		c.holds.tookPart(part)
	}
	ws := c.s.mem.trySpace()
	if ws == nil {
		c.s.poll.ensureWaiter()
		var err error
		if ws, err = c.s.mem.takeSpace(c.ctx); err != nil {
			c.holds.mu.Lock()
			c.holds.leavePart()
			c.holds.mu.Unlock()
			return nil, err
		}
	}
	if c.holds.took(c.s.mem, 1, 0) {
		c.s.cutSlowest()
	}
	return ws, nil
}

func (c *conn) putSpace(ws *workspace) {
	if ws.parked {
		c.forget(ws)
		return
	}
	c.s.mem.putSpace(ws)
	c.holds.gave(c.s.mem, 1, 0)
}

func (c *conn) takePiece(n int) (*[]byte, error) {
	if err := c.reserve(c.s.mem.pieceCost(n)); err != nil {
		return nil, err
	}
	return c.s.mem.takePiece(n), nil
}

func (c *conn) putPiece(p *[]byte) {
	n := int64(len(*p))
	c.s.mem.putPiece(p)
	c.unreserve(n)
}

// reserve counts n bytes of memory.
func (c *conn) reserve(n int64) error {
	if err := c.s.mem.reserve(c.ctx, n); err != nil {
		return err
	}
	if c.holds.took(c.s.mem, 0, n) {
		c.s.cutSlowest()
	}
	return nil
}

func (c *conn) unreserve(n int64) { c.holds.gave(c.s.mem, 0, n) }

// cutSlowest ends the connections that lag most, until the slow ones hold no more than
// they may. What those that are being cut still hold does not count.
func (s *Server) cutSlowest() {
	if s.mem.slow.Load() <= s.mem.slowMax {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		over, worst := s.mem.slow.Load()-s.mem.slowMax, (*conn)(nil)
		for c := range s.conns {
			switch cost := c.holds.slowCost(); {
			case c.holds.cut:
				over -= cost
			case cost > 0 && (worst == nil || c.lag.now() > worst.lag.now()):
				worst = c
			}
		}
		if over <= 0 || worst == nil {
			return
		}
		worst.holds.cut = true
		s.log.Warn("cutting the slowest client, since slow ones hold too much memory", "export", worst.exp.Name,
			"client", worst.peer, "late", worst.lag.now().Round(time.Millisecond))
		worst.kill()
	}
}

// reserve waits for n bytes of the budget for pieces.
func (m *memory) reserve(ctx context.Context, n int64) error { return m.wait(ctx, m.pieces, n) }

func (m *memory) release(spaces, bytes int64) {
	if spaces > 0 {
		m.spaces.Release(spaces)
	}
	if bytes > 0 {
		m.pieces.Release(bytes)
	}
}
