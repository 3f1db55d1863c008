package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// How many lines of one kind a server logs, and of failed requests one connection: at
// once, and every second after that. A client can make a server fail requests as fast
// as it answers them, which was 240,000 lines a second.
const (
	linesAtOnce     = 50
	linesPerSecond  = 5
	failuresAtOnce  = 5
	secondsPerEntry = 10 // for each further failure
	maxLogKinds     = 64
)

// tokens is a bucket that lets some lines through.
type tokens struct {
	mu      sync.Mutex
	left    float64
	filled  time.Time
	dropped int64
}

// take asks for a line. Where it may be written, dropped is how many before it were not.
func (b *tokens) take(atOnce, perSecond float64) (ok bool, dropped int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.filled.IsZero() {
		b.left = atOnce
	} else {
		b.left = min(atOnce, b.left+perSecond*now.Sub(b.filled).Seconds())
	}
	b.filled = now
	if b.left < 1 {
		b.dropped++
		return false, 0
	}
	b.left--
	dropped, b.dropped = b.dropped, 0
	return true, dropped
}

// boundedLog bounds the lines of each kind, which is its message, and tells with the next
// line that is written how many were not.
type boundedLog struct {
	slog.Handler
	dropped *atomic.Int64
	mu      *sync.Mutex
	kinds   map[string]*tokens
}

func newBoundedLog(h slog.Handler, dropped *atomic.Int64) *boundedLog {
	return &boundedLog{Handler: h, dropped: dropped, mu: &sync.Mutex{}, kinds: map[string]*tokens{}}
}

func (b *boundedLog) kind(message string) *tokens {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.kinds) >= maxLogKinds && b.kinds[message] == nil {
		message = ""
	}
	k := b.kinds[message]
	if k == nil {
		k = &tokens{}
		b.kinds[message] = k
	}
	return k
}

// Handle writes the line, or counts it.
func (b *boundedLog) Handle(ctx context.Context, r slog.Record) error {
	ok, before := b.kind(r.Message).take(linesAtOnce, linesPerSecond)
	if !ok {
		b.dropped.Add(1)
		return nil
	}
	if before > 0 {
		r.AddAttrs(slog.Int64("dropped_before", before))
	}
	return b.Handler.Handle(ctx, r)
}

// WithAttrs shares the bounds.
func (b *boundedLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *b
	with.Handler = b.Handler.WithAttrs(attrs)
	return &with
}

// WithGroup shares the bounds.
func (b *boundedLog) WithGroup(name string) slog.Handler {
	with := *b
	with.Handler = b.Handler.WithGroup(name)
	return &with
}

// logFailure logs a request that failed, unless its client has left or has caused many
// such lines. (A client that left with 64 requests in flight was 64 warnings.)
func (c *conn) logFailure(command string, err error) {
	if errors.Is(err, context.Canceled) && c.ctx.Err() != nil && c.s.ctx.Err() == nil {
		return
	}
	ok, before := c.failures.take(failuresAtOnce, 1.0/secondsPerEntry)
	if !ok {
		c.s.stats.dropped.Add(1)
		return
	}
	args := []any{"export", c.exp.Name, "client", c.peer, "command", command, "error", err}
	if before > 0 {
		args = append(args, "dropped_of_client", before)
	}
	c.s.log.Warn("request failed", args...)
}

// clientName is how the log calls who is at the other end.
func clientName(nc net.Conn) string {
	if name := nc.RemoteAddr().String(); name != "" && name != "@" {
		return name
	}
	return addressOf(nc)
}
