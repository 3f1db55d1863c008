package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
	"github.com/vmdisk/vmdisk/driver/mem"
	"github.com/vmdisk/vmdisk/driver/nbd"
	"github.com/vmdisk/vmdisk/nbd/client"
	"github.com/vmdisk/vmdisk/nbd/server"
)

// ownServer serves d on a unix socket until the test ends.
func ownServer(tb testing.TB, d *disk.Disk) client.Config {
	tb.Helper()
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		tb.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		tb.Fatal(err)
	}
	s, err := server.New(server.Config{Exports: []server.Export{{Name: "d", Disk: d}}})
	if err != nil {
		tb.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(context.Background(), l) }()
	tb.Cleanup(func() {
		if err := errors.Join(s.Shutdown(context.Background()), <-ended, d.Close()); err != nil {
			tb.Error(err)
		}
		os.RemoveAll(dir)
	})
	return client.Config{Network: "unix", Addr: l.Addr().String(), Export: "d"}
}

func openOwn(size int64, edit func(*nbd.Config)) disktest.Opener {
	return func(tb testing.TB) *disk.Disk {
		m, err := mem.Open(size)
		if err != nil {
			tb.Fatal(err)
		}
		cfg := nbd.Config{Client: ownServer(tb, m)}
		if edit != nil {
			edit(&cfg)
		}
		d, err := nbd.Open(context.Background(), cfg)
		if err != nil {
			tb.Fatal(err)
		}
		return d
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*nbd.Config){
		"extended":       nil,
		"structured":     func(c *nbd.Config) { c.Client.Headers = client.StructuredReplies },
		"simple":         func(c *nbd.Config) { c.Client.Headers = client.SimpleReplies },
		"one connection": func(c *nbd.Config) { c.Client.Connections = 1 },
		"no replay":      func(c *nbd.Config) { c.NoReplay = true },
		"small log":      func(c *nbd.Config) { c.ReplayLimit = 100 << 10 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disktest.Conformance(t, openOwn(3<<20+12345, edit), disktest.Options{Ops: 150})
		})
	}
}

func TestAllocations(t *testing.T) {
	if raced {
		t.Skip("the race detector allocates")
	}
	disktest.Allocations(t, openPeer("nbdkit", "-f", "-U", "SOCK", "memory", "8M")(t))
}

func BenchmarkDriver(b *testing.B) { disktest.Benchmark(b, openOwn(1<<30, nil)) }

func TestWriteFromFile(t *testing.T) {
	t.Parallel()
	content := make([]byte, 1<<20)
	for i := range content {
		content[i] = byte(i * 7 / 5)
	}
	path := filepath.Join(t.TempDir(), "f")
	must(t, os.WriteFile(path, content, 0o600))
	file, err := os.Open(path)
	must(t, err)
	defer file.Close()
	src := disk.FileRange{FD: int(file.Fd()), Off: 100, Len: 900 << 10}
	d := openOwn(4<<20, func(c *nbd.Config) { c.NoReplay = true })(t)
	defer d.Close()
	must(t, d.WriteFromFile(bg, 8192, src, disk.FUA))
	got := make([]byte, src.Len)
	must(t, d.ReadAt(bg, got, 8192))
	if !bytes.Equal(got, content[100:][:len(got)]) {
		t.Error("other bytes arrived")
	}
	// What cannot be kept for a reconnect is not sent this way.
	kept := openOwn(4<<20, nil)(t)
	defer kept.Close()
	if err := kept.WriteFromFile(bg, 0, src, 0); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}
