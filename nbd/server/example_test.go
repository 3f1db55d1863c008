package server_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"

	"github.com/vmdisk/vmdisk/driver/mem"
	"github.com/vmdisk/vmdisk/nbd/server"
)

// A RAM disk of 1 GiB under the name "scratch", on a unix socket.
func Example() {
	d, err := mem.Open(1 << 30)
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	srv, err := server.New(server.Config{
		Exports: []server.Export{{Name: "scratch", Description: "lost at the end", Disk: d}},
	})
	if err != nil {
		log.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "nbd.sock"))
	if err != nil {
		log.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), l) }()

	// Clients come: nbd+unix:///scratch?socket=.../nbd.sock. This one only looks
	// at the greeting.
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	greeting := make([]byte, 8)
	if _, err := io.ReadFull(client, greeting); err != nil {
		log.Fatal(err)
	}
	client.Close()

	if err := srv.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(greeting), <-served, srv.Counters("scratch").Snapshot().Read.Ops)
	// Output: NBDMAGIC <nil> 0
}
