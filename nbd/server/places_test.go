package server_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/server"
)

// place connects where there may be no place: the session, or the server's reason.
func (r *running) place(t *testing.T, secure func(*peer)) (*peer, string) {
	t.Helper()
	p := r.dial(t).greet(nbd.FlagFixedNewstyle)
	if secure != nil {
		secure(p)
	}
	all := p.option(nbd.OptGo, nbd.AppendGo(nil, "d", nil))
	if last := all[len(all)-1]; last.typ != nbd.RepAck {
		if last.typ != nbd.RepErrPolicy {
			t.Errorf("refused by %v", last.typ)
		}
		return nil, last.data
	}
	return p, ""
}

// Where every place is taken by idle sessions, they make room for new ones: those first
// that never made a request, then the one that has been idle for longest.
func TestIdleSessionsYield(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"plain", "tls"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			srv, cli := certificate(t)
			r := serve(t, server.Config{
				Exports: []server.Export{{Name: "d", Disk: memDisk(t, 1<<20)}}, TLS: srv, TLSMode: server.TLSOn,
				MaxConnections: 3, IdleYield: time.Nanosecond, Log: testLog(t),
			})
			var secure func(*peer)
			if kind == "tls" {
				secure = func(p *peer) { p.secure(cli) }
			}
			connect := func() *peer {
				p, why := r.place(t, secure)
				if p == nil {
					t.Fatal(why)
				}
				return p
			}
			old, silent, young := connect(), connect(), connect()
			old.alive()
			young.alive()
			idle(t, r)
			fourth := connect()
			silent.mustClose()
			old.alive()
			young.alive()
			fourth.alive()
			idle(t, r)
			fifth := connect()
			old.mustClose()
			young.alive()
			fourth.alive()
			fifth.alive()
		})
	}
}

// idle waits until the sessions of a server are waiting for requests.
func idle(t *testing.T, r *running) {
	t.Helper()
	for end := time.Now().Add(patience); r.Stats().Busy > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the sessions do not become idle")
		}
	}
}

// A session with a request in flight never yields, nor does one that is idle where the
// operator wants none to; who comes then is told why, and comes in when there is a place.
func TestFullRefuses(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"requests in flight", "idle sessions stay", "idle for too short"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			g := newGated(t, 1<<20)
			cfg := server.Config{Exports: []server.Export{{Name: "d", Disk: disk.New(g, "gated")}}, MaxConnections: 2, Log: testLog(t)}
			switch kind {
			case "requests in flight":
				cfg.IdleYield = time.Nanosecond
			case "idle sessions stay":
				cfg.IdleYield = -1
			}
			r := serve(t, cfg)
			a, b := r.connect(t, nbd.Simple, "d"), r.connect(t, nbd.Simple, "d")
			read := nbd.Request{Command: nbd.CmdRead, Length: 512}
			if kind == "requests in flight" {
				a.send(read, nil)
				b.send(read, nil)
				g.awaitEntered(t, 2)
			}
			for range 3 {
				if p, why := r.place(t, nil); p != nil || !strings.Contains(why, "all 2 connections that this server allows are in use") {
					t.Fatalf("a third client got in, or %q", why)
				}
			}
			if n := r.Stats().Refused; n != 3 {
				t.Errorf("%d refusals are counted", n)
			}
			close(g.gate)
			if kind == "requests in flight" {
				a.reply(read)
				b.reply(read)
			}
			b.send(nbd.Request{Command: nbd.CmdDisconnect}, nil)
			b.mustClose()
			for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
				if p, _ := r.place(t, nil); p != nil {
					p.alive()
					break
				}
				if time.Now().After(end) {
					t.Fatal("a place that was left stays taken")
				}
			}
		})
	}
}

// Clients that begin a negotiation and do not go on make room after a second.
func TestSlowNegotiationsYield(t *testing.T) {
	t.Parallel()
	r := serve(t, server.Config{
		Exports: []server.Export{{Name: "d", Disk: memDisk(t, 1<<20)}}, MaxConnections: 3, HandshakeTimeout: patience,
	})
	for range 3 {
		r.dial(t)
	}
	for end := time.Now().Add(patience / 2); ; time.Sleep(50 * time.Millisecond) {
		if p, _ := r.place(t, nil); p != nil {
			p.alive()
			return
		}
		if time.Now().After(end) {
			t.Fatal("three silent clients lock out every other")
		}
	}
}

// One address cannot have all places.
func TestShareOfAnAddress(t *testing.T) {
	t.Parallel()
	s, err := server.New(server.Config{
		Exports: []server.Export{{Name: "d", Disk: memDisk(t, 1<<20)}}, MaxConnections: 4, MaxPerAddress: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(context.Background(), l) })
	t.Cleanup(func() { _ = s.Shutdown(context.Background()); wg.Wait() })
	from := func(ip string) optReply {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		nc, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		_ = nc.SetDeadline(time.Now().Add(patience))
		p := (&peer{t: t, conn: nc}).greet(nbd.FlagFixedNewstyle)
		all := p.option(nbd.OptGo, nbd.AppendGo(nil, "d", nil))
		return all[len(all)-1]
	}
	for _, c := range []struct {
		ip  string
		why string
	}{{"127.0.0.1", ""}, {"127.0.0.1", ""}, {"127.0.0.1", "from one address (127.0.0.1)"}, {"127.0.0.2", ""}, {"127.0.0.2", ""}, {"127.0.0.3", "all 4 connections that this server allows are"}} {
		got := from(c.ip)
		if (got.typ == nbd.RepAck) != (c.why == "") || !strings.Contains(got.data, c.why) {
			t.Errorf("%s: %v %q, want %q", c.ip, got.typ, got.data, c.why)
		}
	}
}

// By unix sockets it is the user who has a share.
func TestShareOfAUser(t *testing.T) {
	t.Parallel()
	r := serve(t, server.Config{Exports: []server.Export{{Name: "d", Disk: memDisk(t, 1<<20)}}, MaxPerAddress: 1})
	r.connect(t, nbd.Simple, "d").alive()
	if p, why := r.place(t, nil); p != nil || !strings.Contains(why, "from one address (uid ") {
		t.Errorf("got in, or %q", why)
	}
}
