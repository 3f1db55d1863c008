package server

import (
	"errors"
	"fmt"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/nbd"
)

// errFlood: a payload so far above the maximum that it is not worth receiving.
var errFlood = errors.New("payload far above the announced maximum")

// allowedFlags lists for each command the flags that it may carry on a
// connection that was offered f. FUA is accepted everywhere once offered.
func allowedFlags(m nbd.Mode, f nbd.TransmissionFlags) (a [nbd.CmdBlockStatus + 1]nbd.CommandFlags) {
	if f&nbd.FlagSendFUA != 0 {
		for i := range a {
			a[i] = nbd.CmdFlagFUA
		}
	}
	if f&nbd.FlagSendDF != 0 {
		a[nbd.CmdRead] |= nbd.CmdFlagDF
	}
	a[nbd.CmdWriteZeroes] |= nbd.CmdFlagNoHole
	if f&nbd.FlagSendFastZero != 0 {
		a[nbd.CmdWriteZeroes] |= nbd.CmdFlagFastZero
	}
	a[nbd.CmdBlockStatus] |= nbd.CmdFlagReqOne
	if m == nbd.Extended {
		a[nbd.CmdWrite] |= nbd.CmdFlagPayloadLen
	}
	if f&nbd.FlagBlockStatusPayload != 0 {
		a[nbd.CmdBlockStatus] |= nbd.CmdFlagPayloadLen
	}
	return a
}

// payload is how many bytes follow the header.
func (c *conn) payload(r *nbd.Request) uint64 {
	// QEMU 8.2 to 10.0 sends extended writes without the payload flag, which the
	// specification demands, and with the payload all the same.
	if r.Command == nbd.CmdWrite || c.mode == nbd.Extended && r.Flags&nbd.CmdFlagPayloadLen != 0 {
		return r.Length
	}
	return 0
}

// request serves one request whose header was taken from the workspace.
func (c *conn) request(ws *workspace, r *nbd.Request) error {
	if r.Command == nbd.CmdDisconnect {
		return errDisconnect
	}
	payload := c.payload(r)
	if no := c.check(r, payload); no != nil {
		if err := c.skip(ws, payload); err != nil {
			return err
		}
		c.exp.errors.Add(1)
		return c.answer(ws, r, no.errno, no.text)
	}
	switch r.Command {
	case nbd.CmdRead:
		return c.read(ws, r)
	case nbd.CmdWrite:
		return c.write(ws, r)
	case nbd.CmdBlockStatus:
		return c.blockStatus(ws, r, payload)
	}
	return c.start(ws, c.newTask(r))
}

// check refuses what the connection may not ask; nil lets the request pass.
func (c *conn) check(r *nbd.Request, payload uint64) *refusal {
	if int(r.Command) >= len(c.allowed) {
		return refuseCommand
	}
	if r.Flags&^c.allowed[r.Command] != 0 {
		return refuseFlags
	}
	switch r.Command {
	case nbd.CmdWrite, nbd.CmdTrim, nbd.CmdWriteZeroes:
		return c.checkChange(r, payload)
	case nbd.CmdFlush:
		if r.Offset != 0 || r.Length != 0 {
			return refuseField
		}
		return nil
	case nbd.CmdBlockStatus:
		return c.checkStatus(r, payload)
	case nbd.CmdRead:
		if r.Length > maxPayload {
			return refuseLong
		}
		if r.Flags&nbd.CmdFlagDF != 0 && r.Length > pieceLarge {
			return refuseFragment
		}
	}
	return c.checkRange(r, refuseRange)
}

func (c *conn) checkRange(r *nbd.Request, no *refusal) *refusal {
	size := uint64(c.exp.Disk.Size())
	if r.Offset > size || r.Length > size-r.Offset {
		return no
	}
	return nil
}

func (c *conn) checkChange(r *nbd.Request, payload uint64) *refusal {
	if c.flags&nbd.FlagReadOnly != 0 {
		return refuseReadOnly
	}
	switch {
	case r.Command == nbd.CmdTrim && c.flags&nbd.FlagSendTrim == 0:
		return refuseCommand
	case r.Command == nbd.CmdTrim:
		return c.checkRange(r, refuseRange)
	case r.Command == nbd.CmdWrite && payload > maxPayload:
		return refuseLong
	case r.Command == nbd.CmdWrite && payload != r.Length:
		return refusePayload
	}
	return c.checkRange(r, refuseSpace)
}

