package engine

import (
	"context"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/mem"
)

// behindCache is a disk that says whether a page cache is before it, and counts its queues.
type behindCache struct {
	disk.Driver
	cached bool
	queues int
}

func (d *behindCache) FileRange(int64, int64, bool) (disk.FileRange, bool) {
	return disk.FileRange{FD: -1}, d.cached
}

func (d *behindCache) NewQueue(int) (disk.Queue, error) {
	d.queues++
	return nil, disk.ErrInline
}

// libaio through a page cache is a row of system calls in fio, and so it is here; only
// past the cache is its depth a depth.
func TestInCalls(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		job    string
		cached bool
		queues int
	}{
		{"ioengine=libaio\niodepth=16", true, 0},
		{"ioengine=psync", true, 0},
		{"ioengine=io_uring\niodepth=16", true, 1},
		{"ioengine=libaio\niodepth=16", false, 1},
	} {
		below, err := mem.Open(1 << 20)
		if err != nil {
			t.Fatal(err)
		}
		inner, _ := disk.As[disk.Driver](below)
		b := &behindCache{Driver: inner, cached: c.cached}
		d := disk.New(b, "cached")
		r := runOn(t, func(context.Context, OpenRequest) (*disk.Disk, error) { return d, nil }, "[j]\nrw=randread\nbs=4k\nsize=64k\n"+c.job)
		if err := r.Failed(); err != nil || r.Jobs[0].Dirs[0].IOs != 16 {
			t.Errorf("%s: %d I/Os, %v", c.job, r.Jobs[0].Dirs[0].IOs, err)
		}
		if b.queues != c.queues {
			t.Errorf("%s, cached %v: %d queues of the disk's own, want %d", strings.ReplaceAll(c.job, "\n", " "), c.cached, b.queues, c.queues)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}
