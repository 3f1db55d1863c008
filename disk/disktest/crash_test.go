package disktest_test

import (
	"bytes"
	"errors"
	"syscall"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
)

func TestConformanceOfCrash(t *testing.T) {
	for _, block := range []int64{0, 4096} {
		disktest.Conformance(t, func(testing.TB) *disk.Disk {
			return disktest.NewCrash(disktest.CrashConfig{Size: 2<<20 + 100, Block: block}).Open()
		}, disktest.Options{Ops: 200})
	}
}

func TestDurable(t *testing.T) {
	t.Parallel()
	disktest.Durable(t, func(_ testing.TB, d *disk.Disk) *disk.Disk { return d }, disktest.Options{})
	disktest.Durable(t, func(_ testing.TB, d *disk.Disk) *disk.Disk {
		d, _ = disktest.Strict(d, func(in *disk.Info) { in.FUA, in.Zero, in.FastZero, in.Min = disk.None, disk.None, disk.None, 8192 })
		return d
	}, disktest.Options{})
}

func put(t *testing.T, d *disk.Disk, off int64, p []byte, f disk.Flags) {
	t.Helper()
	if err := d.WriteAt(t.Context(), p, off, f); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, d *disk.Disk, off, n int64) []byte {
	t.Helper()
	p := make([]byte, n)
	if err := d.ReadAt(t.Context(), p, off); err != nil {
		t.Fatal(err)
	}
	return p
}

// Every fate happens: a write is lost, kept, or torn between blocks and never
// inside one; what is flushed or FUA always survives.
func TestFates(t *testing.T) {
	t.Parallel()
	const n = 8 * 512
	flushed, fua, late := bytes.Repeat([]byte{1}, n), bytes.Repeat([]byte{2}, n), bytes.Repeat([]byte{3}, n)
	var lost, kept, torn int
	for seed := range uint64(60) {
		c := disktest.NewCrash(disktest.CrashConfig{Size: 1 << 20, Seed: seed})
		d := c.Open()
		put(t, d, 0, late, 0)
		put(t, d, 0, flushed, 0)
		if err := d.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		put(t, d, n, late, 0)
		put(t, d, n, fua, disk.FUA)
		put(t, d, 0, late, 0)
		if !bytes.Equal(c.Durable(0, n), flushed) || !bytes.Equal(get(t, d, 0, n), late) {
			t.Fatal("durable content and current content are mixed up")
		}
		c.PowerLoss()
		if err := d.ReadAt(t.Context(), make([]byte, 1), 0); !errors.Is(err, disktest.ErrPowerLost) {
			t.Errorf("a disk without power answers %v", err)
		}
		d = c.Open()
		if !bytes.Equal(get(t, d, n, n), fua) {
			t.Fatalf("seed %d: FUA was lost", seed)
		}
		got := get(t, d, 0, n)
		for i := range got {
			if got[i] != got[i/512*512] || got[i] != 1 && got[i] != 3 {
				t.Fatalf("seed %d: offset %d holds %d", seed, i, got[i])
			}
		}
		switch {
		case bytes.Equal(got, flushed):
			lost++
		case bytes.Equal(got, late):
			kept++
		default:
			torn++
		}
	}
	if lost < 5 || kept < 5 || torn < 5 {
		t.Errorf("%d writes lost, %d kept, %d torn", lost, kept, torn)
	}
}

// After a failed flush some writes can be read and yet never become durable; the
// Disk that met the failure does not claim otherwise.
func TestFailedFlush(t *testing.T) {
	t.Parallel()
	fail := true
	c := disktest.NewCrash(disktest.CrashConfig{Size: 1 << 20, Fail: func(op disk.Kind, _, _ int64) error {
		if fail && op == disk.Flush {
			return syscall.EIO
		}
		return nil
	}})
	d := c.Open()
	p := bytes.Repeat([]byte{9}, 64*512)
	put(t, d, 0, p, 0)
	for range 2 {
		if err := d.Flush(t.Context()); !errors.Is(err, syscall.EIO) {
			t.Errorf("flush: %v", err)
		}
		fail = false
	}
	other := c.Open()
	if err := other.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(get(t, other, 0, 64*512), p) {
		t.Error("the cache lost what it holds")
	}
	if n := bytes.Count(c.Durable(0, 64*512), []byte{9}) / 512; n == 0 || n == 64 {
		t.Errorf("%d of 64 blocks are durable after a failed flush and a good one", n)
	}
}
