package nbd_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/mem"
	"github.com/vmdisk/vmdisk/driver/nbd"
	"github.com/vmdisk/vmdisk/nbd/client"
	"github.com/vmdisk/vmdisk/nbd/server"
)

func ExampleOpen() {
	ctx := context.Background()
	ram, err := mem.Open(1 << 20)
	if err != nil {
		log.Fatal(err)
	}
	defer ram.Close()
	s, err := server.New(server.Config{Exports: []server.Export{{Name: "disk", Disk: ram}}})
	if err != nil {
		log.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = s.Serve(ctx, l) }()
	defer func() { _ = s.Shutdown(ctx) }()

	d, err := nbd.Open(ctx, nbd.Config{Client: client.Config{Network: "unix", Addr: l.Addr().String(), Export: "disk"}})
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	// The disk takes what the protocol would not: any offset, any length.
	if err := d.WriteAt(ctx, []byte("hello"), 1000, 0); err != nil {
		log.Fatal(err)
	}
	if err := d.Zero(ctx, 0, 1002, disk.MayTrim); err != nil {
		log.Fatal(err)
	}
	p := make([]byte, 5)
	if err := d.ReadAt(ctx, p, 1000); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%q\n", p)
	fmt.Println(d.Info().Zero, d.Info().FastZero, d.Info().Maps)
	// Output:
	// "\x00\x00llo"
	// native native [allocation]
}
