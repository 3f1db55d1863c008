package qcow2

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

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
	if !o.ReadOnly {
		return nil, fmt.Errorf("qcow2 images are not written yet, only read: %w", errUnsupported)
	}
	d := &driver{header: *h, geometry: h.geometry(), opts: o, child: child, data: child}
	if o.L2Cache == 0 {
		o.L2Cache = defaultL2Cache
	}
	d.l1.cluster, d.l2 = d.geometry.cluster, newTableCache(child, d.geometry.perSlice*d.geometry.words, o.L2Cache)
	d.inflated = newInflated(d.geometry.cluster)
	if d.l1.entries, err = readWords(ctx, child, int64(h.l1Offset), int64(h.l1Size)); err != nil {
		return nil, fmt.Errorf("the L1 table: %w", err)
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

// Close implements disk.Driver.
func (d *driver) Close() error { return errors.Join(d.closeNamed(), d.child.Close()) }

// Info implements disk.Driver.
func (d *driver) Info() disk.Info {
	in := d.child.Info()
	out := disk.Info{
		Size: int64(d.header.size), Min: in.Min, Preferred: max(d.geometry.sub, in.Preferred), ReadOnly: true,
		MultiConn: true, Cache: disk.None, Maps: []disk.MapName{disk.Allocation, disk.Depth},
	}
	if in.ID != "" {
		out.ID = "qcow2:" + in.ID
	}
	return out
}
