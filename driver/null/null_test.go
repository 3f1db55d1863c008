package null_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
	"github.com/vmdisk/vmdisk/driver/null"
)

func open(size int64) disktest.Opener {
	return func(tb testing.TB) *disk.Disk {
		d, err := null.Open(size)
		if err != nil {
			tb.Fatal(err)
		}
		return d
	}
}

func TestAllocations(t *testing.T) { disktest.Allocations(t, open(8<<20)(t)) }

func TestConformance(t *testing.T) {
	disktest.Conformance(t, open(1<<63-1), disktest.Options{Discards: true})
}

// The largest disk there can be, under a layer with blocks: no sum overflows.
func TestConformanceLargest(t *testing.T) {
	for _, unit := range []int64{512, 65536} {
		disktest.Conformance(t, func(tb testing.TB) *disk.Disk {
			d, _ := disktest.Strict(open(1<<63-1)(tb), func(in *disk.Info) { in.Min, in.TrimAlign = unit, 1<<20 })
			return d
		}, disktest.Options{Discards: true, Ops: 100})
	}
}

func TestNegativeSize(t *testing.T) {
	t.Parallel()
	if _, err := null.Open(-1); err == nil {
		t.Fatal("a negative size was accepted")
	}
}

func BenchmarkDriver(b *testing.B) { disktest.Benchmark(b, open(1<<40)) }

func Example() {
	d, _ := null.Open(1 << 40)
	ctx, p := context.Background(), []byte("gone")
	fmt.Println(d.WriteAt(ctx, p, 0, 0), d.ReadAt(ctx, p, 0), string(p) == "\x00\x00\x00\x00")
	// Output: <nil> <nil> true
}
