package server_test

import (
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/server"
)

// Hundreds of clients whose requests are far more than may wait for a storage that hangs
// lose neither their connection nor a request, nor do they hold what others need.
func TestCrowdsWait(t *testing.T) {
	t.Parallel()
	const clients, requests = 200, 300
	for name, req := range map[string]nbd.Request{
		"flush": {Command: nbd.CmdFlush}, "zero": {Command: nbd.CmdWriteZeroes, Length: 512},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGated(t, 1<<20)
			r := serve(t, server.Config{Exports: []server.Export{
				{Name: "blocked", Disk: newHanging(g)}, {Name: "free", Disk: memDisk(t, 1<<20)},
			}})
			var b []byte
			for i := range requests {
				req.Cookie = uint64(i)
				b = req.Append(b, nbd.Simple)
			}
			var peers []*peer
			for range clients {
				p := r.connect(t, nbd.Simple, "blocked")
				if _, err := p.conn.Write(b); err != nil {
					t.Fatal(err)
				}
				peers = append(peers, p)
			}
			g.awaitEntered(t, clients)
			time.Sleep(200 * time.Millisecond) // some time: those that held a workspace were cut after it
			for range 3 {
				r.connect(t, nbd.Structured, "free").alive()
			}
			g.open(t)
			for _, p := range peers {
				for range requests {
					p.header()
				}
			}
			if n := g.flushes.Load(); req.Command == nbd.CmdFlush && n > clients*requests/4 {
				t.Errorf("%d flushes for %d requests: those that waited did not share", n, clients*requests)
			}
		})
	}
}