func (c *conn) checkStatus(r *nbd.Request, payload uint64) *refusal {
	switch {
	case len(c.contexts) == 0:
		return refuseContext
	case payload > maxStatusPayload:
		return refusePayload
	case payload > 0:
		return nil // the range is in the payload
	case r.Length == 0:
		return refuseRange
	}
	return c.checkRange(r, refuseRange)
}

// skip drops a payload of n bytes.
func (c *conn) skip(ws *workspace, n uint64) error {
	if n > 2*maxPayload {
		return fmt.Errorf("%w: %d bytes", errFlood, n)
	}
	for n > 0 {
		if ws.r == ws.w {
			if err := c.more(ws, 1); err != nil {
				return err
			}
		}
		part := min(n, uint64(ws.w-ws.r))
		ws.r += int(part)
		n -= part
	}
	return nil
}

// more waits until the workspace holds at least n bytes, n <= inSize. Replies
// leave first: the client may be waiting for them.
func (c *conn) more(ws *workspace, n int) error {
	if len(ws.out) > 0 {
		if err := c.out.flush(ws); err != nil {
			return err
		}
	}
	ws.w = copy(ws.in, ws.in[ws.r:ws.w])
	ws.r = 0
	if ws.w >= n {
		return nil
	}
	got, err := c.t.fill(ws.in[ws.w:], n-ws.w)
	ws.w += got
	return err
}

// room makes room for n bytes of reply.
func (c *conn) room(ws *workspace, n int) error {
	if len(ws.out) >= flushAt || len(ws.out)+n > cap(ws.out) {
		return c.out.flush(ws)
	}
	return nil
}

// answer puts a reply without data into the workspace.
func (c *conn) answer(ws *workspace, r *nbd.Request, e nbd.Errno, text string) error {
	if err := c.room(ws, replyMax); err != nil {
		return err
	}
	ws.out = c.appendReply(ws.out, r, e, text)
	return nil
}

// replyMax bounds what appendReply appends.
const replyMax = 256

// appendReply appends a reply without data. Successes are simple replies where
// the mode has them, except to a READ.
func (c *conn) appendReply(b []byte, r *nbd.Request, e nbd.Errno, text string) []byte {
	to := c.to(r)
	switch {
	case c.mode == nbd.Simple, e == nbd.OK && c.mode == nbd.Structured && r.Command != nbd.CmdRead:
		return nbd.AppendSimpleReply(b, r.Cookie, e)
	case e == nbd.OK:
		return to.AppendNone(b)
	}
	return to.AppendError(b, nbd.ChunkDone, e, text)
}

func (c *conn) to(r *nbd.Request) nbd.ReplyTo {
	return nbd.ReplyTo{Mode: c.mode, Cookie: r.Cookie, Offset: r.Offset}
}

// appendHeader appends what comes before n bytes of data from offset off.
func (c *conn) appendHeader(b []byte, r *nbd.Request, f nbd.ChunkFlags, off uint64, n int) []byte {
	if c.mode == nbd.Simple {
		return nbd.AppendSimpleReply(b, r.Cookie, nbd.OK)
	}
	to := c.to(r)
	return to.AppendDataHeader(b, f, off, n)
}

// diskError turns an error of the disk into the wire's and reports it.
func (c *conn) diskError(r *nbd.Request, err error, f disk.Flags) (nbd.Errno, string) {
	if err == nil {
		return nbd.OK, ""
	}
	e := errnoOf(err, f)
	c.exp.errors.Add(1)
	if e != nbd.ENOTSUP {
		c.logFailure(r.Command.String(), err)
	}
	return e, messageOf(e)
}

// diskFlags translates the flags of a change.
func diskFlags(r *nbd.Request) (f disk.Flags) {
	if r.Flags&nbd.CmdFlagFUA != 0 {
		f |= disk.FUA
	}
	if r.Command != nbd.CmdWriteZeroes {
		return f
	}
	if r.Flags&nbd.CmdFlagNoHole == 0 {
		f |= disk.MayTrim
	}
	if r.Flags&nbd.CmdFlagFastZero != 0 {
		f |= disk.FastOnly
	}
	return f
}
