package file

import (
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
)

// opener returns disks of size bytes opened with o.
func opener(size int64, o Options) disktest.Opener {
	return func(tb testing.TB) *disk.Disk {
		d, err := OpenDisk(tb.Context(), newFile(tb, tb.TempDir(), size), o)
		if err != nil {
			tb.Fatal(err)
		}
		return d
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		size int64
		o    Options
	}{
		"writeback":      {4 << 20, Options{}},
		"none":           {4 << 20, Options{Cache: None}},
		"unsafe-threads": {4 << 20, Options{Cache: Unsafe, AIO: Threads}},
		"none-tail":      {4<<20 + 777, Options{Cache: None, AIO: IOUring}},
		"writeback-tail": {4<<20 + 777, Options{AIO: IOUring}},
		"directsync":     {2 << 20, Options{Cache: Directsync}},
		"writethrough":   {2 << 20, Options{Cache: Writethrough}},
		"read-only":      {2 << 20, Options{ReadOnly: true}},
	} {
		t.Run(name, func(t *testing.T) {
			ops := 0
			if c.o.Cache.sync() {
				ops = 60 // each waits for the device
			}
			disktest.Conformance(t, opener(c.size, c.o), disktest.Options{Ops: ops})
		})
	}
}

func TestAllocations(t *testing.T) {
	for _, o := range []Options{{}, {Cache: None}, {AIO: Threads}} {
		d := opener(1<<20, o)(t)
		disktest.Allocations(t, d)
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

func BenchmarkFile(b *testing.B) {
	for _, o := range []Options{{}, {Cache: None}, {AIO: Threads}} {
		b.Run(o.Cache.String()+"-"+o.AIO.String(), func(b *testing.B) { disktest.Benchmark(b, opener(64<<20, o)) })
	}
}
