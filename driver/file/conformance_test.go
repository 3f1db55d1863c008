package file

import (
	"os"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
	"github.com/vmdisk/vmdisk/disk/disktest/hostfs"
)

// opener returns disks of size bytes below dir, opened with o.
func opener(dir string, size int64, o Options) disktest.Opener {
	return func(tb testing.TB) *disk.Disk {
		sub, err := os.MkdirTemp(dir, "")
		if err != nil {
			tb.Fatal(err)
		}
		d, err := OpenDisk(tb.Context(), newFile(tb, sub, size), o)
		if err != nil {
			tb.Fatal(err)
		}
		return d
	}
}

// quickDir is a directory where O_DIRECT works and fsync does not wait for a
// device: ext4 in RAM, where root can make one.
func quickDir(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		return t.TempDir()
	}
	ram := hostfs.Mount(t, hostfs.Tmpfs, hostfs.Options{Size: 1 << 30})
	return hostfs.Mount(t, hostfs.Ext4, hostfs.Options{Dir: ram, Size: 1 << 30})
}

func TestConformance(t *testing.T) {
	t.Parallel()
	dir := quickDir(t)
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
			disktest.Conformance(t, opener(dir, c.size, c.o), disktest.Options{Ops: ops})
		})
	}
}

func TestAllocations(t *testing.T) {
	for _, o := range []Options{{}, {Cache: None}, {AIO: Threads}} {
		d := opener(t.TempDir(), 1<<20, o)(t)
		disktest.Allocations(t, d)
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

func BenchmarkFile(b *testing.B) {
	for _, o := range []Options{{}, {Cache: None}, {AIO: Threads}} {
		b.Run(o.Cache.String()+"-"+o.AIO.String(), func(b *testing.B) { disktest.Benchmark(b, opener(b.TempDir(), 64<<20, o)) })
	}
}
