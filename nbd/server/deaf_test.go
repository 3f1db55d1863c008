package server_test

import (
	"context"
	"errors"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/server"
)

// memoryInUse is the memory of the process that is in use.
func memoryInUse() uint64 {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// full has no room for zeroes.
type full struct{ *below }

func (full) Zero(context.Context, int64, int64, disk.Flags) error { return syscall.ENOSPC }

// A client that sends and never reads is heard no more as soon as its replies fill
// its socket and its share of memory. Not parallel: it measures the process.
func TestDeafClientsTakeLittleMemory(t *testing.T) {
	const most = 32 << 20
	clients := 30
	if raceEnabled { // it makes them so slow that their requests outlast the server's end
		clients = 8
	}
	for name, req := range map[string]nbd.Request{
		"flush":        {Command: nbd.CmdFlush},
		"zero":         {Command: nbd.CmdWriteZeroes, Length: 4096},
		"errors":       {Command: nbd.CmdWriteZeroes, Offset: 1 << 19, Length: 4096},
		"refused":      {Command: nbd.CmdTrim, Offset: 1 << 40, Length: 4096},
		"block status": {Command: nbd.CmdBlockStatus, Length: 1 << 20},
		"read":         {Command: nbd.CmdRead, Length: 4096},
	} {
		t.Run(name, func(t *testing.T) {
			d := memDisk(t, 1<<20)
			if name == "errors" {
				d = disk.New(full{&below{d: d}}, "full")
			}
			r := serve(t, server.Config{Exports: []server.Export{{Name: "d", Disk: d}}})
			before := memoryInUse()
			var wg sync.WaitGroup
			for range clients {
				p := r.connect(t, nbd.Structured, "d", "base:allocation")
				wg.Go(func() { p.pour(req) })
			}
			wg.Wait()
			if now := memoryInUse(); now > before+most {
				t.Errorf("%d MiB for %d clients", (now-before)>>20, clients)
			}
			r.connect(t, nbd.Simple, "d").alive()
		})
	}
}

// pour sends a request again and again until the server takes no more, or has taken
// far more than it should.
func (p *peer) pour(req nbd.Request) {
	var b []byte
	for range 1000 {
		b = req.Append(b, p.mode)
	}
	for range 300 {
		_ = p.conn.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := p.conn.Write(b); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				p.t.Log(err)
			}
			return
		}
	}
	p.t.Error("the server has taken 300,000 requests whose replies nobody reads")
}
