package server_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/server"
)

// kept is a log that can be read while it is written.
type kept struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (k *kept) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.b.Write(p)
}

func (k *kept) text() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.b.String()
}

// broken fails every write.
type broken struct{ *below }

func (broken) WriteAt(context.Context, []byte, int64, disk.Flags) error {
	return errors.New("the medium is gone")
}

// Failing requests are logged some times for a connection, and some times in all; the
// rest is counted.
func TestFailuresFillNoLog(t *testing.T) {
	t.Parallel()
	var log kept
	d := disk.New(broken{&below{d: memDisk(t, 1<<20)}}, "broken")
	r := serve(t, server.Config{Exports: []server.Export{{Name: "d", Disk: d}}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	const clients, requests = 30, 100
	for range clients {
		p := r.connect(t, nbd.Simple, "d")
		for range requests {
			if got := p.do(nbd.Request{Command: nbd.CmdWrite, Length: 512}, make([]byte, 512)); got.errno != nbd.EIO {
				t.Fatal(got.errno)
			}
		}
		p.conn.Close()
	}
	lines := int64(strings.Count(log.text(), "the medium is gone"))
	if lines < 5 || lines > 100 {
		t.Errorf("%d lines for %d failures", lines, clients*requests)
	}
	if dropped := r.Stats().LogDropped; lines+dropped != clients*requests {
		t.Errorf("%d lines, %d counted as dropped, of %d", lines, dropped, clients*requests)
	}
}

// A client that leaves with requests in flight is nothing to warn of.
func TestLeavingIsNoFailure(t *testing.T) {
	t.Parallel()
	var log kept
	g := newGated(t, 1<<20)
	r := serve(t, server.Config{Exports: []server.Export{{Name: "d", Disk: disk.New(g, "gated")}}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	p := r.connect(t, nbd.Simple, "d")
	for i := range 64 {
		p.send(nbd.Request{Command: nbd.CmdRead, Cookie: uint64(i), Length: 512}, nil)
	}
	g.awaitEntered(t, 64)
	p.conn.Close()
	for end := time.Now().Add(patience); r.Stats().Sessions > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the session does not end")
		}
	}
	if text := log.text(); strings.Contains(text, "level=WARN") {
		t.Errorf("the log of an ordinary end:\n%s", text)
	}
}
