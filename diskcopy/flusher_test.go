package diskcopy

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
)

// caching is a target with a write cache, whose flushes it counts. Writes past
// the first flushStep wait for a flush, so a copy that flushes only at its end
// would never get there.
type caching struct {
	remote
	flushes, written atomic.Int64
	flushed          chan struct{}
	err              error
}

func (c *caching) Info() disk.Info {
	in := c.remote.Info()
	in.Volatile = true
	return in
}

func (c *caching) WriteAt(ctx context.Context, p []byte, off int64, f disk.Flags) error {
	if c.flushed != nil && c.written.Add(int64(len(p))) > 2*flushStep {
		select {
		case <-c.flushed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return c.remote.WriteAt(ctx, p, off, f)
}

func (c *caching) Flush(ctx context.Context) error {
	if c.flushes.Add(1) == 1 && c.flushed != nil {
		close(c.flushed)
	}
	if c.err != nil {
		return c.err
	}
	return c.remote.Flush(ctx)
}

// data has n bytes of data.
func data(t *testing.T, n int64) *disk.Disk {
	d := memDisk(t, n)
	for off := int64(0); off < n; off += mib {
		fill(t, d, off, mib, off)
	}
	return d
}

// TestFlushesMeanwhile: the target is flushed while the copy goes on.
func TestFlushesMeanwhile(t *testing.T) {
	t.Parallel()
	src := data(t, 3*flushStep)
	target := &caching{remote: remote{child: memDisk(t, src.Size())}, flushed: make(chan struct{})}
	if _, err := Copy(t.Context(), disk.New(target, "caching"), src, Options{}); err != nil {
		t.Fatal(err)
	}
	if n := target.flushes.Load(); n < 2 {
		t.Errorf("%d flushes", n)
	}
	mustEqual(t, src, target.child)
}

// TestNoFlushMeanwhile: none where none was asked for, nor for little data.
func TestNoFlushMeanwhile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		size, want int64
		o          Options
	}{{3 * flushStep, 0, Options{NoFlush: true}}, {flushStep / 2, 1, Options{}}} {
		src := data(t, c.size)
		target := &caching{remote: remote{child: memDisk(t, src.Size())}}
		if _, err := Copy(t.Context(), disk.New(target, "caching"), src, c.o); err != nil {
			t.Fatal(err)
		}
		if n := target.flushes.Load(); n != c.want {
			t.Errorf("%+v: %d flushes, want %d", c.o, n, c.want)
		}
	}
}

// TestFlushFailsMeanwhile: a failed flush ends the copy, whatever a later one says.
func TestFlushFailsMeanwhile(t *testing.T) {
	t.Parallel()
	src := data(t, 3*flushStep)
	target := &caching{remote: remote{child: memDisk(t, src.Size())}, flushed: make(chan struct{}), err: syscall.EIO}
	_, err := Copy(t.Context(), disk.New(target, "caching"), src, Options{})
	var ce *CopyError
	if !errors.As(err, &ce) || ce.Side != Target || !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v", err)
	}
}
