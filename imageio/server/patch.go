package server

import (
	"context"
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

func patchImage(c *conn, req *request, w *response, id string) error {
	text, err := req.readAll()
	if err != nil {
		return err
	}
	m, err := parseMessage(text)
	if err != nil {
		return failf(400, "Invalid JSON message %v", err)
	}
	ops := []string{"zero", "flush"}
	if c.svc.cfg.Daemon.Extensions {
		ops = append(ops, "discard")
	}
	op, err := m.oneOf("op", ops...)
	if err != nil {
		return err
	}
	switch op {
	case "zero":
		return c.zeroImage(id, m)
	case "flush":
		return c.flushImage(id)
	}
	return c.discardImage(id, m)
}

// zero reads what the operations on a range are told.
func (m message) zero() (off, n int64, flush bool, err error) {
	if n, err = m.natural("size", -1); err != nil {
		return 0, 0, false, err
	}
	if off, err = m.natural("offset", 0); err != nil {
		return 0, 0, false, err
	}
	flush, err = m.boolean("flush")
	return off, n, flush, err
}

func (c *conn) zeroImage(id string, m message) error {
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
	c.svc.log.debug("images", "[%s] ZERO ticket=%s size=%d offset=%d flush=%t transfer=%s", c.client, logID(id), n, off, flush, t.spec.TransferID)
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
		if err := growTo(ctx, d, op.off+done+part); err != nil {
			return err
		}
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
func (c *conn) discardImage(id string, m message) error {
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
	c.svc.log.debug("images", "[%s] DISCARD ticket=%s size=%d offset=%d flush=%t transfer=%s", c.client, logID(id), n, off, flush, t.spec.TransferID)
	return c.run(t, "discard", off, func(ctx context.Context, op *operation) error {
		if here := min(n, d.Size()-off); here > 0 { // beyond the end nothing is allocated
			if err := d.Trim(ctx, off, here, 0); err != nil {
				return err
			}
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
