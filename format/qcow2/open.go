package qcow2

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"

	"github.com/vmdisk/vmdisk/disk"
)

// An Opener opens a file that an image names, read-only, or refuses to. format is what
// the image says of it, "" if nothing. See the package comment for what is its to decide.
type Opener func(ctx context.Context, name, format string) (*disk.Disk, error)

// Options say how an image is opened.
type Options struct {
	ReadOnly bool
	// Backing opens the backing file, Data the external data file. An image that names
	// one and finds nil is refused.
	Backing, Data Opener
	// NoReferences opens nothing that the image names, for who inspects an image. What is
	// in such a file is in the map as what it is, and reading it fails.
	NoReferences bool
	// L2Cache bounds the memory for L2 tables, in bytes; 0 is 64 MiB.
	L2Cache int64
}

const defaultL2Cache = 64 << 20

// ErrReference: the image names a file, and nothing allows to open it.
var ErrReference = fmt.Errorf("what an image names is opened only if it is allowed: %w", fs.ErrPermission)

// driver is an open image.
type driver struct {
	header   header
	geometry geometry
	opts     Options
	child    *disk.Disk
	data     *disk.Disk // where guest clusters are: child, or the external data file
	backing  *disk.Disk // nil without
	l1       l1Table
	l2       *tableCache
	inflated *inflated
	w        *writer // nil of a disk that is only read
	size     atomic.Int64
	gen      atomic.Uint64
}

// Open opens the image in child, which the returned Disk owns unless Open fails.
func Open(ctx context.Context, child *disk.Disk, o Options) (*disk.Disk, error) {
	d, err := open(ctx, child, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", child.Name(), err)
	}
	return disk.New(d, child.Name()), nil
}

func open(ctx context.Context, child *disk.Disk, o Options) (*driver, error) {
	h, err := readHeader(ctx, child)
	if err != nil {
		return nil, err
	}
	if o.L2Cache == 0 {
		o.L2Cache = defaultL2Cache
	}
	o.ReadOnly = o.ReadOnly || o.NoReferences || child.Info().ReadOnly
	d := &driver{header: *h, geometry: h.geometry(), opts: o, child: child, data: child}
	d.size.Store(int64(h.size))
	d.l1.cluster, d.l2 = d.geometry.cluster, newTableCache(child, d.geometry.perSlice*d.geometry.words, o.L2Cache)
	d.inflated = newInflated(d.geometry.cluster)
	if d.l1.entries, err = readWords(ctx, child, int64(h.l1Offset), int64(h.l1Size)); err != nil {
		return nil, fmt.Errorf("the L1 table: %w", err)
	}
	if !o.ReadOnly {
		if d.w, err = newWriter(ctx, d); err != nil {
			return nil, err
		}
	}
	if err := d.openNamed(ctx); err != nil {
		return nil, errors.Join(err, d.closeNamed())
	}
	return d, nil
}

// readHeader reads and checks the header; of the tables it only knows that they can be.
func readHeader(ctx context.Context, child *disk.Disk) (*header, error) {
	size := child.Size()
	p := make([]byte, min(size, headerV3))
	if err := child.ReadAt(ctx, p, 0); err != nil {
		return nil, err
	}
	h, err := parseFixed(p)
	if err != nil {
		return nil, err
	}
	p = make([]byte, min(size, h.cluster))
	if err := child.ReadAt(ctx, p, 0); err != nil {
		return nil, err
	}
	if err := h.parseRest(p); err != nil {
		return nil, err
	}
	return h, h.check(size)
}

// openNamed opens what the image names, as far as the caller lets it.
func (d *driver) openNamed(ctx context.Context) (err error) {
	if d.opts.NoReferences {
		return nil
	}
	if d.header.dataFile() {
		if d.data, err = d.openData(ctx); err != nil {
			return err
		}
	}
	if d.header.backing == "" {
		return nil
	}
	if d.header.rawData() {
		return corrupt("a backing file, and a raw external data file")
	}
	name, format := d.header.backing, d.header.extensions.text(extBackingFormat)
	if d.opts.Backing == nil {
		return fmt.Errorf("it has the backing file %q (format %s): %w", name, orNone(format), ErrReference)
	}
	if d.backing, err = d.opts.Backing(ctx, name, format); err != nil {
		return fmt.Errorf("backing file %q: %w", name, err)
	}
	return nil
}

func (d *driver) openData(ctx context.Context) (*disk.Disk, error) {
	name := d.header.extensions.text(extDataFile)
	switch {
	case name == "":
		return nil, corrupt("the guest's data are in an external data file, and its name is missing")
	case d.opts.Data == nil:
		return nil, fmt.Errorf("it has the external data file %q: %w", name, ErrReference)
	}
	data, err := d.opts.Data(ctx, name, "raw")
	if err != nil {
		return nil, fmt.Errorf("external data file %q: %w", name, err)
	}
	return data, nil
}

func orNone(format string) string {
	if format == "" {
		return "not said"
	}
	return format
}

func (d *driver) closeNamed() error {
	var err error
	if d.backing != nil {
		err = d.backing.Close()
	}
	if d.data != nil && d.data != d.child {
		err = errors.Join(err, d.data.Close())
	}
	return err
}

// Close implements disk.Driver. Unlike a flush it also brings out what costs only space
// when it is lost, and marks the image as closed.
func (d *driver) Close() error {
	var err error
	if d.w != nil {
		err = d.w.close(context.Background())
	}
	return errors.Join(err, d.closeNamed(), d.child.Close())
}

// Info implements disk.Driver.
func (d *driver) Info() disk.Info {
	in := d.child.Info()
	out := disk.Info{
		Size: d.size.Load(), Gen: d.gen.Load(), Min: in.Min, Preferred: max(d.geometry.sub, in.Preferred), ReadOnly: true,
		MultiConn: true, Maps: []disk.MapName{disk.Allocation, disk.Depth},
	}
	if in.ID != "" {
		out.ID = "qcow2:" + in.ID
	}
	if d.w != nil {
		d.w.info(&out)
	}
	return out
}

// Flush implements disk.Driver.
func (d *driver) Flush(ctx context.Context) error {
	if d.w == nil {
		return nil
	}
	return d.w.flush(ctx)
}

// Resize implements disk.Resizer.
func (d *driver) Resize(ctx context.Context, size int64) error {
	if d.w == nil {
		return disk.ErrReadOnly
	}
	return d.w.resize(ctx, size)
}
