// Package imageio is the driver for images behind oVirt's image transfer API,
// https://HOST:54322/images/TICKET.
//
// Reads, writes, zeroes and flushes are requests of the API; the allocation map
// is its extents. The server never says whether zeroing is fast, and trimming
// exists for sparse tickets of this project's daemon alone. A request whose connection broke is sent again: all of them
// may be repeated.
package imageio

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/imageio/client"
)

// maxIO bounds one request, in bytes: a request that breaks is sent again whole.
const maxIO = 8 << 20

// Driver is an image; see the package comment.
type Driver struct {
	c     *client.Client
	o     Options
	dirty bool        // the server shows dirty extents
	whole atomic.Bool // the image is known to be as long as its ticket
}

// Options say what is wanted of an image.
type Options struct {
	// ReadOnly refuses changes even where the ticket allows them.
	ReadOnly bool
	// Dirty asks for the map DirtyMap, which is left out if the server has none.
	Dirty bool
}

// DirtyMap is the map of what the image's ticket calls dirty. The API does not name
// the bitmap behind it.
const DirtyMap = disk.MapName(disk.DirtyPrefix + "transfer")

// Open starts a session with the image.
func Open(ctx context.Context, cfg client.Config, o Options) (*disk.Disk, error) {
	c, err := client.Dial(ctx, cfg)
	if err != nil {
		return nil, err
	}
	d := &Driver{c: c, o: o}
	if o.Dirty {
		if err := d.findDirty(ctx); err != nil {
			c.Close()
			return nil, fmt.Errorf("%s: ask for dirty extents: %w", c.Name(), err)
		}
	}
	return disk.New(d, c.Name()), nil
}

// findDirty asks for the first dirty extent: no other answer of the API tells
// whether there are any.
func (d *Driver) findDirty(ctx context.Context) error {
	if d.c.Size() == 0 || !d.c.Features().Extents {
		return nil
	}
	err := d.c.Extents(ctx, "dirty", 0, 1, func(client.Extent) bool { return false })
	var status *client.StatusError
	if errors.As(err, &status) && (status.Status == 404 || status.Status == 400) {
		return nil
	}
	d.dirty = err == nil
	return explain(err)
}

// Available is how much of the image can be read: less than its size where the
// ticket of a new file allows it to grow by writing.
func (d *Driver) Available(ctx context.Context) (int64, error) {
	if d.whole.Load() {
		return d.c.Size(), nil
	}
	n, err := d.c.Available(ctx)
	d.whole.Store(err == nil && n == d.c.Size())
	return n, explain(err)
}

// bulk: a connection waits for the answer to a request before it sends the next one. In
// requests of 1 MiB an upload takes a tenth longer, in larger ones it is no faster.
const bulk = 4 << 20

// Info: the connections of one client share the server's image, so a flush on
// any of them covers all.
func (d *Driver) Info() disk.Info {
	f := d.c.Features()
	in := disk.Info{Size: d.c.Size(), MaxIO: maxIO, Preferred: 4096, Bulk: bulk, Volatile: f.Flush, MultiConn: true,
		ReadOnly: d.o.ReadOnly || !f.Write, ID: "imageio:" + d.c.Name()}
	if f.ImageID != "" {
		in.ID = "imageio:" + f.ImageID
	}
	if f.Zero {
		in.Zero = disk.Native
	}
	if f.Discard {
		in.Trim = disk.Native
	}
	if f.Extents {
		in.Maps = []disk.MapName{disk.Allocation}
	}
	if d.dirty {
		in.Maps = append(in.Maps, DirtyMap)
	}
	return in
}

// ReadAt is a GET of a range.
func (d *Driver) ReadAt(ctx context.Context, p []byte, off int64) error {
	return explain(d.c.ReadAt(ctx, p, off))
}

// WriteAt is a PUT of a range, without a flush.
func (d *Driver) WriteAt(ctx context.Context, p []byte, off int64, _ disk.Flags) error {
	d.c.Forget()
	return explain(d.c.WriteAt(ctx, p, off))
}

// WriteFromFile is WriteAt by sendfile.
func (d *Driver) WriteFromFile(ctx context.Context, off int64, src disk.FileRange, _ disk.Flags) error {
	d.c.Forget()
	return explain(d.c.SendFile(ctx, off, src.Len, src.FD, src.Off))
}

