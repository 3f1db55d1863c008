package main

import (
	"context"
	"net"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/vmdisk/vmdisk/driver/mem"
	"github.com/vmdisk/vmdisk/nbd/server"
)

// TestWorkEndsAtOnce: it is no error that the command of --run ends before all
// listeners are being served.
func TestWorkEndsAtOnce(t *testing.T) {
	t.Parallel()
	d, err := mem.Open(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	dir := t.TempDir()
	for round := range 100 {
		srv, err := server.New(server.Config{Exports: []server.Export{{Disk: d}}})
		if err != nil {
			t.Fatal(err)
		}
		var listeners []net.Listener
		for i := range 4 {
			l, err := net.Listen("unix", filepath.Join(dir, strconv.Itoa(round*4+i)))
			if err != nil {
				t.Fatal(err)
			}
			listeners = append(listeners, l)
		}
		f := &serveFlags{}
		if err := f.until(t.Context(), []frontEnd{&nbdFrontEnd{srv: srv, listeners: listeners}}, func(context.Context) error { return nil }); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
}
