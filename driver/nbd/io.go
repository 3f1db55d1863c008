package nbd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/vmdisk/vmdisk/disk"
	wire "github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/client"
)

func (d *Driver) run(ctx context.Context, o *op) error {
	err := d.do(ctx, o)
	o.release()
	return err
}

// ReadAt fills p from off.
func (d *Driver) ReadAt(ctx context.Context, p []byte, off int64) error {
	o := d.newOp(wire.CmdRead, 0, off, int64(len(p)))
	o.one[0] = p
	o.Vec = o.one[:]
	return d.run(ctx, o)
}

// Readv fills the buffers of vec, in order, from off.
func (d *Driver) Readv(ctx context.Context, vec [][]byte, off int64) error {
	o := d.newOp(wire.CmdRead, 0, off, vecLen(vec))
	o.Vec = vec
	return d.run(ctx, o)
}

// WriteAt writes p at off.
func (d *Driver) WriteAt(ctx context.Context, p []byte, off int64, f disk.Flags) error {
	o := d.newOp(wire.CmdWrite, commandFlags(wire.CmdWrite, f), off, int64(len(p)))
	o.one[0] = p
	o.Vec = o.one[:]
	return d.run(ctx, o)
}

// Writev writes the buffers of vec, in order, at off, without joining them.
func (d *Driver) Writev(ctx context.Context, vec [][]byte, off int64, f disk.Flags) error {
	o := d.newOp(wire.CmdWrite, commandFlags(wire.CmdWrite, f), off, vecLen(vec))
	o.Vec = vec
	return d.run(ctx, o)
}

// WriteFromFile writes src at off; the kernel moves the data from the file to
// the socket. It answers errors.ErrUnsupported over TLS, and where writes are
// kept for a reconnect.
func (d *Driver) WriteFromFile(ctx context.Context, off int64, src disk.FileRange, f disk.Flags) error {
	if !d.canSendFile() {
		return fmt.Errorf("no sendfile to this NBD server: %w", errors.ErrUnsupported)
	}
	o := d.newOp(wire.CmdWrite, commandFlags(wire.CmdWrite, f), off, src.Len)
	o.file = client.FileSource{FD: src.FD, Off: src.Off}
	o.File = &o.file
	return d.run(ctx, o)
}

func (d *Driver) canSendFile() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return (d.durable || d.cfg.NoReplay) && d.session != nil && d.session.CanSendFile()
}

// Zero makes the range read as zeros by WRITE_ZEROES.
func (d *Driver) Zero(ctx context.Context, off, n int64, f disk.Flags) error {
	return d.run(ctx, d.newOp(wire.CmdWriteZeroes, commandFlags(wire.CmdWriteZeroes, f), off, n))
}

// Trim advises that the range is unused.
func (d *Driver) Trim(ctx context.Context, off, n int64, f disk.Flags) error {
	return d.run(ctx, d.newOp(wire.CmdTrim, commandFlags(wire.CmdTrim, f), off, n))
}

// Flush makes completed writes durable. Where the server has no flush, they are.
func (d *Driver) Flush(ctx context.Context) error {
	if d.durable {
		return nil
	}
	return d.run(ctx, d.newOp(wire.CmdFlush, 0, 0, 0))
}

// Cache asks the server to read ahead.
func (d *Driver) Cache(ctx context.Context, off, n int64) error {
	for n > 0 {
		part := min(n, d.info.MaxZero)
		if err := d.run(ctx, d.newOp(wire.CmdCache, 0, off, part)); err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return nil
}

// commandFlags are the flags of the protocol for those of the disk.
func commandFlags(c wire.Command, f disk.Flags) (g wire.CommandFlags) {
	if f&disk.FUA != 0 {
		g |= wire.CmdFlagFUA
	}
	if c != wire.CmdWriteZeroes {
		return g
	}
	if f&disk.MayTrim == 0 {
		g |= wire.CmdFlagNoHole
	}
	if f&disk.FastOnly != 0 {
		g |= wire.CmdFlagFastZero
	}
	return g
}

// Extents asks by BLOCK_STATUS.
func (d *Driver) Extents(ctx context.Context, m disk.MapName, off, n int64, dst []disk.Extent) ([]disk.Extent, error) {
	i := slices.IndexFunc(d.export.Contexts, func(c string) bool { return mapOf(c) == m })
	if i < 0 {
		return dst, fmt.Errorf("the NBD server has no map %q: %w", m, errors.ErrUnsupported)
	}
	o := d.newOp(wire.CmdBlockStatus, 0, off, min(n, d.info.MaxZero))
	o.Context = i
	room := min(cap(dst)-len(dst), disk.ExtentBatch)
	o.Status = slices.Grow(o.Status[:0], room)[:0:room]
	err := d.do(ctx, o)
	switch {
	case err == nil:
		for _, s := range o.Status {
			dst = append(dst, extent(m, s))
		}
	case m == disk.Allocation && refused(err):
		// What may be a hole is read as data: a map saves time, and a server that has
		// trouble with its own is no reason to fail. Further on it may know better.
		dst, err = append(dst, disk.Extent{Len: min(o.Length, unknownSpan)}), nil
	}
	o.release()
	return dst, err
}

// unknownSpan is how much is taken for data where a server refuses to tell.
const unknownSpan = 64 << 20

// refused reports whether the server answered a request with an error.
func refused(err error) bool {
	var e *client.Error
	return errors.As(err, &e)
}

func extent(m disk.MapName, s wire.Status) disk.Extent {
	e := disk.Extent{Len: int64(min(s.Length, math.MaxInt64))}
	switch m {
	case disk.Allocation:
		if s.Flags&wire.StatusZero != 0 {
			e.Flags |= disk.ExtentZero
		}
		if s.Flags&wire.StatusHole != 0 {
			e.Flags |= disk.ExtentHole
		}
	case disk.Depth:
		e.Value = uint32(min(s.Flags, math.MaxUint32))
	default:
		e.Value = uint32(s.Flags & wire.StatusDirty)
	}
	return e
}

func vecLen(vec [][]byte) (n int64) {
	for _, p := range vec {
		n += int64(len(p))
	}
	return n
}