// Zero is a PATCH. Whether it leaves a hole is the ticket's "sparse", not the
// request's choice.
func (d *Driver) Zero(ctx context.Context, off, n int64, _ disk.Flags) error {
	d.c.Forget()
	return explain(d.c.Zero(ctx, off, n))
}

// Trim is an extension: a PATCH, of sparse tickets alone.
func (d *Driver) Trim(ctx context.Context, off, n int64, _ disk.Flags) error {
	d.c.Forget()
	return explain(d.c.Discard(ctx, off, n))
}

// Flush is a PATCH.
func (d *Driver) Flush(ctx context.Context) error { return explain(d.c.Flush(ctx)) }

// Extents is the extents resource: its dirty context for DirtyMap, else the zero one.
func (d *Driver) Extents(ctx context.Context, m disk.MapName, off, n int64, dst []disk.Extent) ([]disk.Extent, error) {
	kind := "zero"
	if m == DirtyMap {
		kind = "dirty"
	}
	start := off
	err := d.c.Extents(ctx, kind, off, n, func(e client.Extent) bool {
		if length := e.Start + e.Length - start; length > 0 {
			to := mapped(e, m)
			to.Len = length
			dst = append(dst, to)
			start += length
		}
		return len(dst) < cap(dst)
	})
	if start == off && m == disk.Allocation && unknown(err) {
		// A map saves time; a daemon that has trouble with its own is no reason to fail.
		return append(dst, disk.Extent{Len: min(n, unknownSpan)}), nil
	}
	if err != nil {
		return dst, explain(err)
	}
	if start == off {
		return dst, fmt.Errorf("the server's extents end at %d, before the end of the image: %w", off, disk.ErrCorrupt)
	}
	return dst, nil
}

// unknownSpan is how much is taken for data where a server refuses to tell.
const unknownSpan = 64 << 20

// unknown reports whether the server answered a query of extents with an error that
// says nothing of its reads: not of the ticket, nor of what stands in between.
func unknown(err error) bool {
	var e *client.StatusError
	return errors.As(err, &e) && (e.Status == http.StatusInternalServerError || e.Status == http.StatusNotFound || e.Status == http.StatusBadRequest)
}

func mapped(e client.Extent, m disk.MapName) (to disk.Extent) {
	switch {
	case m == DirtyMap && e.Dirty:
		to.Value = 1
	case m == DirtyMap:
	case e.Hole:
		to.Flags = disk.ExtentHole | disk.ExtentBacking
	}
	if m != DirtyMap && e.Zero {
		to.Flags |= disk.ExtentZero | disk.ExtentHole
	}
	return to
}

// Inspect tells what the server offers.
func (d *Driver) Inspect(context.Context) ([]disk.Attr, error) {
	f := d.c.Features()
	return []disk.Attr{
		{Name: "connections", Value: int64(d.c.Connections())},
		{Name: "unix-socket", Value: d.c.Local()},
		{Name: "zero", Value: f.Zero}, {Name: "extents", Value: f.Extents},
		{Name: "paged-extents", Value: f.PagedExtents}, {Name: "checksum", Value: f.Checksum},
	}, nil
}

// Sum has the server digest its image; see diskcopy.Summer.
func (d *Driver) Sum(ctx context.Context, algorithm string, blockSize int64) (string, error) {
	sum, err := d.c.Checksum(ctx, algorithm, blockSize)
	return sum.Checksum, explain(err)
}

// Waiting is how long the server has not answered.
func (d *Driver) Waiting() time.Duration { return d.c.Waiting() }

// Close ends the session.
func (d *Driver) Close() error { return d.c.Close() }

// errnos is the one place where statuses become errnos.
var errnos = map[int]error{403: syscall.EACCES, 416: disk.ErrRange, 507: syscall.ENOSPC, 500: syscall.EIO}

func explain(err error) error {
	var status *client.StatusError
	if !errors.As(err, &status) {
		return err
	}
	if leaf, ok := errnos[status.Status]; ok {
		return fmt.Errorf("%w: %w", status, leaf)
	}
	return err
}
