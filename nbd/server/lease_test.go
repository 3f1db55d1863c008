package server_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/server"
)

// lessor resolves the name "leased" and counts what is given back.
type lessor struct {
	t        *testing.T
	until    context.Context
	given    atomic.Int32
	released atomic.Int32
}

func (l *lessor) resolve(_ context.Context, name string) (server.Lease, error) {
	if name != "leased" && name != "other" {
		return server.Lease{}, errors.New("no such ticket")
	}
	l.given.Add(1)
	return server.Lease{
		Export: server.Export{Disk: memDisk(l.t, 1<<20)}, Until: l.until, Release: func() { l.released.Add(1) },
	}, nil
}

// settled waits until n leases were given and all of them are back.
func (l *lessor) settled(n int32) {
	l.t.Helper()
	for limit := time.Now().Add(patience); l.given.Load() != n || l.released.Load() != n; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			l.t.Fatalf("%d leases given, %d released, want %d", l.given.Load(), l.released.Load(), n)
		}
	}
}

// A leased export belongs to one connection, is never listed, and is given back
// once however the connection ends.
func TestLease(t *testing.T) {
	t.Parallel()
	l := &lessor{t: t}
	r := serve(t, server.Config{Exports: []server.Export{{Name: "d", Disk: memDisk(t, 4096)}}, Resolve: l.resolve})
	p := r.dial(t).greet(nbd.FlagFixedNewstyle)
	if got := p.option(nbd.OptList, nil); len(got) != 2 {
		t.Errorf("LIST has %d replies, want one export and the end", len(got))
	}
	p.haggle(nbd.Structured, "leased", nbd.ContextAllocation)
	p.alive()
	if got := p.do(nbd.Request{Command: nbd.CmdBlockStatus, Length: 4096}, nil); got.errno != nbd.OK {
		t.Errorf("block status of a leased export: %v", got.errno)
	}
	if l.given.Load() != 1 || l.released.Load() != 0 {
		t.Errorf("%d leases given, %d released while one is used", l.given.Load(), l.released.Load())
	}
	p.conn.Close()
	l.settled(1)

	p = r.dial(t).greet(nbd.FlagFixedNewstyle)
	p.want(nbd.OptInfo, nbd.AppendGo(nil, "missing", nil), nbd.RepErrUnknown)
	p.want(nbd.OptInfo, nbd.AppendGo(nil, "other", nil), nbd.RepAck)
	p.haggle(nbd.Simple, "d")
	p.alive()
	l.settled(2) // given back although the connection goes on
}

// The end of a lease cuts its connection, and no other.
func TestLeaseEnds(t *testing.T) {
	t.Parallel()
	until, end := context.WithCancel(t.Context())
	l := &lessor{t: t, until: until}
	r := serve(t, server.Config{Exports: []server.Export{{Name: "d", Disk: memDisk(t, 4096)}}, Resolve: l.resolve})
	leased, fixed := r.connect(t, nbd.Simple, "leased"), r.connect(t, nbd.Simple, "d")
	leased.alive()
	end()
	leased.mustClose()
	l.settled(1)
	fixed.alive()
}
