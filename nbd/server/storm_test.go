package server_test

import (
	"bytes"
	"encoding/binary"
	"flag"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/server"
)

var (
	stormTime = flag.Duration("storm", 4*time.Second, "how long TestStorm runs")
	stormSeed = flag.Uint64("storm-seed", 0, "seed of TestStorm (0: by the clock)")
)

// Each of the storm's connections has a part of the disk of its own, which it knows.
const (
	stormers  = 12
	stormPart = 8 << 20
)

// TestStorm has many connections at once send random requests, with many in flight,
// and checks every reply against a model, while hostile ones send garbage, trickle,
// and do not read. Idle connections are asked all the while: a server that is deaf
// fails, as does one that sends a reply that nobody waits for.
//
// Not parallel: it changes GOMAXPROCS, at which the server once fell silent.
func TestStorm(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	seed := *stormSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-storm-seed %d", seed)
	d := memDisk(t, stormers*stormPart)
	srv, cli := certificate(t)
	r := serve(t, server.Config{Exports: []server.Export{
		{Name: "d", Disk: d}, {Name: "slow", Disk: disk.New(&below{d: d}, "below")},
		{Name: "file", Disk: fileDisk(t, stormers*stormPart)},
	}, TLS: srv, TLSMode: server.TLSOn, Log: testLog(t)})
	r.BetweenSteps(runtime.Gosched)
	end := time.Now().Add(*stormTime)
	var wg sync.WaitGroup
	var requests atomic.Int64
	for i := range stormers {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		export := []string{"d", "slow", "file"}[i%3]
		p := r.dial(t).greet(nbd.FlagFixedNewstyle)
		if i%4 == 3 {
			p.secure(cli)
		}
		p.haggle(modes[(i/3)%3], export)
		s := &storm{p: p, rng: rng, base: i * stormPart, model: make([]byte, stormPart)}
		wg.Go(func() {
			for time.Now().Before(end) && !t.Failed() {
				requests.Add(s.round())
			}
		})
	}
	for i := range 4 {
		rng := rand.New(rand.NewPCG(seed, uint64(100+i)))
		wg.Go(func() {
			for time.Now().Before(end) && !t.Failed() {
				hostile(t, r, rng)
			}
		})
	}
	for range 4 {
		p := r.connect(t, nbd.Structured, "d")
		wg.Go(func() {
			for time.Now().Before(end) && !t.Failed() {
				_ = p.conn.SetDeadline(time.Now().Add(patience))
				p.alive()
				time.Sleep(3 * time.Millisecond)
			}
		})
	}
	wg.Wait()
	t.Logf("%d requests", requests.Load())
}

// storm is one connection and what its part of the disk holds.
type storm struct {
	p     *peer
	rng   *rand.Rand
	base  int
	model []byte
	busy  []span // what requests in flight write or read
	fill  byte
}

type span struct{ from, to int }

// round has some requests in flight whose ranges do not overlap, and checks them all.
func (s *storm) round() int64 {
	s.p.t.Helper()
	_ = s.p.conn.SetDeadline(time.Now().Add(patience))
	s.busy = s.busy[:0]
	cs := calls{}
	var out []byte
	for range 1 + s.rng.IntN(40) {
		out = s.request(cs, out)
	}
	sent := make(chan error, 1)
	go func() { // replies are read meanwhile, or both ends would wait
		_, err := io.Copy(s.p.conn, bytes.NewReader(out))
		sent <- err
	}()
	cs.finish(s.p)
	if err := <-sent; err != nil {
		s.p.t.Error(err)
	}
	for _, k := range cs {
		at := int(k.Offset) - s.base
		switch {
		case k.Command == nbd.CmdTrim && k.Offset > 1<<40:
			if k.errno != nbd.EINVAL {
				s.p.t.Errorf("a trim beyond the end: %v", k.errno)
			}
		case k.errno != nbd.OK:
			s.p.t.Errorf("%v of %d bytes: %v", k.Command, k.Length, k.errno)
		case k.Command == nbd.CmdRead && !bytes.Equal(k.data, s.model[at:at+int(k.Length)]):
			s.p.t.Errorf("a READ of %d bytes at %d: other data", k.Length, k.Offset)
		}
	}
	return int64(len(cs))
}

// request appends a random request to out. Writes and zeroes are in the model at once,
// as nothing else touches their range in this round.
func (s *storm) request(cs calls, out []byte) []byte {
	n := []int{1, 512, 4096, 4096, 60_000, 64 << 10, 70_001, 1 << 20, 3 << 20}[s.rng.IntN(9)]
	at := s.rng.IntN(stormPart - n)
	req := nbd.Request{Cookie: uint64(len(cs)) | 0xc0<<32, Offset: uint64(s.base + at), Length: uint64(n)}
	kind := s.rng.IntN(12)
	if kind < 8 && !s.claim(at, at+n) {
		kind = 8
	}
	var payload []byte
	switch {
	case kind < 4:
		req.Command = nbd.CmdRead
	case kind < 7:
		req.Command, payload = nbd.CmdWrite, s.model[at:at+n]
		s.change(payload)
		req.Flags = payloadFlag(s.p.mode)
	case kind == 7:
		req.Command = nbd.CmdWriteZeroes
		clear(s.model[at : at+n])
	case kind < 11:
		req = nbd.Request{Command: nbd.CmdFlush, Cookie: req.Cookie}
	default:
		req.Command, req.Offset = nbd.CmdTrim, 1<<41
	}
	k := &call{Request: req, result: result{statuses: map[uint32][]nbd.Status{}}}
	if req.Command == nbd.CmdRead {
		k.data = make([]byte, n)
	}
	cs[req.Cookie] = k
	return append(req.Append(out, s.p.mode), payload...)
}

func (s *storm) claim(from, to int) bool {
	for _, b := range s.busy {
		if from < b.to && b.from < to {
			return false
		}
	}
	s.busy = append(s.busy, span{from, to})
	return true
}

// change fills b with numbers that no other write has, and so no header either.
func (s *storm) change(b []byte) {
	s.fill++
	for i := range b {
		b[i] = s.fill
	}
	if len(b) >= 8 {
		binary.BigEndian.PutUint64(b, s.rng.Uint64())
	}
}

// hostile is a client that does one bad thing for a while.
func hostile(t *testing.T, r *running, rng *rand.Rand) {
	p := r.dial(t).greet(nbd.FlagFixedNewstyle)
	defer p.conn.Close()
	p.haggle(modes[rng.IntN(3)], "slow")
	_ = p.conn.SetDeadline(time.Now().Add(20 * time.Millisecond))
	read := nbd.Request{Command: nbd.CmdRead, Length: uint64(1 + rng.IntN(4<<20))}
	// Writes beyond the end, since the part of the disk that is there is somebody's.
	write := nbd.Request{Command: nbd.CmdWrite, Flags: payloadFlag(p.mode), Offset: 1 << 40, Length: uint64(1 + rng.IntN(4<<20))}
	var b []byte
	switch rng.IntN(4) {
	case 0: // does not read
		for range 200 {
			b = read.Append(b, p.mode)
		}
	case 1: // garbage
		for range 1000 {
			b = append(b, byte(rng.IntN(256)))
		}
	case 2: // goes away in the middle of a payload
		b = append(write.Append(b, p.mode), make([]byte, write.Length/2)...)
	case 3: // goes away in the middle of a header
		b = read.Append(b, p.mode)
		b = b[:len(b)-1-rng.IntN(20)]
	}
	_, _ = p.conn.Write(b)
	if rng.IntN(2) == 0 {
		_, _ = p.conn.Read(make([]byte, 100))
	}
}
