package cow_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
	"github.com/vmdisk/vmdisk/driver/mem"
	"github.com/vmdisk/vmdisk/filter/cow"
)

const size = 2<<20 + 100

func content(p []byte, off int64) {
	for i := range p {
		if at := off + int64(i); at < 1<<20 || at >= 1<<20+200_000 {
			p[i] = byte(at*13)&^1 + byte(at>>16)
		} else {
			p[i] = 0
		}
	}
}

// golden is a read-only disk that holds content, in three pieces with a hole.
func golden(tb testing.TB) *disk.Disk {
	tb.Helper()
	d, err := mem.Open(size)
	if err != nil {
		tb.Fatal(err)
	}
	for _, off := range []int64{0, 1<<20 + 200_000} {
		p := make([]byte, min(1<<20, size-off))
		content(p, off)
		if err := d.WriteAt(tb.Context(), p, off, 0); err != nil {
			tb.Fatal(err)
		}
	}
	ro, _ := disktest.Strict(d, func(in *disk.Info) { in.ReadOnly, in.Min = true, 512 })
	return ro
}

func open(tb testing.TB, child *disk.Disk, cfg cow.Config) *disk.Disk {
	tb.Helper()
	if cfg.Store == cow.File {
		cfg.Dir = tb.TempDir()
	}
	d, err := cow.New(child, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

var configs = map[string]cow.Config{
	"memory":      {},
	"file":        {Store: cow.File},
	"small":       {BlockSize: 4096},
	"large, file": {Store: cow.File, BlockSize: 1 << 20},
}

func TestConformance(t *testing.T) {
	for name, cfg := range configs {
		t.Run(name, func(t *testing.T) {
			disktest.Conformance(t, func(tb testing.TB) *disk.Disk { return open(tb, golden(tb), cfg) },
				disktest.Options{Content: content, Ops: 250})
		})
	}
}

func TestConformanceLarge(t *testing.T) {
	disktest.Conformance(t, func(tb testing.TB) *disk.Disk {
		child, err := mem.Open(8<<40 + 1)
		if err != nil {
			tb.Fatal(err)
		}
		return open(tb, child, cow.Config{})
	}, disktest.Options{Ops: 50})
}

// The disk below is never changed, and a new overlay shows it again.
func TestNothingReachesBelow(t *testing.T) {
	t.Parallel()
	child, _ := mem.Open(1 << 20)
	before := bytes.Repeat([]byte{9}, 1<<20)
	ctx := t.Context()
	if err := child.WriteAt(ctx, before, 0, 0); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range configs {
		d := open(t, disk.New(keep{child}, "keep"), cfg)
		err := errors.Join(d.WriteAt(ctx, make([]byte, 100_000), 5, disk.FUA), d.Zero(ctx, 0, 300_000, 0), d.Trim(ctx, 0, 1<<20, 0), d.Flush(ctx))
		if err := errors.Join(err, d.Close()); err != nil {
			t.Error(err)
		}
		got := make([]byte, 1<<20)
		if err := child.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, before) {
			t.Errorf("%s: the disk below changed (%v)", name, err)
		}
	}
}

type keep struct{ disk.Driver }

func (keep) Close() error { return nil }

func TestExtents(t *testing.T) {
	t.Parallel()
	d := open(t, golden(t), cow.Config{})
	ctx := t.Context()
	if err := errors.Join(d.WriteAt(ctx, []byte{1}, 1<<20+65536, 0), d.Zero(ctx, 65536, 131072, disk.FastOnly)); err != nil {
		t.Fatal(err)
	}
	var got string
	for off := int64(0); off < size; {
		es, err := d.Extents(ctx, disk.Allocation, off, size-off, make([]disk.Extent, 0, 2))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range es {
			got += fmt.Sprintf("%d:%d ", e.Len, e.Flags)
			off += e.Len
		}
	}
	// A golden hole between 1 MiB and 1 MiB + 200,000 (to the page) with a written block in it.
	const want = "65536:0 131072:3 851968:0 65536:3 65536:0 65536:3 852068:0 "
	if got != want {
		t.Errorf("extents\n got %s\nwant %s", got, want)
	}
}

// The space of zeroed blocks comes back, and a killed process leaves no file.
func TestFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d, err := cow.New(golden(t), cow.Config{Store: cow.File, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if names, _ := os.ReadDir(dir); len(names) > 0 {
		t.Errorf("the overlay has a name: %v", names)
	}
	blocks := func() int64 {
		links, _ := filepath.Glob("/proc/self/fd/*")
		for _, link := range links {
			if name, _ := os.Readlink(link); strings.HasPrefix(name, dir) {
				var st syscall.Stat_t
				if err := syscall.Stat(link, &st); err != nil {
					t.Fatal(err)
				}
				return st.Blocks * 512
			}
		}
		t.Fatal("the overlay's file is not open")
		return 0
	}
	if err := d.WriteAt(t.Context(), make([]byte, 1<<20), 0, 0); err != nil {
		t.Fatal(err)
	}
	full := blocks()
	if err := d.Trim(t.Context(), 0, 1<<20, 0); err != nil {
		t.Fatal(err)
	}
	if empty := blocks(); full < 1<<20 || empty > full/4 {
		t.Errorf("%d bytes are taken when full, %d after a trim", full, empty)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, cfg := range []cow.Config{{BlockSize: 5000}, {BlockSize: 512}, {BlockSize: 4 << 20}, {Store: "disk"},
		{Store: cow.File, Dir: filepath.Join(t.TempDir(), "none")}} {
		if _, err := cow.New(golden(t), cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

// failing is below and cannot be read.
type failing struct{ disk.Driver }

func (failing) ReadAt(context.Context, []byte, int64) error { return syscall.EIO }

func TestUnreadableBelow(t *testing.T) {
	t.Parallel()
	d := open(t, disk.New(failing{golden(t)}, "failing"), cow.Config{})
	if err := d.WriteAt(t.Context(), []byte{1}, 0, 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("a write that has to copy up: %v", err)
	}
	if err := d.WriteAt(t.Context(), make([]byte, 65536), 65536, 0); err != nil {
		t.Errorf("a write of a whole block: %v", err)
	}
	if err := d.ReadAt(t.Context(), make([]byte, 65536), 65536); err != nil {
		t.Errorf("reading it back: %v", err)
	}
}

func Example() {
	d, _ := mem.Open(1 << 20)
	ctx := context.Background()
	scratch, _ := cow.New(disk.New(keep{d}, "golden"), cow.Config{})
	_ = scratch.WriteAt(ctx, []byte("scribble"), 0, 0)
	p := make([]byte, 8)
	_ = d.ReadAt(ctx, p, 0)
	fmt.Println(bytes.Equal(p, make([]byte, 8)))
	// Output: true
}
