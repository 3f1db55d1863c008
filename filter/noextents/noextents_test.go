package noextents_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
	"github.com/vmdisk/vmdisk/driver/mem"
	"github.com/vmdisk/vmdisk/filter/noextents"
)

func open(tb testing.TB) *disk.Disk {
	tb.Helper()
	d, err := mem.Open(2<<20 + 100)
	if err != nil {
		tb.Fatal(err)
	}
	return noextents.New(d)
}

func TestAllocations(t *testing.T) {
	disktest.Allocations(t, open(t), "write-4k", "write-256k", "zero-256k")
}

func TestConformance(t *testing.T) { disktest.Conformance(t, open, disktest.Options{}) }

func TestNothingIsKnown(t *testing.T) {
	t.Parallel()
	d := open(t)
	defer d.Close()
	got, err := d.Extents(t.Context(), disk.Allocation, 0, d.Size(), nil)
	if err != nil || len(got) != 1 || got[0] != (disk.Extent{Len: d.Size()}) {
		t.Errorf("extents of an empty disk: %v, %v; want one of data", got, err)
	}
	if in := d.Info(); in.KnownZero || len(in.Maps) > 0 {
		t.Errorf("known zero %v, maps %v", in.KnownZero, in.Maps)
	}
}

func TestDurable(t *testing.T) {
	t.Parallel()
	disktest.Durable(t, func(_ testing.TB, d *disk.Disk) *disk.Disk { return noextents.New(d) }, disktest.Options{})
}

func Example() {
	d, _ := mem.Open(1 << 20)
	got, _ := noextents.New(d).Extents(context.Background(), disk.Allocation, 0, 1<<20, nil)
	fmt.Println(got[0].Flags&disk.ExtentZero != 0)
	// Output: false
}
