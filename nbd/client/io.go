package client

import (
	"context"
	"sync"

	"github.com/vmdisk/vmdisk/nbd"
)

// call is a request that a goroutine waits for.
type call struct {
	Request
	done chan error
	one  [1][]byte
}

var calls = sync.Pool{New: func() any {
	k := &call{done: make(chan error, 1)}
	k.Owner = k
	return k
}}

// Complete wakes the waiter.
func (k *call) Complete(_ *Request, err error) { k.done <- err }

func newCall(cmd nbd.Command, f nbd.CommandFlags, off, n int64) *call {
	k := calls.Get().(*call)
	k.Command, k.Flags, k.Offset, k.Length, k.Context = cmd, f, off, n, 0
	return k
}

// do runs a call to its end and puts it back.
func (c *Client) do(ctx context.Context, k *call) error {
	defer k.release()
	return c.run(ctx, k)
}

func (c *Client) run(ctx context.Context, k *call) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.Start(&k.Request)
	select {
	case err := <-k.done:
		return err
	case <-ctx.Done():
		c.Cancel(&k.Request, ctx.Err())
		return <-k.done
	}
}

func (k *call) release() {
	k.Vec, k.File, k.Status, k.one[0] = nil, nil, nil, nil
	calls.Put(k)
}

// ReadAt fills p from off.
func (c *Client) ReadAt(ctx context.Context, p []byte, off int64) error {
	k := newCall(nbd.CmdRead, 0, off, int64(len(p)))
	k.one[0] = p
	k.Vec = k.one[:]
	return c.do(ctx, k)
}

// WriteAt writes p at off; f may hold CmdFlagFUA.
func (c *Client) WriteAt(ctx context.Context, p []byte, off int64, f nbd.CommandFlags) error {
	k := newCall(nbd.CmdWrite, f, off, int64(len(p)))
	k.one[0] = p
	k.Vec = k.one[:]
	return c.do(ctx, k)
}

// WriteFile writes n bytes at off that the kernel takes from offset fdOff of the
// file fd. It needs a plain socket (see CanSendFile).
func (c *Client) WriteFile(ctx context.Context, off int64, fd int, fdOff, n int64, f nbd.CommandFlags) error {
	k := newCall(nbd.CmdWrite, f, off, n)
	k.File = &FileSource{FD: fd, Off: fdOff}
	return c.do(ctx, k)
}

// WriteZeroes zeroes a range; f may hold CmdFlagFUA, CmdFlagNoHole and
// CmdFlagFastZero.
func (c *Client) WriteZeroes(ctx context.Context, off, n int64, f nbd.CommandFlags) error {
	return c.do(ctx, newCall(nbd.CmdWriteZeroes, f, off, n))
}

// Trim advises that a range is unused.
func (c *Client) Trim(ctx context.Context, off, n int64, f nbd.CommandFlags) error {
	return c.do(ctx, newCall(nbd.CmdTrim, f, off, n))
}

// Cache advises that a range will be read.
func (c *Client) Cache(ctx context.Context, off, n int64) error {
	return c.do(ctx, newCall(nbd.CmdCache, 0, off, n))
}

// Flush makes all completed writes durable.
func (c *Client) Flush(ctx context.Context) error {
	return c.do(ctx, newCall(nbd.CmdFlush, 0, 0, 0))
}

// BlockStatus appends to dst the first extents of [off, off+n) in the context of
// index i in Export.Contexts, as many as dst has room for (at least one) or
// fewer. The last may reach past off+n.
func (c *Client) BlockStatus(ctx context.Context, i int, off, n int64, dst []nbd.Status) ([]nbd.Status, error) {
	if len(dst) == cap(dst) {
		dst = append(dst, nbd.Status{})[:len(dst)]
	}
	k := newCall(nbd.CmdBlockStatus, 0, off, n)
	k.Context = i
	k.Status = dst[len(dst):]
	defer k.release()
	err := c.run(ctx, k)
	return dst[:len(dst)+len(k.Status)], err
}
