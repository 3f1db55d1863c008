package server

import (
	"sync"
	"sync/atomic"
	"time"
)

// noise bounds the lines that clients can cause, so that none of them fills the log's
// disk or rotates away what others did. It is a bucket that holds burst lines and fills
// up by rate lines a second. Safe for concurrent use.
type noise struct {
	rate, burst float64

	mu     sync.Mutex
	used   float64
	filled time.Time
}

func (n *noise) allow(now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.used = max(n.used-now.Sub(n.filled).Seconds()*n.rate, 0)
	n.filled = now
	if n.used+1 > n.burst {
		return false
	}
	n.used++
	return true
}

// What a connection may write on its own, and all together.
const (
	connLines, connBurst = 1, 20
	allLines, allBurst   = 50, 500
)

// quiet is the logger's face towards clients: what is too much is counted.
type quiet struct {
	*logger
	all  noise
	left atomic.Int64
}

func newQuiet(l *logger) *quiet {
	return &quiet{logger: l, all: noise{rate: allLines, burst: allBurst}}
}

// allow reports whether another line may be written on behalf of a client.
func (q *quiet) allow(own *noise) bool {
	now := time.Now()
	if own != nil && !own.allow(now) || !q.all.allow(now) {
		q.left.Add(1)
		return false
	}
	q.tellLeft()
	return true
}

// tellLeft says how many lines are missing.
func (q *quiet) tellLeft() {
	if q.left.Load() > 0 {
		q.warn("server", "%d lines about clients were left out: they came too fast", q.left.Swap(0))
	}
}

// note logs a request that is in order; complain, one that is not.
func (c *conn) note(part, format string, args ...any) {
	if c.svc.log.allow(&c.lines) {
		c.svc.log.info(part, format, args...)
	}
}

func (c *conn) warn(format string, args ...any) {
	if c.svc.log.allow(&c.lines) {
		c.svc.log.warn("http", format, args...)
	}
}

func (c *conn) complain(format string, args ...any) {
	if c.svc.log.allow(&c.lines) {
		c.svc.log.error("http", format, args...)
	}
}
