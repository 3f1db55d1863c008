package readonly_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
	"github.com/vmdisk/vmdisk/driver/mem"
	"github.com/vmdisk/vmdisk/filter/readonly"
)

func content(p []byte, off int64) {
	for i := range p {
		p[i] = byte((off + int64(i)) * 7)
	}
}

func open(tb testing.TB) *disk.Disk {
	tb.Helper()
	d, err := mem.Open(1<<20 + 100)
	if err != nil {
		tb.Fatal(err)
	}
	p := make([]byte, d.Size())
	content(p, 0)
	if err := d.WriteAt(tb.Context(), p, 0, 0); err != nil {
		tb.Fatal(err)
	}
	return readonly.New(d)
}

func TestAllocations(t *testing.T) { disktest.Allocations(t, open(t)) }

func TestConformance(t *testing.T) {
	disktest.Conformance(t, open, disktest.Options{Content: content})
}

func TestNoResize(t *testing.T) {
	t.Parallel()
	d := open(t)
	if err := d.Resize(t.Context(), 2<<20); !errors.Is(err, errors.ErrUnsupported) || d.Size() != 1<<20+100 {
		t.Errorf("resize: %v, size %d", err, d.Size())
	}
	if i, ok := disk.As[disk.Inspector](d); !ok {
		t.Error("the facts about the storage cannot be reached")
	} else if attrs, err := i.Inspect(t.Context()); err != nil || len(attrs) == 0 {
		t.Errorf("inspect: %v, %v", attrs, err)
	}
	if _, ok := disk.As[disk.Resizer](d); ok {
		t.Error("management that changes the disk can be reached")
	}
}

func Example() {
	d, _ := mem.Open(1 << 20)
	err := readonly.New(d).WriteAt(context.Background(), []byte("x"), 0, 0)
	fmt.Println(errors.Is(err, disk.ErrReadOnly))
	// Output: true
}
