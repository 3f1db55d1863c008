package nbd

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	wire "github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/client"
)

// disconnected ends a session; d.mu is held. The first to report it starts the
// reconnecting.
func (d *Driver) disconnected(old *client.Client, cause error) {
	if d.session != old || d.dead != nil {
		return
	}
	d.session = nil
	d.ready = make(chan struct{})
	if d.flaps++; d.flaps == 1 {
		d.since = time.Now()
	}
	// A server that broke the protocol would do so again.
	if d.cfg.Reconnect.Disabled || errors.Is(cause, wire.ErrMalformed) {
		d.dead = cause
	}
	// A server that lets us in and then answers nothing, twice, is no server that
	// comes back.
	if silent(cause) && d.flaps > 1 {
		d.dead = cause
	}
	d.helper.Add(1)
	go d.reconnect(old, cause)
}

// reconnect replaces a lost session, or gives up for good.
func (d *Driver) reconnect(old *client.Client, cause error) {
	defer d.helper.Done()
	old.Abort()
	d.mu.Lock()
	for d.inflight > 0 {
		d.quiet.Wait()
	}
	err := d.dead
	d.countLosses(cause)
	changes := d.log.ordered()
	again := d.flaps > 1
	d.mu.Unlock()
	var c *client.Client
	if err == nil {
		c, err = d.redial(changes, cause, again)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead == nil && err != nil {
		d.dead = err
	}
	if err == nil {
		d.session, d.conns = c, c.Connections()
		d.reconnects++
	}
	close(d.ready)
}

// countLosses makes flushes fail from now on if there were changes that the log
// does not hold. Nothing is in flight, d.mu is held.
func (d *Driver) countLosses(cause error) {
	if d.log.complete() || d.lost != nil {
		return
	}
	d.lost = fmt.Errorf("the connection was lost with writes that were neither flushed nor kept (%w); whether they survived is unknown: write them again", cause)
	d.log.disable()
}

// redial tries until there is a connection on which all changes were repeated.
// again tells that the last session did nothing but break.
func (d *Driver) redial(changes []*record, cause error, again bool) (*client.Client, error) {
	r := d.cfg.Reconnect
	ctx, cancel := context.WithDeadline(d.ctx, d.since.Add(r.Limit))
	defer cancel()
	if again {
		pause(ctx, r.MaxDelay)
	}
	for delay := r.Delay; ; delay = min(2*delay, r.MaxDelay) {
		c, err := d.attempt(ctx, changes)
		if err == nil {
			return c, nil
		}
		var final *finalError
		if errors.As(err, &final) || silent(err) && silent(cause) {
			return nil, err
		}
		if ctx.Err() == nil {
			cause = err
			pause(ctx, delay)
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("NBD server %s is gone, and did not come back within %v: %w", d.cfg.Client.Addr, r.Limit, cause)
		}
	}
}

// silent reports whether a session ended since its server answered nothing.
func silent(err error) bool {
	return errors.Is(err, client.ErrDisconnected) && errors.Is(err, syscall.ETIMEDOUT)
}

func pause(ctx context.Context, delay time.Duration) {
	t := time.NewTimer(delay)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// finalError is one that trying again does not help.
type finalError struct{ err error }

func (e *finalError) Error() string { return e.err.Error() }
func (e *finalError) Unwrap() error { return e.err }

func (d *Driver) attempt(ctx context.Context, changes []*record) (*client.Client, error) {
	c, err := client.Dial(ctx, d.cfg.Client)
	if err != nil {
		return nil, err
	}
	if err = d.recognize(c); err == nil {
		err = replay(ctx, c, changes)
	}
	if err != nil {
		c.Abort()
		return nil, err
	}
	return c, nil
}

// recognize refuses an export that is not the one that was lost.
func (d *Driver) recognize(c *client.Client) error {
	e := c.Export()
	if !e.Same(&d.export) {
		return &finalError{fmt.Errorf("NBD server %s came back with another export: %d bytes, flags %v, block sizes %d/%d/%d, %v headers instead of %d, %v, %d/%d/%d, %v; open it anew",
			d.cfg.Client.Addr, e.Size, flagNames(e.Flags), e.Min, e.Preferred, e.Max, e.Mode,
			d.export.Size, flagNames(d.export.Flags), d.export.Min, d.export.Preferred, d.export.Max, d.export.Mode)}
	}
	return nil
}

// replayWindow is how many changes are repeated at once.
const replayWindow = 32

// replay repeats changes. Those that overlap keep their order: the later one is
// sent when the earlier one has completed.
func replay(ctx context.Context, c *client.Client, changes []*record) error {
	for len(changes) > 0 {
		n := 1
		for n < min(len(changes), replayWindow) && !overlaps(changes[n], changes[:n]) {
			n++
		}
		if err := replayTogether(ctx, c, changes[:n]); err != nil {
			return err
		}
		changes = changes[n:]
	}
	return nil
}

func overlaps(e *record, list []*record) bool {
	for _, o := range list {
		if e.off < o.off+o.n && o.off < e.off+e.n {
			return true
		}
	}
	return false
}

// waiter collects the ends of requests.
type waiter chan error

func (w waiter) Complete(_ *client.Request, err error) { w <- err }

func replayTogether(ctx context.Context, c *client.Client, changes []*record) error {
	ends := make(waiter, len(changes))
	stop := context.AfterFunc(ctx, func() { c.Abort() })
	defer stop()
	batch := make([]*client.Request, len(changes))
	for i, e := range changes {
		batch[i] = &client.Request{Command: e.cmd, Flags: e.flag, Offset: e.off, Length: e.n, Owner: ends}
		if e.cmd == wire.CmdWrite {
			batch[i].Vec = [][]byte{e.data}
		}
	}
	c.Start(batch...)
	var failed error
	for range changes {
		if err := <-ends; err != nil && failed == nil {
			failed = err
		}
	}
	if failed != nil && !isLost(failed) {
		return &finalError{fmt.Errorf("the NBD server refuses to take an acknowledged write again after the connection was lost: %w", failed)}
	}
	return failed
}
