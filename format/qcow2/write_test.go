package qcow2_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
	"github.com/vmdisk/vmdisk/driver/file"
	"github.com/vmdisk/vmdisk/driver/mem"
	"github.com/vmdisk/vmdisk/format/qcow2"
)

// kinds are images that differ in what writing to them does.
var kinds = map[string]qcow2.CreateOptions{
	"v2":                     {Version: 2},
	"v3":                     {},
	"512":                    {ClusterSize: 512},
	"512, 64 bits":           {ClusterSize: 512, RefcountBits: 64},
	"1 bit":                  {ClusterSize: 4096, RefcountBits: 1},
	"2M, 2 bits":             {ClusterSize: 2 << 20, RefcountBits: 2},
	"4 bits":                 {ClusterSize: 4096, RefcountBits: 4},
	"8 bits":                 {ClusterSize: 16384, RefcountBits: 8},
	"extended":               {ExtendedL2: true},
	"extended, 16K, 32 bits": {ExtendedL2: true, ClusterSize: 16 << 10, RefcountBits: 32},
	"extended, 128K, lazy":   {ExtendedL2: true, ClusterSize: 128 << 10, LazyRefcounts: true},
	"lazy":                   {LazyRefcounts: true},
	"metadata":               {Preallocation: "metadata"},
	"extended, metadata":     {ExtendedL2: true, Preallocation: "metadata"},
}

func create(tb testing.TB, child *disk.Disk, o qcow2.CreateOptions) *disk.Disk {
	tb.Helper()
	if err := qcow2.Create(tb.Context(), child, o); err != nil {
		tb.Fatal(err)
	}
	d, err := qcow2.Open(tb.Context(), child, qcow2.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

func TestConformance(t *testing.T) {
	for name, o := range kinds {
		t.Run(name, func(t *testing.T) {
			o.Size = 3<<20 + 512
			disktest.Conformance(t, func(tb testing.TB) *disk.Disk {
				child, err := mem.Open(64 << 20)
				if err != nil {
					tb.Fatal(err)
				}
				return create(tb, child, o)
			}, disktest.Options{Ops: 100})
		})
	}
}

// newImage makes an image in a file.
func newImage(tb testing.TB, path string, o qcow2.CreateOptions) {
	tb.Helper()
	if err := file.Create(tb.Context(), path, 0, ""); err != nil {
		tb.Fatal(err)
	}
	child, err := file.OpenDisk(tb.Context(), path, file.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	if err := qcow2.Create(tb.Context(), child, o); err != nil {
		tb.Fatal(err)
	}
	if err := child.Close(); err != nil {
		tb.Fatal(err)
	}
}

// scribble changes d at random, and want with it.
func scribble(tb testing.TB, d *disk.Disk, want []byte, rnd *rand.Rand, ops int) {
	tb.Helper()
	ctx := tb.Context()
	for range ops {
		off := rnd.IntN(len(want))
		n := 1 + rnd.IntN(min(200_000>>(rnd.IntN(4)*3), len(want)-off))
		var err error
		switch part := want[off : off+n]; rnd.IntN(8) {
		case 0:
			clear(part)
			err = d.Zero(ctx, int64(off), int64(n), 0)
		case 1:
			clear(part)
			err = d.Zero(ctx, int64(off), int64(n), disk.MayTrim)
		case 2:
			err = d.Flush(ctx)
		case 3:
			if err = d.Trim(ctx, int64(off), int64(n), 0); err == nil {
				err = d.ReadAt(ctx, part, int64(off)) // whatever it left
			}
		default:
			b := byte(rnd.IntN(256))
			for i := range part {
				part[i] = b + byte(i>>6)
			}
			err = d.WriteAt(ctx, part, int64(off), 0)
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
}

// What is written here is sound for qemu-img and equal, and the other way around, with both
// writing in turn.
func TestAlternatingWriters(t *testing.T) {
	const size = 3<<20 + 1024
	for name, o := range kinds {
		for _, backed := range []bool{false, true} {
			if backed && o.Preallocation != "" {
				continue
			}
			t.Run(fmt.Sprintf("%s, backed %v", name, backed), func(t *testing.T) {
				t.Parallel()
				alternate(t, o, size, backed)
			})
		}
	}
}

func alternate(t *testing.T, o qcow2.CreateOptions, size int, backed bool) {
	dir := t.TempDir()
	path, raw := filepath.Join(dir, "image"), filepath.Join(dir, "raw")
	want := make([]byte, size)
	o.Size = int64(size)
	if backed {
		base := mixed(2<<20+700, 5)
		if err := os.WriteFile(filepath.Join(dir, "base"), base, 0o600); err != nil {
			t.Fatal(err)
		}
		copy(want, base)
		o.Backing, o.BackingFormat = filepath.Join(dir, "base"), "raw"
	}
	newImage(t, path, o)
	sound(t, path, raw, want)
	rnd := rand.New(rand.NewPCG(uint64(size), uint64(len(t.Name()))))
	for range 3 {
		d := openFile(t, path, qcow2.Options{Backing: beside(dir)})
		scribble(t, d, want, rnd, 40)
		same(t, d, want)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		sound(t, path, raw, want)
		at := rnd.IntN(size-100_000) &^ 511
		qemuIO(t, path, fmt.Sprintf("write -P 7 %d 50688", at), fmt.Sprintf("write -P 8 %d 512", size-1024))
		fill(want[at:at+50688], 7)
		fill(want[size-1024:size-512], 8)
	}
	d := openFile(t, path, qcow2.Options{ReadOnly: true, Backing: beside(dir)})
	same(t, d, want)
	d.Close()
}

// sound has qemu-img check the image and compare it.
func sound(tb testing.TB, path, raw string, want []byte) {
	tb.Helper()
	qemuImg(tb, "check", "-q", "-f", "qcow2", path)
	if err := os.WriteFile(raw, want, 0o600); err != nil {
		tb.Fatal(err)
	}
	qemuImg(tb, "compare", "-q", "-f", "qcow2", "-F", "raw", path, raw)
}
