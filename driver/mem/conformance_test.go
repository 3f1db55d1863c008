package mem_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
	"github.com/vmdisk/vmdisk/driver/mem"
)

func open(size int64) disktest.Opener {
	return func(tb testing.TB) *disk.Disk {
		d, err := mem.Open(size)
		if err != nil {
			tb.Fatal(err)
		}
		return d
	}
}

func TestConformance(t *testing.T) {
	disktest.Conformance(t, open(3<<20+12345), disktest.Options{})
}

func TestConformanceLarge(t *testing.T) {
	disktest.Conformance(t, open(8<<40), disktest.Options{})
}

func TestAllocations(t *testing.T) {
	disktest.Allocations(t, open(8<<20)(t), "write-4k", "write-256k", "zero-256k")
}

func BenchmarkDriver(b *testing.B) { disktest.Benchmark(b, open(1<<30)) }

func Example() {
	d, _ := mem.Open(8 << 40) // 8 TiB that take no memory
	ctx := context.Background()
	_ = d.WriteAt(ctx, []byte("far away"), 7<<40, 0)
	drv, _ := disk.As[*mem.Driver](d)
	fmt.Println(drv.Allocated())
	_ = d.Zero(ctx, 0, d.Size(), disk.MayTrim)
	fmt.Println(drv.Allocated())
	// Output:
	// 4096
	// 0
}
