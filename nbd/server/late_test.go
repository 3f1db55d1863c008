package server_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/server"
)

// tardy keeps writes of ones waiting, whatever becomes of their clients, as a kernel
// does that has a write under way.
type tardy struct {
	*below
	inline  bool
	entered chan struct{}
	gate    chan struct{}
	landed  chan struct{}
}

func (s *tardy) WriteAt(ctx context.Context, p []byte, off int64, f disk.Flags) error {
	if p[0] != 1 {
		return s.d.WriteAt(ctx, p, off, f)
	}
	s.entered <- struct{}{}
	<-s.gate
	defer func() { s.landed <- struct{}{} }()
	return s.d.WriteAt(context.WithoutCancel(ctx), p, off, f)
}

func (s *tardy) TryRead([]byte, int64) error { return disk.ErrWouldBlock }

func (s *tardy) TryWrite(p []byte, off int64, f disk.Flags) error {
	if !s.inline {
		return disk.ErrWouldBlock
	}
	return s.WriteAt(context.Background(), p, off, f)
}

// A write of a connection whose client left does not land after what the client wrote
// by its next connection, which was acknowledged.
func TestLateWritesOfLeftClients(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ tls, inline, unread bool }{
		"by a worker":        {},
		"inline":             {inline: true},
		"inline, and unread": {inline: true, unread: true},
		"TLS":                {tls: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &tardy{below: &below{d: memDisk(t, 1<<20)}, inline: c.inline,
				entered: make(chan struct{}, 10), gate: make(chan struct{}), landed: make(chan struct{}, 10)}
			srv, cli := certificate(t)
			r := serve(t, server.Config{Exports: []server.Export{{Name: "d", Disk: disk.New(s, "tardy")}}, TLS: srv, TLSMode: server.TLSOn})
			connect := func() *peer {
				p := r.dial(t).greet(nbd.FlagFixedNewstyle)
				if c.tls {
					p.secure(cli)
				}
				p.haggle(nbd.Simple, "d")
				return p
			}
			old, write := connect(), nbd.Request{Command: nbd.CmdWrite, Offset: 8192, Length: 4096}
			ones, twos := bytes.Repeat([]byte{1}, 4096), bytes.Repeat([]byte{2}, 4096)
			old.send(write, ones)
			<-s.entered
			if c.unread { // it may be served or not, but not later
				old.send(write, ones)
			}
			old.conn.Close()
			next := connect()
			acked := make(chan nbd.Errno, 1)
			go func() { acked <- next.do(write, twos).errno }()
			select {
			case <-acked:
				t.Error("the new connection's write was acknowledged while one of the old was under way")
			case <-time.After(100 * time.Millisecond):
			}
			close(s.gate)
			<-s.landed
			if !t.Failed() && <-acked != nbd.OK {
				t.Error("the write failed")
			}
			got := make([]byte, 4096)
			if err := s.d.ReadAt(t.Context(), got, 8192); err != nil || !bytes.Equal(got, twos) {
				t.Error("what was acknowledged is overwritten", err)
			}
		})
	}
}
