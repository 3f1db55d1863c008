package nbd_test

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/nbd"
	wire "github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/client"
)

// deafServer lets everybody in and answers no request.
func deafServer(t *testing.T, size uint64) client.Config {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	must(t, err)
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() { defer c.Close(); letIn(c, size); _, _ = io.Copy(io.Discard, c) })
		}
	})
	t.Cleanup(func() { l.Close(); group.Wait() })
	return client.Config{Network: "unix", Addr: l.Addr().String()}
}

// letIn does a handshake of simple replies.
func letIn(c net.Conn, size uint64) {
	read := func(n uint32) []byte {
		b := make([]byte, n)
		_, _ = io.ReadFull(c, b)
		return b
	}
	_, _ = c.Write(wire.AppendGreeting(nil, wire.FlagFixedNewstyle|wire.FlagNoZeroes))
	read(wire.ClientFlagsSize)
	for {
		h, err := wire.DecodeOptionHeader(read(wire.OptionHeaderSize))
		if err != nil {
			return
		}
		read(h.Len)
		if h.Option != wire.OptGo {
			_, _ = c.Write(wire.AppendOptionReply(nil, h.Option, wire.RepErrUnsupported, nil))
			continue
		}
		info := wire.Info{Type: wire.InfoExport, Size: size, Flags: wire.FlagHasFlags | wire.FlagSendFlush}.Append(nil)
		_, _ = c.Write(wire.AppendOptionReply(wire.AppendOptionReply(nil, h.Option, wire.RepInfo, info), h.Option, wire.RepAck, nil))
		return
	}
}

// A server that lets us in and answers nothing is given up after two time-outs, not
// reconnected to for as long as one that may come back.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	cfg := nbd.Config{Client: deafServer(t, 1<<20), Reconnect: nbd.Reconnect{Limit: time.Hour, MaxDelay: time.Millisecond}}
	cfg.Client.Timeout = 100 * time.Millisecond
	d, err := nbd.Open(bg, cfg)
	must(t, err)
	done := make(chan error, 1)
	go func() { done <- d.ReadAt(bg, make([]byte, 512), 0) }()
	w, ok := disk.As[disk.Waiter](d)
	if !ok {
		t.Fatal("the disk cannot tell whom it waits for")
	}
	waited := false
	for end := time.After(30 * time.Second); ; {
		select {
		case err := <-done:
			if !errors.Is(err, syscall.ETIMEDOUT) {
				t.Error(err)
			}
			if !waited {
				t.Error("the disk never told that it waits")
			}
			must(t, d.Close())
			return
		case <-end:
			t.Fatal("a silent server was not given up")
		case <-time.After(time.Millisecond):
			waited = waited || w.Waiting() > 0
		}
	}
}
