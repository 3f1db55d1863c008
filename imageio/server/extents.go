package server

import (
	"context"
	"strconv"
	"strings"

	"github.com/vmdisk/vmdisk/disk"
)

// extent is one entry of GET …/extents. In the zero context hole means that the
// data comes from the backing chain; in the dirty context it is absent.
type extent struct {
	start, length     int64
	zero, hole, dirty bool
}

func (e extent) append(b []byte, dirty bool) []byte {
	b = append(b, `{"start": `...)
	b = strconv.AppendInt(b, e.start, 10)
	b = append(b, `, "length": `...)
	b = strconv.AppendInt(b, e.length, 10)
	if dirty {
		b = append(b, `, "dirty": `...)
		b = strconv.AppendBool(b, e.dirty)
	}
	b = append(b, `, "zero": `...)
	b = strconv.AppendBool(b, e.zero)
	if !dirty {
		b = append(b, `, "hole": `...)
		b = strconv.AppendBool(b, e.hole)
	}
	return append(b, '}')
}

// mapCursor walks one map of a disk in batches.
type mapCursor struct {
	d     *disk.Disk
	m     disk.MapName
	batch []disk.Extent
	next  int
	left  int64 // of batch[next]
}

// run returns the extent at off, which is where the last one ended, cut to n. It asks
// for all up to end: a map with few extents beside one with many is asked seldom.
func (k *mapCursor) run(ctx context.Context, off, n, end int64) (disk.Extent, error) {
	if k.left == 0 {
		if k.next++; k.next >= len(k.batch) {
			if k.batch == nil {
				k.batch = make([]disk.Extent, 0, disk.ExtentBatch)
			}
			batch, err := k.d.Extents(ctx, k.m, off, end-off, k.batch[:0])
			if err != nil {
				return disk.Extent{}, err
			}
			k.batch, k.next = batch, 0
		}
		k.left = k.batch[k.next].Len
	}
	e := k.batch[k.next]
	e.Len = min(k.left, n)
	return e, nil
}

func (k *mapCursor) advance(n int64) { k.left -= n }

// extentWalk joins the maps that one context needs and merges equal neighbours.
type extentWalk struct {
	zero, other mapCursor // other: depth or dirty; its disk is nil if there is none
	dirty       bool
}

func newExtentWalk(d *disk.Disk, dirtyMap disk.MapName) *extentWalk {
	w := &extentWalk{zero: mapCursor{d: d, m: disk.Allocation}, dirty: dirtyMap != ""}
	info := d.Info()
	if w.dirty {
		w.other = mapCursor{d: d, m: dirtyMap}
	} else if info.HasMap(disk.Depth) {
		w.other = mapCursor{d: d, m: disk.Depth}
	}
	return w
}

// each calls f for every extent of [off, end), in order.
func (w *extentWalk) each(ctx context.Context, off, end int64, f func(extent) error) error {
	var have extent
	for off < end {
		e, err := w.at(ctx, off, end)
		if err != nil {
			return err
		}
		off += e.length
		if have.length > 0 && e.zero == have.zero && e.hole == have.hole && e.dirty == have.dirty {
			have.length += e.length
			continue
		}
		if have.length > 0 {
			if err := f(have); err != nil {
				return err
			}
		}
		have = e
	}
	if have.length > 0 {
		return f(have)
	}
	return nil
}

func (w *extentWalk) at(ctx context.Context, off, end int64) (extent, error) {
	z, err := w.zero.run(ctx, off, end-off, end)
	if err != nil {
		return extent{}, err
	}
	e := extent{start: off, length: z.Len, zero: z.Flags&disk.ExtentZero != 0, hole: z.Flags&disk.ExtentBacking != 0}
	if w.other.d != nil {
		o, err := w.other.run(ctx, off, z.Len, end)
		if err != nil {
			return extent{}, err
		}
		e.length = o.Len
		if w.dirty {
			e.dirty = o.Value&1 != 0
		} else {
			e.hole = o.Value == 0
		}
		w.other.advance(e.length)
	}
	w.zero.advance(e.length)
	return e, nil
}

// dirtyMap finds the bitmap that the dirty context shows: the disk's only one. Of
// several, nobody said which is meant, and the wrong one would miss changes.
func dirtyMap(d *disk.Disk) (found disk.MapName) {
	for _, m := range d.Info().Maps {
		if !strings.HasPrefix(string(m), disk.DirtyPrefix) {
			continue
		}
		if found != "" {
			return ""
		}
		found = m
	}
	return found
}

// inlineExtents is how much JSON is gathered to be answered with a
// content-length, which the original's clients know; a longer list is streamed
// in chunks.
const inlineExtents = 512 << 10

func getExtents(c *conn, req *request, w *response, id string) error {
	if id == "" {
		return failf(400, "Ticket id is required")
	}
	t, d, err := c.image(id, "read")
	if err != nil {
		return err
	}
	kind, err := enum(req.query, "context", "zero", "zero", "dirty")
	if err != nil {
		return err
	}
	var m disk.MapName
	if kind == "dirty" {
		if !t.spec.Dirty {
			return failf(404, "Ticket does not support dirty extents")
		}
		if m = dirtyMap(d); m == "" {
			return failf(404, "Operation not supported: the image has no dirty extents")
		}
	}
	size, err := t.readable(c.ctx, d)
	if err != nil {
		return err
	}
	off, end, err := c.svc.extentPage(req, size)
	if err != nil {
		return err
	}
	c.note("extents", "[%s] EXTENTS ticket=%s context=%s transfer=%s", c.client, logID(id), kind, t.spec.TransferID)
	return c.run(t, "extents", 0, func(ctx context.Context, _ *operation) error {
		return c.sendExtents(ctx, newExtentWalk(d, m), off, end, w)
	})
}

// extentPage reads the extension ?start=&length=.
func (s *service) extentPage(req *request, size int64) (off, end int64, err error) {
	off, end = 0, size
	if !s.cfg.Daemon.Extensions {
		return off, end, nil
	}
	if text, ok := req.query["start"]; ok {
		if off, err = strconv.ParseInt(text, 10, 64); err != nil || off < 0 {
			return 0, 0, failf(400, "Invalid value '%.40s' for 'start'", text)
		}
	}
	if text, ok := req.query["length"]; ok {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n <= 0 {
			return 0, 0, failf(400, "Invalid value '%.40s' for 'length'", text)
		}
		end = min(size, off+min(n, size))
	}
	if off > size {
		return 0, 0, rangeError("Requested range out of the image", size)
	}
	return off, end, nil
}

func (c *conn) sendExtents(ctx context.Context, walk *extentWalk, off, end int64, w *response) error {
	w.set("content-type", "application/json")
	var stream *chunks
	buf := []byte{'['}
	err := walk.each(ctx, off, end, func(e extent) error {
		if len(buf) > 1 || stream != nil {
			buf = append(buf, ", "...)
		}
		buf = e.append(buf, walk.dirty)
		limit := 64 << 10
		if stream == nil {
			limit = inlineExtents
		}
		if len(buf) < limit || !c.svc.cfg.Daemon.Extensions {
			return nil
		}
		if stream == nil {
			stream = w.chunked()
		}
		out := buf
		buf = buf[:0]
		return stream.write(out)
	})
	if err != nil {
		return err
	}
	buf = append(buf, "]\n"...)
	if stream == nil {
		return w.send(buf)
	}
	if err := stream.write(buf); err != nil {
		return err
	}
	return stream.end()
}
