package client

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/vmdisk/vmdisk/nbd"
)

// Bounds on the payload of a chunk other than data. A server fits a whole map
// in one chunk (QEMU up to 2 MiB).
const (
	maxStatusChunk = 8 << 20
	maxErrorChunk  = 64 << 10
	keepScratch    = 64 << 10
	// maxIdleChunks are the errors and block status chunks of one reply.
	maxIdleChunks = 10000
)

// receive handles replies until the connection ends.
func (c *conn) receive() {
	defer close(c.done)
	var err error
	for err == nil {
		err = c.reply()
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) || !c.handOver() {
		c.fail(fmt.Errorf("receive: %w", err))
		c.drain()
	}
	close(c.rest) // nobody sends any more
	c.pusher.Wait()
}

// reply handles one simple reply or one chunk.
func (c *conn) reply() error {
	var h nbd.Reply
	for {
		n, err := h.Decode(c.in.buffered(), c.mode)
		if err == nil {
			c.in.consume(n)
			break
		}
		if !errors.Is(err, nbd.ErrShort) {
			return err
		}
		if err := c.in.more(); err != nil {
			return err
		}
	}
	r, err := c.claim(&h)
	if err != nil {
		return err
	}
	if h.Simple {
		err = c.simple(r, &h)
	} else {
		err = c.chunk(r, &h)
	}
	if err == nil && h.Done() {
		err = r.complain()
	}
	if err != nil {
		return err
	}
	c.finish(r, h.Done())
	return nil
}

// claim finds the request that a reply answers and keeps its memory from being
// given back.
func (c *conn) claim(h *nbd.Reply) (*Request, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.lookup(h.Cookie)
	switch {
	case r == nil || r.state == queued || r.replied:
		return nil, malformed("reply with the cookie %#x, which no request has", h.Cookie)
	case c.mode == nbd.Extended && h.Offset != uint64(r.Offset):
		return nil, malformed("reply for offset %d to a request at %d", h.Offset, r.Offset)
	}
	r.receiving = true
	return r, nil
}

// finish gives the memory back and, after the last chunk, ends the request.
func (c *conn) finish(r *Request, done bool) {
	c.mu.Lock()
	r.receiving = false
	var err error
	end := false
	switch {
	case done && r.state == sending:
		r.replied = true
	case done:
		c.releaseSlot(r)
		err, end = r.outcome(), true
	case r.cancelled != nil && r.state == sent && !r.changes():
		c.detach(r)
		err, end = r.cancelled, true
	}
	c.mu.Unlock()
	if end {
		r.complete(err)
	}
}

// complain reports what is missing from a reply that the server calls whole.
func (r *Request) complain() error {
	switch {
	case r.result != nil || r.discard:
		return nil
	case r.Command == nbd.CmdRead && !r.covered.full(r.Length):
		return malformed("reply to a read that leaves out some of its %d bytes", r.Length)
	case r.Command == nbd.CmdBlockStatus && !r.status:
		return malformed("reply to a block status request without the context")
	}
	return nil
}

func (c *conn) simple(r *Request, h *nbd.Reply) error {
	if c.mode != nbd.Simple && (r.Command == nbd.CmdRead || r.Command == nbd.CmdBlockStatus) {
		return malformed("simple reply to %v where a structured one belongs", r.Command)
	}
	if h.Error != nbd.OK {
		r.fail(nbd.ErrorChunk{Errno: h.Error}, false)
		return nil
	}
	if r.Command != nbd.CmdRead {
		return nil
	}
	return c.data(r, r.Offset, r.Length)
}

// chunk handles the payload of a structured or extended reply.
func (c *conn) chunk(r *Request, h *nbd.Reply) error {
	switch {
	case h.Type.IsError():
		if err := r.idleChunk(); err != nil {
			return err
		}
		return c.errorChunk(r, h)
	case h.Type == nbd.ChunkNone:
		if h.Length != 0 || !h.Done() {
			return malformed("NONE chunk of %d bytes, flags %#x", h.Length, h.Flags)
		}
		return nil
	case h.Type == nbd.ChunkOffsetData && r.Command == nbd.CmdRead:
		return c.dataChunk(r, h)
	case h.Type == nbd.ChunkOffsetHole && r.Command == nbd.CmdRead:
		return c.holeChunk(r, h)
	case h.Type == c.statusType() && r.Command == nbd.CmdBlockStatus:
		if err := r.idleChunk(); err != nil {
			return err
		}
		return c.statusChunk(r, h)
	}
	return malformed("%v chunk in the reply to %v", h.Type, r.Command)
}

// idleChunk counts the chunks that no byte of the request bounds. A server that sends them without
// end is never silent, and would hold its client for good.
func (r *Request) idleChunk() error {
	if r.idle++; r.idle > maxIdleChunks {
		return malformed("more than %d chunks in the reply to %v", maxIdleChunks, r.Command)
	}
	return nil
}

