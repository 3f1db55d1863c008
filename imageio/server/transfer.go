package server

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/vmdisk/vmdisk/disk"
)

// piece is a filled buffer on its way between storage and socket.
type piece struct {
	buf *[]byte
	n   int
}

// overlap runs fill and drain on two buffers at once: fill (on its own
// goroutine) returns how much it put into a buffer, 0 at the end; drain uses it
// up. The first error ends both, and overlap returns after both have ended.
func overlap(ctx context.Context, fill func(ctx context.Context, p []byte) (int, error), drain func(p []byte) error) error {
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
func fillAll(ctx context.Context, fill func(ctx context.Context, p []byte) (int, error), full chan<- piece, free chan *[]byte) error {
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

// receive writes a request's body to the disk at off. size -1 takes whatever
// comes (chunks), limit bytes at most.
func (c *conn) receive(ctx context.Context, op *operation, d *disk.Disk, req *request, size, limit int64) error {
	off, got := op.off, int64(0)
	fill := func(_ context.Context, p []byte) (int, error) {
		want := len(p)
		if got == 0 {
			// Later pieces start at whole blocks, so that direct I/O needs no
			// read-modify-write at every seam.
			want -= int(off % 4096)
		}
		n, err := io.ReadFull(&req.body, p[:want])
		if got += int64(n); got > limit {
			return 0, rangeError("Requested range out of allowed range", op.off+limit)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			err = nil // whether the body was whole is seen below
		}
		return n, err
	}
	drain := func(p []byte) error {
		if err := d.WriteAt(ctx, p, off, 0); err != nil {
			return err
		}
		off += int64(len(p))
		op.done.Add(int64(len(p)))
		return nil
	}
	var err error
	if size >= 0 && size <= bufferSize/2 {
		err = oneByOne(ctx, fill, drain)
	} else {
		err = overlap(ctx, fill, drain)
	}
	if err == nil && !req.body.done() {
		err = &partialError{size, got}
	}
	return err
}

// oneByOne is overlap without a second goroutine, for what fits one buffer.
func oneByOne(ctx context.Context, fill func(ctx context.Context, p []byte) (int, error), drain func(p []byte) error) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := fill(ctx, *buf)
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
	first := min(n, firstRead)
	buf := buffers.Get().(*[]byte)
	b := w.head((*buf)[:0], n)
	if w.noBody {
		first, n = 0, 0
	}
	w.started = false
	err := d.ReadAt(ctx, (*buf)[len(b):len(b)+int(first)], off)
	if err == nil {
		w.started = true
		_, err = c.io.Write((*buf)[:len(b)+int(first)])
	}
	buffers.Put(buf)
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

// copyOut reads ahead of the socket.
func (c *conn) copyOut(ctx context.Context, op *operation, d *disk.Disk, off, n int64) error {
	fill := func(ctx context.Context, p []byte) (int, error) {
		want := min(int64(len(p))-off%4096, n)
		if want == 0 {
			return 0, nil
		}
		err := d.ReadAt(ctx, p[:want], off)
		off, n = off+want, n-want
		return int(want), err
	}
	drain := func(p []byte) error {
		_, err := c.io.Write(p)
		op.done.Add(int64(len(p)))
		return err
	}
	return overlap(ctx, fill, drain)
}
