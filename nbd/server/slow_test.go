package server_test

import (
	"bytes"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/server"
)

// Clients that send byte by byte, or do not read, do not keep others waiting for
// buffers. 300 of them made an honest read take 25.8 s.
func TestSlowClientsHoldNobodyUp(t *testing.T) {
	srv, cli := certificate(t)
	for name, c := range map[string]struct {
		secure bool
		slow   func(p *peer)
	}{
		"trickling writes": {false, func(p *peer) {
			p.send(nbd.Request{Command: nbd.CmdWrite, Length: 64 << 10}, make([]byte, 100))
		}},
		"trickling large writes": {false, func(p *peer) {
			p.send(nbd.Request{Command: nbd.CmdWrite, Length: 8 << 20}, make([]byte, 100_000))
		}},
		"trickling refused writes": {false, func(p *peer) {
			p.send(nbd.Request{Command: nbd.CmdWrite, Offset: 1 << 40, Length: 8 << 20}, make([]byte, 100))
		}},
		"trickling writes by TLS": {true, func(p *peer) {
			p.send(nbd.Request{Command: nbd.CmdWrite, Length: 64 << 10}, make([]byte, 100))
		}},
		"unread replies": {false, func(p *peer) {
			for range 200 {
				p.send(nbd.Request{Command: nbd.CmdRead, Length: 64 << 10}, nil)
			}
		}},
		"unread large replies": {false, func(p *peer) {
			for range 20 {
				p.send(nbd.Request{Command: nbd.CmdRead, Length: 4 << 20}, nil)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := serve(t, server.Config{
				Exports: []server.Export{{Name: "d", Disk: memDisk(t, 16<<20)}}, TLS: srv, TLSMode: server.TLSOn,
			})
			honest := r.connect(t, nbd.Simple, "d")
			for range 300 {
				p := r.dial(t).greet(nbd.FlagFixedNewstyle)
				if c.secure {
					p.secure(cli)
				}
				p.haggle(nbd.Simple, "d")
				c.slow(p)
			}
			time.Sleep(500 * time.Millisecond) // all of them hold what they can
			const large = 1 << 20
			var took []time.Duration
			for i := range 40 {
				start := time.Now()
				switch i % 4 {
				case 0:
					honest.do(nbd.Request{Command: nbd.CmdWrite, Length: large}, make([]byte, large))
				case 1:
					honest.do(nbd.Request{Command: nbd.CmdRead, Length: large}, nil)
				default:
					honest.alive()
				}
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			t.Logf("median %v, longest %v", took[20], took[39])
			if took[20] > 100*time.Millisecond || took[39] > 3*time.Second {
				t.Errorf("an honest request took %v, and %v at worst", took[20], took[39])
			}
		})
	}
}

// Clients that are slow but go on keep their sessions, whoever stands still: 30 at
// 150 KB/s had lost theirs 76 times.
func TestSlowProgressIsNoStall(t *testing.T) {
	t.Parallel()
	r := serve(t, server.Config{Exports: []server.Export{{Name: "d", Disk: memDisk(t, 16<<20)}}, Log: testLog(t)})
	var stalled []*peer
	for range 150 { // more than the slow ones' budget has room for
		p := r.connect(t, nbd.Simple, "d")
		p.send(nbd.Request{Command: nbd.CmdWrite, Length: 64 << 10}, make([]byte, 100))
		stalled = append(stalled, p)
	}
	var lost, done atomic.Int32
	var wg sync.WaitGroup
	for i := range 30 {
		p := r.connect(t, nbd.Simple, "d")
		wg.Go(func() {
			if p.slowSession(i%2 == 0) {
				done.Add(1)
			} else {
				lost.Add(1)
			}
		})
	}
	wg.Wait()
	if lost.Load() > 0 {
		t.Errorf("%d of %d slow sessions were lost", lost.Load(), lost.Load()+done.Load())
	}
	cut := 0
	for _, p := range stalled {
		_ = p.conn.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := p.conn.Read(make([]byte, 1)); !isTimeout(err) {
			cut++
		}
	}
	if cut == 0 {
		t.Error("those that stand still were not cut")
	}
}

// slowSession moves 1 MiB in one request, 7,500 bytes every 50 ms.
func (p *peer) slowSession(write bool) bool {
	const n, step = 1 << 20, 7500
	req := nbd.Request{Command: nbd.CmdRead, Length: n}
	out, in := req.Append(nil, p.mode), make([]byte, 16+n)
	if write {
		req.Command = nbd.CmdWrite
		out, in = append(req.Append(nil, p.mode), bytes.Repeat([]byte{3}, n)...), in[:16]
	}
	for len(out) > 0 {
		k, err := p.conn.Write(out[:min(step, len(out))])
		if err != nil {
			return false
		}
		out = out[k:]
		time.Sleep(50 * time.Millisecond)
	}
	for len(in) > 0 {
		k, err := p.conn.Read(in[:min(step, len(in))])
		if err != nil {
			return false
		}
		in = in[k:]
		time.Sleep(50 * time.Millisecond)
	}
	return true
}
