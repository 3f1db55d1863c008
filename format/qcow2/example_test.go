package qcow2_test

import (
	"context"
	"fmt"

	"github.com/vmdisk/vmdisk/driver/mem"
	"github.com/vmdisk/vmdisk/format/qcow2"
)

// An image lies in any disk; here in one that holds none.
func Example() {
	ctx := context.Background()
	child, _ := mem.Open(1 << 20)
	d, err := qcow2.Open(ctx, child, qcow2.Options{ReadOnly: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(d.Size())
	// Output: mem:1048576: this is no qcow2 image: it does not begin with its magic
}
