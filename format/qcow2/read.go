package qcow2

import (
	"context"
	"errors"

	"github.com/vmdisk/vmdisk/disk"
)

// ReadAt implements disk.Driver.
func (d *driver) ReadAt(ctx context.Context, p []byte, off int64) error {
	if d.w != nil {
		defer d.w.leave(d.w.enter())
	}
	return d.readMapped(ctx, p, off)
}

func (d *driver) readMapped(ctx context.Context, p []byte, off int64) error {
	for len(p) > 0 {
		r, err := d.lookup(ctx, off, int64(len(p)))
		if err == nil {
			err = d.readRun(ctx, p[:r.n], off, &r)
		}
		if err != nil {
			return err
		}
		p, off = p[r.n:], off+r.n
	}
	return nil
}

func (d *driver) readRun(ctx context.Context, p []byte, off int64, r *run) error {
	switch r.kind {
	case normal:
		return d.readHost(ctx, p, r.host)
	case compressed:
		return d.readPart(ctx, p, r.desc, off&(d.geometry.cluster-1))
	case unallocated:
		return d.readBacking(ctx, p, off)
	}
	clear(p)
	return nil
}

// readHost reads guest data. A file may end within its last cluster, whose rest is zeros.
func (d *driver) readHost(ctx context.Context, p []byte, host int64) error {
	if d.opts.NoReferences && d.header.dataFile() {
		return ErrReference
	}
	size := d.data.Size()
	if host+int64(len(p)) <= size {
		return d.data.ReadAt(ctx, p, host)
	}
	last := host + int64(len(p)) - 1
	if last&^(d.geometry.cluster-1) >= size {
		return corrupt("data at offset %d are not inside the file of %d bytes: is the file cut short?", last&^(d.geometry.cluster-1), size)
	}
	n := max(size-host, 0)
	clear(p[n:])
	return d.data.ReadAt(ctx, p[:n], min(host, size))
}

// readBacking reads what is not allocated here: zeros behind the end of the backing file.
func (d *driver) readBacking(ctx context.Context, p []byte, off int64) error {
	var n int64
	if d.opts.NoReferences && d.header.backing != "" {
		return ErrReference
	}
	if d.backing != nil {
		n = max(min(int64(len(p)), d.backing.Size()-off), 0)
	}
	clear(p[n:])
	if n == 0 {
		return nil
	}
	return d.backing.ReadAt(ctx, p[:n], off)
}

// FileRange implements disk.FileRanger, for reading: data lie in the file below as they are.
func (d *driver) FileRange(off, n int64, write bool) (disk.FileRange, bool) {
	if write || d.opts.NoReferences {
		return disk.FileRange{}, false
	}
	leave := func() {}
	if d.w != nil {
		epoch := d.w.enter()
		leave = func() { d.w.leave(epoch) }
	}
	r, err := d.lookup(context.Background(), off, n)
	if err == nil && r.kind == normal {
		if x, ok := d.data.FileRange(r.host, r.n, false); ok {
			if d.w != nil {
				done := x.Done
				x.Done = func() {
					if done != nil {
						done()
					}
					leave()
				}
			}
			return x, true
		}
	}
	leave()
	return disk.FileRange{}, false
}

// Extents implements disk.Driver.
func (d *driver) Extents(ctx context.Context, m disk.MapName, off, n int64, dst []disk.Extent) ([]disk.Extent, error) {
	if m != disk.Allocation && m != disk.Depth {
		return dst, errors.ErrUnsupported
	}
	have := len(dst)
	for end := off + n; off < end; {
		r, err := d.lookup(ctx, off, end-off)
		if err != nil {
			return dst[:have], err
		}
		e := disk.Extent{Len: r.n, Value: 1}
		switch r.kind {
		case zeroPlain:
			e.Flags = disk.ExtentZero | disk.ExtentHole
		case zeroAlloc:
			e.Flags = disk.ExtentZero
		case unallocated:
			if e, err = d.below(ctx, m, off, r.n); err != nil {
				return dst[:have], err
			}
		}
		if m == disk.Allocation {
			e.Value = 0
		} else {
			e.Flags = 0
		}
		if last := len(dst) - 1; last >= have && dst[last].Flags == e.Flags && dst[last].Value == e.Value {
			dst[last].Len += e.Len
		} else if len(dst) < cap(dst) {
			dst = append(dst, e)
		} else {
			break
		}
		off += e.Len
	}
	return dst, nil
}

// below is the first extent of what is not allocated here.
func (d *driver) below(ctx context.Context, m disk.MapName, off, n int64) (disk.Extent, error) {
	hole := disk.Extent{Len: n, Flags: disk.ExtentZero | disk.ExtentHole}
	if d.backing == nil {
		if d.header.backing != "" {
			hole.Flags = disk.ExtentHole | disk.ExtentBacking
		}
		return hole, nil
	}
	if off >= d.backing.Size() {
		return hole, nil
	}
	n = min(n, d.backing.Size()-off)
	var room [1]disk.Extent
	in := d.backing.Info()
	if m == disk.Depth && !in.HasMap(disk.Depth) {
		return d.depthBelow(ctx, off, n)
	}
	es, err := d.backing.Extents(ctx, m, off, n, room[:0])
	if err != nil {
		return disk.Extent{}, err
	}
	e := es[0]
	e.Len = min(e.Len, n)
	if m == disk.Depth && e.Value > 0 {
		e.Value++
	}
	e.Flags = e.Flags&disk.ExtentZero | disk.ExtentHole | disk.ExtentBacking
	return e, nil
}

// depthBelow is below for a backing file that is no chain, all of which is one deep.
func (d *driver) depthBelow(_ context.Context, _, n int64) (disk.Extent, error) {
	return disk.Extent{Len: n, Value: 2}, nil
}
