package disk_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/mem"
)

// A Disk takes any offset and length, and says clearly what it refuses.
func Example() {
	ctx := context.Background()
	d, err := mem.Open(1 << 30)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer d.Close()

	err = d.WriteAt(ctx, []byte("hello"), 12345, disk.FUA)
	fmt.Println("write:", err)
	err = d.Zero(ctx, 12346, 3, disk.MayTrim)
	fmt.Println("zero:", err)
	p := make([]byte, 5)
	err = d.ReadAt(ctx, p, 12345)
	fmt.Printf("read: %q %v\n", p, err)
	err = d.ReadAt(ctx, p, 1<<30)
	fmt.Println("past the end:", errors.Is(err, disk.ErrRange))
	// Output:
	// write: <nil>
	// zero: <nil>
	// read: "h\x00\x00\x00o" <nil>
	// past the end: true
}

// Extents come in batches; the caller goes on from the end of the last one.
func ExampleDisk_Extents() {
	ctx := context.Background()
	d, _ := mem.Open(1 << 40)
	defer d.Close()
	_ = d.WriteAt(ctx, make([]byte, 4096), 1<<30, 0)

	batch := make([]disk.Extent, 0, 2)
	for off := int64(0); off < d.Size(); {
		got, err := d.Extents(ctx, disk.Allocation, off, d.Size()-off, batch)
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, e := range got {
			fmt.Println(off, e.Len, e.Flags&disk.ExtentHole != 0)
			off += e.Len
		}
	}
	// Output:
	// 0 1073741824 true
	// 1073741824 4096 false
	// 1073745920 1098437881856 true
}

// readFirst is a driver as small as one can be: it holds nothing and is read-only.
type readFirst struct{ disk.Driver }

func (readFirst) Info() disk.Info { return disk.Info{Size: 4096, Min: 512, ReadOnly: true} }

func (readFirst) ReadAt(_ context.Context, p []byte, off int64) error {
	for i := range p {
		p[i] = 'a' + byte(off/512)
	}
	return nil
}

// A Driver sees only what its Info allows; New adds the rest.
func ExampleNew() {
	d := disk.New(readFirst{}, "letters")
	p := make([]byte, 4)
	fmt.Println(d.ReadAt(context.Background(), p, 510), string(p))
	fmt.Println(d.WriteAt(context.Background(), p, 0, 0))
	// Output:
	// <nil> aabb
	// letters: write 4 bytes at offset 0: disk is read-only
}
