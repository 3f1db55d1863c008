package client_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"

	"github.com/vmdisk/vmdisk/driver/mem"
	"github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/client"
	"github.com/vmdisk/vmdisk/nbd/server"
)

// serve serves a RAM disk of 1 MiB on a unix socket.
func serve(ctx context.Context) (path string, stop func()) {
	d, err := mem.Open(1 << 20)
	if err != nil {
		log.Fatal(err)
	}
	s, err := server.New(server.Config{Exports: []server.Export{{Name: "disk", Disk: d}}})
	if err != nil {
		log.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = s.Serve(ctx, l) }()
	return l.Addr().String(), func() {
		_ = s.Shutdown(ctx)
		d.Close()
		os.RemoveAll(dir)
	}
}

func Example() {
	ctx := context.Background()
	path, stop := serve(ctx)
	defer stop()

	c, err := client.Dial(ctx, client.Config{Network: "unix", Addr: path, Export: "disk"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	e := c.Export()
	fmt.Println(e.Size, e.Mode, e.Contexts)

	if err := c.WriteAt(ctx, []byte("hello"), 4096, 0); err != nil {
		log.Fatal(err)
	}
	if err := c.Flush(ctx); err != nil {
		log.Fatal(err)
	}
	p := make([]byte, 5)
	if err := c.ReadAt(ctx, p, 4096); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", p)

	extents, err := c.BlockStatus(ctx, 0, 0, e.Size, make([]nbd.Status, 0, 16))
	if err != nil {
		log.Fatal(err)
	}
	for _, x := range extents {
		fmt.Println(x.Length, x.Flags&nbd.StatusZero != 0)
	}
	// Output:
	// 1048576 extended [base:allocation]
	// hello
	// 4096 true
	// 4096 false
	// 1040384 true
}

func ExampleList() {
	ctx := context.Background()
	path, stop := serve(ctx)
	defer stop()

	exports, err := client.List(ctx, client.Config{Network: "unix", Addr: path})
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range exports {
		fmt.Println(e.Name)
	}
	// Output: disk
}
