package server

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

// patchMessage is the body of PATCH; pointers tell what was given.
type patchMessage struct {
	Op     any `json:"op"`
	Size   any `json:"size"`
	Offset any `json:"offset"`
	Flush  any `json:"flush"`
}

func patchImage(c *conn, req *request, w *response, id string) error {
	var m patchMessage
	if err := req.readJSON(&m); err != nil {
		return err
	}
	switch m.Op {
	case "zero":
		return c.zeroImage(id, &m)
	case "flush":
		return c.flushImage(id)
	case "discard":
		if c.svc.cfg.Daemon.Extensions {
			return c.discardImage(id, &m)
		}
	case nil:
		return failf(400, "Missing required value for op")
	}
	return failf(400, "Unsupported value '%v' for 'op', expecting one of [flush zero]", m.Op)
}

// readJSON decodes a small JSON body; unknown keys are ignored.
func (q *request) readJSON(v any) error {
	text, err := q.readAll()
	if err != nil {
		return err
	}
	if err := decodeJSON(text, v); err != nil {
		return failf(400, "Invalid JSON message %v", err)
	}
	return nil
}

func (m *patchMessage) zero() (off, n int64, flush bool, err error) {
	if m.Size == nil {
		return 0, 0, false, failf(400, "Missing required value for 'size'")
	}
	if n, err = natural(m.Size); err != nil {
		return 0, 0, false, err
	}
	if m.Offset != nil {
		if off, err = natural(m.Offset); err != nil {
			return 0, 0, false, err
		}
	}
	flush, ok := m.Flush.(bool)
	if m.Flush != nil && !ok {
		return 0, 0, false, failf(400, "Boolean required %v", m.Flush)
	}
	return off, n, flush, nil
}

func natural(v any) (int64, error) {
	number, ok := v.(json.Number)
	if !ok {
		return 0, failf(400, "Integer required %v", v)
	}
	n, err := strconv.ParseInt(string(number), 10, 64)
	if errors.Is(err, strconv.ErrRange) && number[0] != '-' {
		return math.MaxInt64, nil
	}
	if err != nil {
		return 0, failf(400, "Integer required %v", v)
	}
	if n < 0 {
		return 0, failf(400, "Invalid value %d < 0", n)
	}
	return n, nil
}

func (c *conn) zeroImage(id string, m *patchMessage) error {
	off, n, flush, err := m.zero()
	if err != nil {
		return err
	}
	t, d, err := c.image(id, "write")
	if err != nil {
		return err
	}
	if err := t.allowed(off, n); err != nil {
		return err
	}
	c.svc.log.info("images", "[%s] ZERO ticket=%s size=%d offset=%d flush=%t transfer=%s", c.client, logID(id), n, off, flush, t.spec.TransferID)
	return c.run(t, "zero", off, func(ctx context.Context, op *operation) error {
		if err := zeroSteps(ctx, op, d, n, t.spec.Sparse); err != nil {
			return err
		}
		return c.flushIf(ctx, d, flush)
	})
}

// zeroSteps zeroes in steps, for progress and cancellation: 128 MiB at first, as
// large zeroes have timed out SCSI targets, and twice as much after every step
// that took next to no time, so that 8 TiB need no 65,536 of them.
func zeroSteps(ctx context.Context, op *operation, d *disk.Disk, n int64, sparse bool) error {
	var flags disk.Flags
	if sparse {
		flags = disk.MayTrim
	}
	step := int64(128 << 20)
	for done := int64(0); done < n; {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := min(step, n-done)
		start := time.Now()
		if err := d.Zero(ctx, op.off+done, part, flags); err != nil {
			return err
		}
		done += part
		op.done.Store(done)
		if took := time.Since(start); took < 10*time.Millisecond && step < 1<<40 {
			step *= 2
		} else if took > time.Second && step > 128<<20 {
			step /= 2
		}
	}
	return nil
}

// mayDiscard: the ticket's owner has said that space may be freed.
func (t *Ticket) mayDiscard(d *disk.Disk) bool {
	return t.spec.Sparse && t.may("write") && d.Info().Trim != disk.None
}

// discardImage frees a range, whose content is undefined from then on.
func (c *conn) discardImage(id string, m *patchMessage) error {
	off, n, flush, err := m.zero()
	if err != nil {
		return err
	}
	t, d, err := c.image(id, "write")
	if err != nil {
		return err
	}
	if err := t.allowed(off, n); err != nil {
		return err
	}
	if !t.mayDiscard(d) {
		return failf(400, "Unsupported value 'discard' for 'op': the ticket is not sparse, or its storage cannot")
	}
	c.svc.log.info("images", "[%s] DISCARD ticket=%s size=%d offset=%d flush=%t transfer=%s", c.client, logID(id), n, off, flush, t.spec.TransferID)
	return c.run(t, "discard", off, func(ctx context.Context, op *operation) error {
		if err := d.Trim(ctx, off, n, 0); err != nil {
			return err
		}
		op.done.Store(n)
		return c.flushIf(ctx, d, flush)
	})
}

func (c *conn) flushImage(id string) error {
	t, d, err := c.image(id, "write")
	if err != nil {
		return err
	}
	c.svc.log.info("images", "[%s] FLUSH ticket=%s transfer=%s", c.client, logID(id), t.spec.TransferID)
	return c.run(t, "flush", 0, func(ctx context.Context, _ *operation) error { return d.Flush(ctx) })
}
