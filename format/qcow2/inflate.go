package qcow2

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds what a zstd frame may ask for. QEMU's have at the most a cluster's size.
const maxWindow = 8 << 20

// inflater holds what inflating one cluster needs; a pool keeps them.
type inflater struct {
	in    []byte
	src   bytes.Reader
	flate io.ReadCloser
	zstd  *zstd.Decoder
}

var inflaters = sync.Pool{New: func() any { return new(inflater) }}

// room returns n bytes for compressed data.
func (f *inflater) room(n int64) []byte {
	if int64(cap(f.in)) < n {
		f.in = make([]byte, n)
	}
	return f.in[:n]
}

// inflate fills p, a whole cluster, from compressed data. What follows the data within
// their last sector is another cluster's and is not looked at.
func (f *inflater) inflate(p, in []byte, compression uint8) error {
	f.src.Reset(in)
	var r io.Reader
	if compression == compressZstd {
		if f.zstd == nil {
			dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
			if err != nil {
				return err
			}
			f.zstd = dec
		}
		if err := f.zstd.Reset(&f.src); err != nil {
			return err
		}
		r = f.zstd
	} else {
		if f.flate == nil {
			f.flate = flate.NewReader(&f.src)
		} else if err := f.flate.(flate.Resetter).Reset(&f.src, nil); err != nil {
			return err
		}
		r = f.flate
	}
	_, err := io.ReadFull(r, p)
	return err
}

// readCompressed fills p, the whole cluster that desc describes.
func (d *driver) readCompressed(ctx context.Context, p []byte, desc uint64) error {
	host, n := d.geometry.descriptor(desc)
	size := d.child.Size()
	if host >= size || host == 0 {
		return corrupt("compressed data at offset %d are not inside the file of %d bytes: is the file cut short?", host, size)
	}
	f := inflaters.Get().(*inflater)
	defer inflaters.Put(f)
	in := f.room(min(n, size-host))
	if err := d.child.ReadAt(ctx, in, host); err != nil {
		return err
	}
	if err := f.inflate(p, in, d.header.compression); err != nil {
		return fmt.Errorf("%w (%v)", corrupt("the compressed cluster at offset %d of the file cannot be decompressed", host), err)
	}
	return nil
}

// inflated keeps clusters that were inflated for a part of them, for those who read the
// other parts. One that is being inflated is waited for.
type inflated struct {
	mu       sync.Mutex
	room     int
	clusters map[uint64]*inflatedCluster
	age      []*inflatedCluster // oldest first
}

type inflatedCluster struct {
	desc  uint64
	ready chan struct{}
	data  []byte
	err   error
}

const inflatedBytes = 8 << 20

func newInflated(cluster int64) *inflated {
	return &inflated{room: int(max(min(inflatedBytes/cluster, 64), 4)), clusters: make(map[uint64]*inflatedCluster)}
}

// claim returns the cluster; mine says that the caller has to inflate it, and to end it.
func (c *inflated) claim(desc uint64) (x *inflatedCluster, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if x := c.clusters[desc]; x != nil {
		return x, false
	}
	x = &inflatedCluster{desc: desc, ready: make(chan struct{})}
	c.clusters[desc] = x
	c.age = append(c.age, x)
	if len(c.age) > c.room {
		c.drop(c.age[0])
	}
	return x, true
}

func (c *inflated) drop(x *inflatedCluster) {
	if c.clusters[x.desc] == x {
		delete(c.clusters, x.desc)
	}
	for i, o := range c.age {
		if o == x {
			c.age = append(c.age[:i], c.age[i+1:]...)
			break
		}
	}
}

// forget drops the cluster, whose data are now others.
func (c *inflated) forget(desc uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if x := c.clusters[desc]; x != nil {
		c.drop(x)
	}
}

// readPart reads from off of the compressed cluster desc.
func (d *driver) readPart(ctx context.Context, p []byte, desc uint64, off int64) error {
	if int64(len(p)) == d.geometry.cluster {
		return d.readCompressed(ctx, p, desc)
	}
	for {
		x, mine := d.inflated.claim(desc)
		if mine {
			x.data = make([]byte, d.geometry.cluster)
			x.err = d.readCompressed(ctx, x.data, desc)
			close(x.ready)
		}
		select {
		case <-x.ready:
		case <-ctx.Done():
			return ctx.Err()
		}
		if x.err == nil {
			copy(p, x.data[off:])
			return nil
		}
		d.inflated.forget(desc)
		if mine || !isCancel(x.err) {
			return x.err
		}
	}
}
