package server_test

import (
	"context"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/server"
)

// hanging is storage whose zeroing and flushing wait for the gate.
type hanging struct{ *gated }

func (h hanging) Flush(ctx context.Context) error {
	h.flushes.Add(1)
	return h.pass(ctx)
}

func newHanging(g *gated) *disk.Disk { return disk.New(hanging{g}, "hanging") }

func (h hanging) Zero(ctx context.Context, _, _ int64, _ disk.Flags) error { return h.pass(ctx) }

// Requests of many connections that wait for storage which hangs take a bounded number of
// threads: at 10,000 the Go runtime ends the program, with all that others are served. 200
// clients with 64 zero requests each did that on a file system that was frozen.
func TestThreadsAreBounded(t *testing.T) {
	t.Parallel()
	const clients, requests, all = 40, 64, 1024
	g := newGated(t, 1<<20)
	r := serve(t, server.Config{Exports: []server.Export{
		{Name: "blocked", Disk: newHanging(g)}, {Name: "free", Disk: memDisk(t, 1<<20)},
	}})
	var peers []*peer
	for range clients {
		p := r.connect(t, nbd.Simple, "blocked")
		peers = append(peers, p)
		for i := range requests {
			p.send(nbd.Request{Command: nbd.CmdWriteZeroes, Cookie: uint64(i), Length: 512}, nil)
		}
	}
	g.awaitEntered(t, all)
	more := 0
	for quiet := false; !quiet; {
		select {
		case <-g.entered:
			more++
		case <-time.After(300 * time.Millisecond):
			quiet = true
		}
	}
	if more > clients {
		t.Errorf("%d requests wait for the storage at one time, want %d and one for each of %d connections", all+more, all, clients)
	}
	// Whoever has nothing under way gets in, also where it takes a worker.
	r.connect(t, nbd.Structured, "free").alive()
	late := r.connect(t, nbd.Simple, "blocked")
	late.send(nbd.Request{Command: nbd.CmdWriteZeroes, Cookie: 1, Length: 512}, nil)
	g.awaitEntered(t, 1)
	g.open(t)
	for _, p := range peers {
		for range requests {
			p.header()
		}
	}
	late.header()
}

// open lets everything through from now on.
func (g *gated) open(t *testing.T) {
	close(g.gate)
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	go func() {
		for {
			select {
			case <-g.entered:
			case <-done:
				return
			}
		}
	}()
}

// However many connections a server allows, their requests take a bounded number of
// threads, and those that have to wait are served in the end.
func TestThreadsOfManyConnections(t *testing.T) {
	t.Parallel()
	const clients, first = 20, 4
	g := newGated(t, 1<<20)
	r := serve(t, server.Config{Exports: []server.Export{{Name: "blocked", Disk: newHanging(g)}}, MaxConnections: 20000})
	r.BoundFirst(first)
	var peers []*peer
	for range clients {
		p := r.connect(t, nbd.Simple, "blocked")
		p.send(nbd.Request{Command: nbd.CmdWriteZeroes, Length: 512}, nil)
		peers = append(peers, p)
	}
	g.awaitEntered(t, first)
	select {
	case <-g.entered:
		t.Errorf("more than %d requests wait for the storage", first)
	case <-time.After(300 * time.Millisecond):
	}
	g.open(t)
	for _, p := range peers {
		p.header()
	}
}
