package stats_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
	"github.com/vmdisk/vmdisk/driver/mem"
	"github.com/vmdisk/vmdisk/filter/stats"
)

func open(tb testing.TB, cfg stats.Config) (*disk.Disk, *stats.Filter) {
	tb.Helper()
	d, err := mem.Open(2<<20 + 100)
	if err != nil {
		tb.Fatal(err)
	}
	d, err = stats.New(d, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	f, ok := disk.As[*stats.Filter](d)
	if !ok {
		tb.Fatal("the filter cannot be reached")
	}
	return d, f
}

func TestAllocations(t *testing.T) {
	d, _ := open(t, stats.Config{})
	disktest.Allocations(t, d, "write-4k", "write-256k", "zero-256k")
}

func TestConformance(t *testing.T) {
	disktest.Conformance(t, func(tb testing.TB) *disk.Disk {
		d, _ := open(tb, stats.Config{File: filepath.Join(tb.TempDir(), "stats")})
		return d
	}, disktest.Options{})
}

// everything does one operation of each kind.
func everything(t *testing.T, d *disk.Disk) {
	t.Helper()
	ctx, p := t.Context(), make([]byte, 4096)
	_, err := d.Extents(ctx, disk.Allocation, 0, 8192, nil)
	for i, err := range []error{
		err, d.ReadAt(ctx, p, 0), d.Readv(ctx, [][]byte{p, p}, 0), d.TryRead(p[:512], 0),
		d.WriteAt(ctx, p, 0, disk.FUA), d.Writev(ctx, [][]byte{p, p}, 0, 0), d.TryWrite(p, 0, 0),
		d.Zero(ctx, 0, 65536, 0), d.Trim(ctx, 0, 1<<20, 0), d.Flush(ctx), d.Cache(ctx, 0, 4096),
	} {
		if err != nil {
			t.Errorf("operation %d: %v", i, err)
		}
	}
}

func TestCounts(t *testing.T) {
	t.Parallel()
	d, f := open(t, stats.Config{})
	defer d.Close()
	everything(t, d)
	s := f.Snapshot()
	for name, c := range map[string]struct {
		op         stats.Op
		ops, bytes int64
	}{
		"read": {s.Read, 3, 4096 + 8192 + 512}, "write": {s.Write, 3, 4 * 4096}, "zero": {s.Zero, 1, 65536},
		"trim": {s.Trim, 1, 1 << 20}, "flush": {s.Flush, 1, 0}, "extents": {s.Extents, 1, 8192}, "cache": {s.Cache, 1, 4096},
	} {
		if c.op.Ops != c.ops || c.op.Bytes != c.bytes || c.op.Failed != 0 {
			t.Errorf("%s: %+v, want %d operations of %d bytes", name, c.op, c.ops, c.bytes)
		}
		if c.op.P50 > c.op.P99 || c.op.P99 > c.op.Max || c.op.Max > c.op.Total || c.op.Max == 0 {
			t.Errorf("%s: times %+v", name, c.op)
		}
	}
	if got := fmt.Sprint(s.Write.Sizes); got != "[{4096 2} {8192 1}]" {
		t.Errorf("sizes of writes: %s", got)
	}
}

// failing fails every write.
type failing struct{ disk.Driver }

func (failing) WriteAt(context.Context, []byte, int64, disk.Flags) error { return os.ErrPermission }

func TestFailures(t *testing.T) {
	t.Parallel()
	child, _ := mem.Open(1 << 20)
	d, err := stats.New(disk.New(failing{child}, "failing"), stats.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if d.WriteAt(t.Context(), make([]byte, 10), 0, 0) == nil {
		t.Error("a failed write succeeded")
	}
	f, _ := disk.As[*stats.Filter](d)
	if w := f.Snapshot().Write; w.Ops != 1 || w.Failed != 1 || w.Bytes != 0 {
		t.Errorf("%+v", w)
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text, js := filepath.Join(dir, "stats.txt"), filepath.Join(dir, "stats.json")
	for _, cfg := range []stats.Config{{File: text}, {File: text, Append: true}, {File: js}, {File: js}} {
		d, _ := open(t, cfg)
		everything(t, d)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(text)
	if err != nil || strings.Count(string(got), "\nwrite: 3 ops, 0 failed, 16384 bytes") != 2 {
		t.Errorf("text: %v\n%s", err, got)
	}
	var s stats.Snapshot
	got, err = os.ReadFile(js)
	if err == nil {
		err = json.Unmarshal(got, &s)
	}
	if err != nil || s.Zero.Bytes != 65536 {
		t.Errorf("JSON: %v\n%s", err, got)
	}
}

func TestBadFile(t *testing.T) {
	t.Parallel()
	if _, err := stats.New(nil, stats.Config{File: filepath.Join(t.TempDir(), "no", "such")}); err == nil {
		t.Error("a file that cannot be made was accepted")
	}
}

func TestDurable(t *testing.T) {
	t.Parallel()
	disktest.Durable(t, func(tb testing.TB, d *disk.Disk) *disk.Disk {
		d, err := stats.New(d, stats.Config{})
		if err != nil {
			tb.Fatal(err)
		}
		return d
	}, disktest.Options{})
}

func Example() {
	d, _ := mem.Open(1 << 20)
	d, _ = stats.New(d, stats.Config{})
	_ = d.WriteAt(context.Background(), []byte("hello"), 0, 0)
	f, _ := disk.As[*stats.Filter](d)
	fmt.Println(f.Snapshot().Write.Ops, f.Snapshot().Write.Bytes)
	// Output: 1 5
}
