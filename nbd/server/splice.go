package server

import (
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk/splice"
	"github.com/vmdisk/vmdisk/nbd"
)

// maxIdlePipes bounds the pipes that are kept for reuse.
const maxIdlePipes = 4

// passage is the payload of one large write on its way through a pipe.
type passage struct {
	splice.Passage
	c *conn
}

// spliceable reports whether the payload of r may go through a pipe. What was
// received of it already has to be little, as it is copied into the pipe.
func (c *conn) spliceable(ws *workspace, r *nbd.Request) bool {
	return c.socket != nil && !c.slow && r.Flags&nbd.CmdFlagFUA == 0 && ws.w-ws.r <= aheadLarge && !c.exp.noSplice.Load()
}

// spliceWrite serves a WRITE by splice. It reports false, having done nothing, where
// that cannot be.
func (c *conn) spliceWrite(ws *workspace, r *nbd.Request) (done bool, err error) {
	if !c.spliceable(ws, r) {
		return false, nil
	}
	n := int64(r.Length)
	to, ok := c.exp.Disk.FileRange(int64(r.Offset), n, true)
	if !ok {
		return false, nil
	}
	defer to.Release()
	if !c.exp.spliceProbed.Swap(true) && !splice.Regular(to.FD) {
		c.exp.noSplice.Store(true)
		return false, nil
	}
	p := c.s.pipes.Take()
	if p == nil || to.Len < n {
		if p != nil {
			c.s.pipes.Put(p)
		}
		return false, nil
	}
	x := passage{c: c, Passage: splice.Passage{Pipe: p, To: to, N: n}}
	switch err = x.run(ws); {
	case err == nil:
		c.s.pipes.Put(p)
		c.exp.count(r)
		return true, c.answer(ws, r, nbd.OK, "")
	case errors.Is(err, splice.ErrRefused):
		err = x.rescue(ws, r)
	}
	p.Close()
	return true, err
}

// run moves the payload. splice.ErrRefused tells that rescue has to do the rest, any
// other error that the connection is broken.
func (x *passage) run(ws *workspace) error {
	if len(ws.out) > 0 { // the client may wait for these before it goes on
		if err := x.c.out.flush(ws); err != nil {
			return err
		}
	}
	if ws.w > ws.r {
		k, err := x.Add(ws.in[ws.r:ws.w])
		if ws.r += k; err != nil {
			return splice.ErrRefused
		}
	}
	for x.Put < x.N {
		if err := x.fill(); err != nil {
			return err
		}
		if err := x.drain(); err != nil {
			return err
		}
	}
	return nil
}

// fill moves data from the socket into the pipe until that is full or holds all, or
// until it has something to write and there is no more for now.
func (x *passage) fill() error {
	k, ready := x.c.socket, false
	defer k.stall.end()
	for x.Got < x.N {
		n, err := x.Receive(k.fd)
		switch {
		case n > 0:
			k.stall.progress(int(n))
			ready = false
		case err == nil:
			return io.ErrUnexpectedEOF
		case err == unix.EINTR:
		case err == unix.EAGAIN && ready && x.Piped() > 0:
			return nil // there is data, so there is no room
		case err == unix.EAGAIN && x.Piped() >= splice.Step:
			return nil
		case err == unix.EAGAIN:
			k.await()
			ready = true
		case splice.Unsupported(err):
			x.c.exp.noSplice.Store(true)
			return splice.ErrRefused
		default:
			return fmt.Errorf("receive: %w", err)
		}
	}
	return nil
}

// await waits until there is something to receive.
func (k *socket) await() {
	for ms := int(hotWait / time.Millisecond); k.poll(unix.POLLIN, ms) == 0; ms = longWait {
		k.stall.begin()
	}
}

// drain moves what is in the pipe into the file. Whatever goes wrong, rescue finds it
// again and names it.
func (x *passage) drain() error {
	c, start := x.c, time.Now()
	err := x.Drain(false)
	if err == nil {
		c.wrote, c.longest = true, max(c.longest, time.Since(start))
	} else if splice.Unsupported(err) {
		c.exp.noSplice.Store(true)
	}
	return err
}

// rescue takes what is not written yet out of the pipe and the socket, and lets a
// task write it and answer r.
func (x *passage) rescue(ws *workspace, r *nbd.Request) error {
	c, left := x.c, x.N-x.Put
	t := c.newTask(&nbd.Request{Command: nbd.CmdWrite, Cookie: r.Cookie, Offset: r.Offset + uint64(x.Put), Length: uint64(left)})
	if err := x.recover(ws, t, int(left)); err != nil {
		t.drop()
		return err
	}
	t.group = &group{r: *r}
	t.group.left.Store(1)
	return c.start(ws, t)
}

func (x *passage) recover(ws *workspace, t *task, n int) error {
	if err := t.takePiece(ws, n); err != nil {
		return err
	}
	at := int(x.Piped())
	if err := x.TakeBack(t.data[:at]); err != nil {
		return err
	}
	k := copy(t.data[at:], ws.in[ws.r:ws.w]) // where the pipe took nothing
	ws.r += k
	_, err := x.c.t.fill(t.data[at+k:], n-at-k)
	return err
}
