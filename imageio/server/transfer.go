package server

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

// piece is a filled buffer on its way between storage and socket.
type piece struct {
	buf *[]byte
	n   int
}

// filler puts data into p and returns how much, 0 at the end. drainer uses p up.
type (
	filler  func(ctx context.Context, p []byte) (int, error)
	drainer func(p []byte) error
)

// pace is how fast the storage took or gave data.
type pace struct {
	bytes int64
	took  time.Duration
}

func (p *pace) add(n int, since time.Time) {
	p.bytes += int64(n)
	p.took += time.Since(since)
}

// slow: it made its caller wait longer than memory does, which takes a byte in less
// than two nanoseconds.
func (p *pace) slow() bool { return int64(p.took) > 2*p.bytes }

// move lets fill and drain work at once where that gains anything: n bytes (-1: all
// there are) are more than half a buffer, and either the storage makes its caller wait, or
// there are processors that no other transfer uses. Handing over what lies in memory from one
// processor to another costs a twentieth of a transfer under TLS.
func (c *conn) move(ctx context.Context, n int64, fill filler, drain drainer) error {
	alone := int(c.svc.moving.Add(1)) < runtime.GOMAXPROCS(0)
	defer c.svc.moving.Add(-1)
	last := c.pace
	c.pace = pace{}
	if n >= 0 && n <= bufferSize/2 || !alone && !last.slow() || c.svc.moving.Load() > maxOverlaps {
		return oneByOne(ctx, fill, drain)
	}
	return overlap(ctx, fill, drain)
}

// maxOverlaps bounds the transfers that hold two large buffers: a thousand clients that
// do not take what they asked for must not hold half a GiB.
const maxOverlaps = 64

// overlap runs fill, on its own goroutine, and drain on two buffers at once. The
// first error ends both, and overlap returns after both have ended.
func overlap(ctx context.Context, fill filler, drain drainer) error {
	ctx, cancel := context.WithCancel(ctx)
	full, free := make(chan piece, 2), make(chan *[]byte, 2)
	for range 2 {
		free <- buffers.Get().(*[]byte)
	}
	filled := make(chan error, 1)
	go func() {
		defer close(full)
		filled <- fillAll(ctx, fill, full, free)
	}()
	var err error
	for p := range full {
		if err == nil {
			if err = drain((*p.buf)[:p.n]); err != nil {
				cancel()
			}
		}
		free <- p.buf
	}
	cancel()
	fillErr := <-filled
	for range 2 {
		buffers.Put(<-free)
	}
	if err == nil {
		err = fillErr
	}
	return err
}

// fillAll gives every buffer back, whatever ends it.
func fillAll(ctx context.Context, fill filler, full chan<- piece, free chan *[]byte) error {
	for {
		buf := <-free
		if ctx.Err() != nil {
			free <- buf
			return ctx.Err()
		}
		n, err := fill(ctx, *buf)
		if n == 0 || err != nil {
			free <- buf
			return err
		}
		full <- piece{buf, n}
	}
}

// partialError is a body that ended early.
type partialError struct{ requested, available int64 }

func (e *partialError) Error() string {
	if e.requested < 0 {
		return fmt.Sprintf("The body ended after %d bytes, before its last chunk", e.available)
	}
	return fmt.Sprintf("Requested %d bytes, available %d bytes", e.requested, e.available)
}

// nearPiece bytes are still in the processor's nearest cache when they are used up.
const nearPiece = 64 << 10

// nearBuffers are for one piece, and the head of an answer before it.
var nearBuffers = sync.Pool{New: func() any { b := make([]byte, nearPiece+4<<10); return &b }}

// oneByOne is overlap without a second goroutine.
func oneByOne(ctx context.Context, fill filler, drain drainer) error {
	buf := nearBuffers.Get().(*[]byte)
	defer nearBuffers.Put(buf)
	for {
		n, err := fill(ctx, (*buf)[:nearPiece])
		if n == 0 || err != nil {
			return err
		}
		if err := drain((*buf)[:n]); err != nil {
			return err
		}
	}
}

// firstRead is read before the response starts, so that an error of the storage
// still gets its status.
const firstRead = 64 << 10

// transmit answers with n bytes of the disk from op.off.
func (c *conn) transmit(ctx context.Context, op *operation, d *disk.Disk, w *response, n int64) error {
	off := op.off
	buf := nearBuffers.Get().(*[]byte)
	b := w.head((*buf)[:0], n)
	b = slices.Grow(b, 1) // a ticket's filename may be long
	first := min(n, firstRead, int64(cap(b)-len(b)))
	if w.noBody {
		first, n = 0, 0
	}
	w.started = false
	err := d.ReadAt(ctx, b[len(b):len(b)+int(first)], off)
	if err == nil {
		w.started = true
		_, err = c.io.Write(b[:len(b)+int(first)])
	}
	nearBuffers.Put(buf)
	if err != nil {
		return err
	}
	op.done.Add(first)
	off, n = off+first, n-first
	for n > 0 && c.plain != nil {
		sent, err := c.sendRange(ctx, op, d, off, n)
		if errors.Is(err, errors.ErrUnsupported) {
			break
		}
		if err != nil {
			return err
		}
		off, n = off+sent, n-sent
	}
	if n == 0 {
		return nil
	}
	return c.copyOut(ctx, op, d, off, n)
}

func (c *conn) sendRange(ctx context.Context, op *operation, d *disk.Disk, off, n int64) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	r, ok := d.FileRange(off, min(n, 64<<20), false)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	defer r.Release()
	return r.Len, c.sendFile(r.FD, r.Off, r.Len, &op.done)
}

// copyOut reads and sends; see move.
func (c *conn) copyOut(ctx context.Context, op *operation, d *disk.Disk, off, n int64) error {
	fill := func(ctx context.Context, p []byte) (int, error) {
		want := min(int64(len(p))-off%4096, n)
		if want == 0 {
			return 0, nil
		}
		start := time.Now()
		err := d.ReadAt(ctx, p[:want], off)
		c.pace.add(int(want), start)
		off, n = off+want, n-want
		return int(want), err
	}
	drain := func(p []byte) error {
		_, err := c.io.Write(p)
		op.done.Add(int64(len(p)))
		return err
	}
	return c.move(ctx, n, fill, drain)
}
