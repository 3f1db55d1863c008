package nbd

import (
	"context"
	"errors"
	"sync"

	"github.com/vmdisk/vmdisk/disk"
	wire "github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/client"
)

// op is a request of the disk on its way through the session. One goroutine
// starts it, again after a reconnect, and waits for its end.
type op struct {
	client.Request
	d       *Driver
	session *client.Client
	seq     uint64 // of a change
	mark    uint64 // of a flush
	// The end goes to done, or to the queue that the op is of.
	done  chan error
	queue *queue
	tag   uint64
	err   error
	busy  bool
	one   [1][]byte
	file  client.FileSource
}

// begin takes part in the current session. If there is none, it returns a
// channel that is closed when there may be one.
func (d *Driver) begin(o *op) (wait <-chan struct{}, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.dead != nil:
		return nil, d.dead
	case o.Command == wire.CmdFlush && d.lost != nil:
		return nil, d.lost
	case d.session == nil:
		return d.ready, nil
	}
	d.inflight++
	o.session = d.session
	switch {
	case changes(o.Command):
		o.seq = d.log.begin()
	case o.Command == wire.CmdFlush:
		o.mark = d.log.flushing()
	}
	return nil, nil
}

func changes(c wire.Command) bool {
	return c == wire.CmdWrite || c == wire.CmdWriteZeroes || c == wire.CmdTrim
}

// Complete is called by the session at the end of a request.
func (o *op) Complete(_ *client.Request, err error) {
	d := o.d
	d.mu.Lock()
	if err == nil && changes(o.Command) && !d.durable {
		d.keep(o)
	}
	if err == nil && o.Command == wire.CmdFlush {
		d.log.flushed(o.mark)
	}
	if isLost(err) {
		d.disconnected(o.session, err)
	} else {
		d.flaps = 0
	}
	if d.inflight--; d.inflight == 0 {
		d.quiet.Broadcast()
	}
	d.mu.Unlock()
	if o.queue != nil {
		o.queue.ended(o, err)
	} else {
		o.done <- err
	}
}

// keep logs a completed change. What is durable already is kept only if an older
// change is: replaying that alone would bring old data back.
func (d *Driver) keep(o *op) {
	fua := o.Flags&wire.CmdFlagFUA != 0
	if fua && d.log.empty() {
		d.log.ack(nil, true)
		return
	}
	e := d.log.reserve(o.seq, &o.Request)
	if e != nil && o.Command == wire.CmdWrite {
		d.mu.Unlock()
		e.fill(o.Vec)
		d.mu.Lock()
	}
	d.log.ack(e, fua)
}

// isLost reports whether the request has to be done again on a new connection.
func isLost(err error) bool {
	return err != nil && (errors.Is(err, client.ErrDisconnected) || errors.Is(err, wire.ESHUTDOWN))
}

var ops = sync.Pool{New: func() any {
	o := &op{done: make(chan error, 1)}
	o.Owner = o
	return o
}}

func (d *Driver) newOp(cmd wire.Command, f wire.CommandFlags, off, n int64) *op {
	o := ops.Get().(*op)
	o.d = d
	o.Command, o.Flags, o.Offset, o.Length = cmd, f, off, n
	return o
}

func (o *op) release() {
	o.Vec, o.File, o.one[0], o.session, o.d = nil, nil, nil, nil, nil
	ops.Put(o)
}

// do runs an op to its end, through reconnects.
func (d *Driver) do(ctx context.Context, o *op) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		wait, err := d.begin(o)
		if err != nil {
			return err
		}
		if wait == nil {
			if err = d.once(ctx, o); !isLost(err) {
				return diskError(o, err)
			}
			continue
		}
		select {
		case <-wait:
		case <-ctx.Done():
		}
	}
}

func (d *Driver) once(ctx context.Context, o *op) error {
	o.session.Start(&o.Request)
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
		o.session.Cancel(&o.Request, ctx.Err())
		return <-o.done
	}
}

// diskError is the one table from the server's errors to the disk's.
func diskError(o *op, err error) error {
	if err == nil {
		return nil
	}
	var refused *client.Error
	if !errors.As(err, &refused) {
		return err
	}
	switch {
	case refused.Errno == wire.EPERM && changes(o.Command):
		return join(disk.ErrReadOnly, err)
	case refused.Errno == wire.ENOTSUP && o.Flags&wire.CmdFlagFastZero != 0:
		return join(disk.ErrNotFast, err)
	}
	return err
}

// kindError is an error of the disk with the server's words as its cause.
type kindError struct{ kind, cause error }

func join(kind, cause error) error { return &kindError{kind, cause} }

func (e *kindError) Error() string   { return e.kind.Error() + ": " + e.cause.Error() }
func (e *kindError) Unwrap() []error { return []error{e.kind, e.cause} }
