package server

import (
	"slices"
	"sync"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/nbd"
)

// maxStatusPayload bounds the payload of a BLOCK_STATUS request; it is room for
// more contexts than any disk has.
const maxStatusPayload = 64 << 10

// maxStatus32 is the longest extent that a structured reply can tell, in whole
// 64 KiB blocks.
const maxStatus32 = 1<<32 - 64<<10

// blockStatus starts the task of a BLOCK_STATUS request, whose payload (the
// contexts wanted) is in the stream.
func (c *conn) blockStatus(ws *workspace, r *nbd.Request, payload uint64) error {
	t := c.newTask(r)
	if payload == 0 {
		for i := range c.contexts {
			t.ids = append(t.ids, i)
		}
		return c.start(ws, t)
	}
	if err := c.more(ws, int(payload)); err != nil {
		t.drop()
		return err
	}
	no := t.chosen(ws.in[ws.r : ws.r+int(payload)])
	ws.r += int(payload)
	if no == nil {
		no = c.checkStatus(&t.r, 0)
	}
	if no != nil {
		t.drop()
		c.exp.errors.Add(1)
		return c.answer(ws, r, no.errno, no.text)
	}
	return c.start(ws, t)
}

// chosen takes over the payload's contexts and length. Unknown and repeated
// contexts are refused.
func (t *task) chosen(payload []byte) *refusal {
	length, ids, err := nbd.DecodeStatusPayload(payload, nil)
	if err != nil {
		return refusePayload
	}
	t.r.Length = length
	for _, id := range ids {
		i := int(id) - 1
		if i < 0 || i >= len(t.c.contexts) || slices.Contains(t.ids, i) {
			return refuseContext
		}
		t.ids = append(t.ids, i)
	}
	if len(ids) == 0 {
		return refuseContext
	}
	return nil
}

// statusSpace is what answering BLOCK_STATUS takes.
type statusSpace struct {
	extents  [disk.ExtentBatch]disk.Extent
	statuses []nbd.Status
	out      []byte
}

// statusCost is counted for one: its extents, and 16 bytes for each twice.
const statusCost = disk.ExtentBatch * (24 + 16 + 16)

var statusSpaces = sync.Pool{New: func() any { return new(statusSpace) }}

// runBlockStatus answers with one chunk for each context.
func (t *task) runBlockStatus() {
	if err := t.c.reserve(statusCost); err != nil {
		t.fail(err)
		return
	}
	defer t.c.unreserve(statusCost)
	sp := statusSpaces.Get().(*statusSpace)
	defer statusSpaces.Put(sp)
	sp.out = sp.out[:0]
	c := t.c
	c.exp.count(&t.r)
	to := c.to(&t.r)
	for k, i := range t.ids {
		if err := t.statuses(sp, c.contexts[i].m); err != nil {
			t.fail(err)
			return
		}
		var f nbd.ChunkFlags
		if k == len(t.ids)-1 {
			f = nbd.ChunkDone
		}
		sp.out = to.AppendBlockStatus(sp.out, f, contextID(i), sp.statuses)
	}
	t.owed, _ = c.out.putData(sp.out, true)
}

// statuses collects the extents of one context, merged. Only the last may reach
// beyond the request; under REQ_ONE there is one, and it may not.
func (t *task) statuses(sp *statusSpace, m disk.MapName) error {
	limit, most := uint64(maxStatus32), max(1, disk.ExtentBatch/len(t.ids))
	if t.c.mode == nbd.Extended {
		limit = 1 << 62
	}
	one := t.r.Flags&nbd.CmdFlagReqOne != 0
	off, end := int64(t.r.Offset), int64(t.r.Offset+t.r.Length)
	sp.statuses = sp.statuses[:0]
	for off < end && len(sp.statuses) < most {
		room := sp.extents[:0]
		if one {
			room = sp.extents[:0:1]
		}
		x, err := t.c.exp.Disk.Extents(t.c.ctx, m, off, end-off, room)
		if err != nil && len(sp.statuses) == 0 {
			return err
		}
		if err != nil {
			return nil // what there is may be answered
		}
		for _, e := range x {
			if !sp.add(nbd.Status{Length: uint64(e.Len), Flags: status(m, e)}, limit, most) {
				return t.oneOnly(sp)
			}
			if off += e.Len; off >= end {
				break
			}
		}
		if one && len(sp.statuses) > 1 {
			break
		}
	}
	return t.oneOnly(sp)
}

// add appends an extent or lengthens the last; false when there is no more room.
func (sp *statusSpace) add(s nbd.Status, limit uint64, most int) bool {
	if n := len(sp.statuses); n > 0 && sp.statuses[n-1].Flags == s.Flags {
		last := &sp.statuses[n-1]
		grown := last.Length + s.Length
		last.Length = min(grown, limit)
		return grown <= limit
	}
	if len(sp.statuses) == most {
		return false
	}
	full := s.Length <= limit
	s.Length = min(s.Length, limit)
	sp.statuses = append(sp.statuses, s)
	return full
}

func (t *task) oneOnly(sp *statusSpace) error {
	if t.r.Flags&nbd.CmdFlagReqOne != 0 {
		sp.statuses = sp.statuses[:1]
		sp.statuses[0].Length = min(sp.statuses[0].Length, t.r.Length)
	}
	return nil
}
