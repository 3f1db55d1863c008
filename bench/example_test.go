package bench_test

import (
	"context"
	"fmt"

	"github.com/vmdisk/vmdisk/bench"
	"github.com/vmdisk/vmdisk/bench/engine"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/mem"
)

// A job from fio's command line, run on a RAM disk.
func ExampleRun() {
	d, err := mem.Open(1 << 20)
	if err != nil {
		fmt.Println(err)
		return
	}
	r, err := bench.Run(context.Background(), &bench.Request{
		Args:   []string{"--name=w", "--rw=randwrite", "--bs=4k", "--verify=crc32c"},
		Target: "mem:1M",
		Open:   func(context.Context, engine.OpenRequest) (*disk.Disk, error) { return d, nil },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	w := r.Jobs[0]
	fmt.Println(w.Dirs[1].IOs, "writes,", w.Dirs[0].IOs, "blocks verified,", r.Failed())
	// Output: 256 writes, 256 blocks verified, <nil>
}