func (c *conn) statusType() nbd.ChunkType {
	if c.mode == nbd.Extended {
		return nbd.ChunkBlockStatusExt
	}
	return nbd.ChunkBlockStatus
}

func (c *conn) dataChunk(r *Request, h *nbd.Reply) error {
	if h.Length <= 8 || h.Length-8 > uint64(r.Length) {
		return malformed("data chunk of %d bytes in the reply to a read of %d", h.Length, r.Length)
	}
	b, err := c.in.need(8)
	if err != nil {
		return err
	}
	off, err := nbd.DecodeDataOffset(b)
	if err != nil {
		return err
	}
	c.in.consume(8)
	return c.data(r, int64(off), int64(h.Length-8))
}

// data puts n bytes for offset off of the export where the request wants them.
func (c *conn) data(r *Request, off, n int64) error {
	at, err := r.cover(off, n)
	if err != nil {
		return err
	}
	if r.discard {
		return c.in.skip(n)
	}
	return eachPart(r.Vec, at, n, c.in.payload)
}

func (c *conn) holeChunk(r *Request, h *nbd.Reply) error {
	if h.Length != 12 {
		return malformed("hole chunk of %d bytes", h.Length)
	}
	b, err := c.in.need(12)
	if err != nil {
		return err
	}
	off, n, err := nbd.DecodeHole(b)
	if err != nil {
		return err
	}
	c.in.consume(12)
	at, err := r.cover(int64(off), int64(n))
	if err != nil || r.discard {
		return err
	}
	return eachPart(r.Vec, at, int64(n), func(p []byte) error {
		clear(p)
		return nil
	})
}

// cover checks that a range of the export lies in the read and was not answered
// yet, and returns where in the read it begins.
func (r *Request) cover(off, n int64) (at int64, err error) {
	at = off - r.Offset
	if off < r.Offset || n <= 0 || n > r.Length || at > r.Length-n {
		return 0, malformed("%d bytes at offset %d in the reply to a read of %d at %d", n, off, r.Length, r.Offset)
	}
	if r.discard {
		if r.dropped += n; r.dropped > r.Length {
			return 0, malformed("more than the %d bytes of a read", r.Length)
		}
		return at, nil
	}
	if !r.covered.add(at, at+n) {
		return 0, malformed("overlapping chunks in the reply to a read")
	}
	return at, nil
}

// eachPart calls f with the parts of vec that hold n bytes from position at.
func eachPart(vec [][]byte, at, n int64, f func([]byte) error) error {
	for _, p := range vec {
		size := int64(len(p))
		if at >= size {
			at -= size
			continue
		}
		part := p[at:min(size, at+n)]
		if err := f(part); err != nil {
			return err
		}
		if n -= int64(len(part)); n == 0 {
			return nil
		}
		at = 0
	}
	return nil
}

func (c *conn) errorChunk(r *Request, h *nbd.Reply) error {
	b, err := c.small(h.Length, maxErrorChunk)
	if err != nil {
		return err
	}
	e, err := nbd.DecodeError(h.Type, b)
	if err != nil {
		return err
	}
	r.fail(e, h.Type == nbd.ChunkErrorOffset)
	return nil
}

func (c *conn) statusChunk(r *Request, h *nbd.Reply) error {
	b, err := c.small(h.Length, maxStatusChunk)
	if err != nil {
		return err
	}
	var id uint32
	if id, c.status, err = nbd.DecodeBlockStatus(h.Type, b, c.status[:0]); err != nil {
		return err
	}
	i := slices.Index(c.ids, id)
	if i < 0 {
		return malformed("block status of the context %d, which was not negotiated", id)
	}
	if i != r.Context || r.discard {
		return nil
	}
	if r.status {
		return malformed("two block status chunks of one context")
	}
	r.status = true
	room := cap(r.Status) - len(r.Status)
	r.Status = append(r.Status, c.status[:min(room, len(c.status))]...)
	return nil
}

// small returns the payload of a chunk of n bytes. Memory grows as the bytes
// come, not by what the server announces.
func (c *conn) small(n uint64, limit int) ([]byte, error) {
	if n > uint64(limit) {
		return nil, malformed("chunk of %d bytes, more than %d", n, limit)
	}
	if cap(c.scratch) > keepScratch {
		c.scratch = nil
		c.status = nil
	}
	c.scratch = c.scratch[:0]
	for left := int(n); left > 0; {
		part := min(left, keepScratch)
		c.scratch = slices.Grow(c.scratch, part)
		have := len(c.scratch)
		c.scratch = c.scratch[:have+part]
		if err := c.in.payload(c.scratch[have:]); err != nil {
			return nil, err
		}
		left -= part
	}
	return c.scratch, nil
}
