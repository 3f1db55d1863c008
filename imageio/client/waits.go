package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrSilent: the server took a connection or a request and answered nothing within
// the time-out. It matches syscall.ETIMEDOUT.
var ErrSilent = fmt.Errorf("the server does not answer: %w", syscall.ETIMEDOUT)

// slowFactor is how many time-outs a server may be silent over what it answers at
// its end alone: a flush, a zero.
const slowFactor = 10

// timeout is the time without progress that the request may take.
func (k *call) timeout(usual time.Duration) time.Duration {
	if k.slow && usual > 0 {
		return slowFactor*usual + k.more
	}
	return usual
}

// waits knows since when no request of a client has moved.
type waits struct {
	requests atomic.Int32
	since    atomic.Int64 // ns
}

// begin notes that a request starts, and returns what notes its end.
func (w *waits) begin() (end func()) {
	if w.requests.Add(1) == 1 {
		w.moved(time.Now())
	}
	return func() { w.requests.Add(-1) }
}

func (w *waits) moved(now time.Time) { w.since.Store(now.UnixNano()) }

// Waiting is how long the server has been silent though it has requests to answer.
func (c *Client) Waiting() time.Duration {
	if c.waits.requests.Load() == 0 {
		return 0
	}
	return max(0, time.Duration(time.Now().UnixNano()-c.waits.since.Load()))
}

// explain says what a time-out of the connection means; an interruption is none.
func (t *timedConn) explain(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) && !t.interrupted.Load() {
		return fmt.Errorf("no answer for %v: %w", t.timeout, ErrSilent)
	}
	return err
}

// noAnswer says what it means that a connection was not made within limit; the
// caller's own deadline is not meant.
func noAnswer(ctx context.Context, err error, limit time.Duration) error {
	if err != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return fmt.Errorf("no connection within %v: %w", limit, ErrSilent)
	}
	return err
}
