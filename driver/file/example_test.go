package file_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/file"
)

// A new sparse disk of 1 GiB gets some data; its map shows where.
func Example() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx, path := context.Background(), filepath.Join(dir, "vm.raw")

	if err := file.Create(ctx, path, 1<<30, file.PreallocOff); err != nil {
		log.Fatal(err)
	}
	d, err := file.OpenDisk(ctx, path, file.Options{Cache: file.Writeback})
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	fmt.Println("reads as zeros:", d.Info().KnownZero)

	if err := d.WriteAt(ctx, make([]byte, 1<<20), 1<<29, disk.FUA); err != nil {
		log.Fatal(err)
	}
	extents, err := d.Extents(ctx, disk.Allocation, 0, d.Size(), make([]disk.Extent, 0, 8))
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range extents {
		fmt.Println(e.Len, e.Flags&disk.ExtentZero != 0)
	}
	// Output:
	// reads as zeros: true
	// 536870912 true
	// 1048576 false
	// 535822336 true
}

// Every write that must be on stable storage, without the page cache: a disk for
// a database.
func ExampleOpen() {
	_, err := file.Open(context.Background(), "/dev/null", file.Options{Cache: file.Directsync})
	fmt.Println(err)
	// Output:
	// open /dev/null: neither a regular file nor a block device
}
