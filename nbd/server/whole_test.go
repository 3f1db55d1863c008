package server_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/file"
	"github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/server"
)

// calls are requests in flight by their cookies, and what has come of their replies.
type calls map[uint64]*call

type call struct {
	nbd.Request
	result
	from int // where its data is in a READ's reply
}

// start sends requests, which get cookies of their own, by one write.
func (cs calls) start(p *peer, reqs ...nbd.Request) {
	p.t.Helper()
	var b []byte
	for _, r := range reqs {
		r.Cookie = uint64(len(cs)) | 0xabcd<<32
		k := &call{Request: r, result: result{statuses: map[uint32][]nbd.Status{}}}
		if r.Command == nbd.CmdRead {
			k.data = make([]byte, r.Length)
		}
		cs[r.Cookie] = k
		b = r.Append(b, p.mode)
	}
	p.write(b)
}

// finish takes replies, whatever their order, until every request has its own.
func (cs calls) finish(p *peer) {
	p.t.Helper()
	for left := len(cs); left > 0; {
		h := p.header()
		k := cs[h.Cookie]
		if k == nil {
			p.t.Fatalf("a reply with the cookie %#x, which no request had: %+v", h.Cookie, h)
		}
		k.chunks++
		if !h.Simple {
			p.chunk(h, k.Request, &k.result)
		} else if k.errno = h.Error; h.Error == nbd.OK && k.Command == nbd.CmdRead {
			k.data = p.read(int(k.Length))
		}
		if h.Done() {
			left--
		}
	}
}

// dialTCP adds a TCP listener to a server and connects to it.
func (r *running) dialTCP(t *testing.T) *peer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- r.Serve(ctx, l) }()
	t.Cleanup(func() { cancel(); <-done })
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	return &peer{t: t, conn: nc}
}

func cacheNone(t *testing.T, size int64) *disk.Disk {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "direct")
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := file.OpenDisk(context.Background(), path, file.Options{Cache: file.None})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// No reply begins before another that has begun has ended, whatever the transport
// and wherever the data comes from. (Long simple replies once had other requests'
// headers in the middle of their data.)
func TestRepliesStayWhole(t *testing.T) {
	t.Parallel()
	const size = 16 << 20
	content := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{11}).Read(content)
	disks := map[string]func() *disk.Disk{
		"mem":        func() *disk.Disk { return memDisk(t, size) },
		"file":       func() *disk.Disk { return fileDisk(t, size) },
		"cache=none": func() *disk.Disk { return cacheNone(t, size) },
	}
	for name, open := range disks {
		d := open()
		if err := d.WriteAt(context.Background(), content, 0, 0); err != nil {
			t.Fatal(err)
		}
		srv, cli := certificate(t)
		r := serve(t, server.Config{Exports: []server.Export{{Name: "d", Disk: d}}, TLS: srv, TLSMode: server.TLSOn})
		for transport, dial := range map[string]func(t *testing.T) *peer{
			"unix": func(t *testing.T) *peer { return r.dial(t).greet(nbd.FlagFixedNewstyle) },
			"tcp":  func(t *testing.T) *peer { return r.dialTCP(t).greet(nbd.FlagFixedNewstyle) },
			"tls": func(t *testing.T) *peer {
				p := r.dial(t).greet(nbd.FlagFixedNewstyle)
				p.secure(cli)
				return p
			},
		} {
			for _, m := range modes {
				t.Run(name+"/"+transport+"/"+m.String(), func(t *testing.T) {
					t.Parallel()
					p := dial(t)
					p.haggle(m, "d")
					rng := rand.New(rand.NewPCG(1, 2))
					for range 6 {
						wholeRound(p, rng, content)
					}
				})
			}
		}
	}
}

// wholeRound has long reads and many short requests in flight at once.
func wholeRound(p *peer, rng *rand.Rand, content []byte) {
	p.t.Helper()
	cs := calls{}
	for i := range 60 {
		req := nbd.Request{Command: nbd.CmdFlush}
		switch i % 10 {
		case 0:
			n := []int{70_000, 1 << 20, 1<<20 + 1, 3<<20 + 512, 5 << 20}[rng.IntN(5)]
			req = nbd.Request{Command: nbd.CmdRead, Offset: uint64(rng.IntN(len(content) - n)), Length: uint64(n)}
		case 1, 2:
			req = nbd.Request{Command: nbd.CmdRead, Offset: uint64(rng.IntN(len(content) - 4096)), Length: 4096}
		case 3, 4:
			req = nbd.Request{Command: nbd.CmdCache, Length: 4096}
		}
		cs.start(p, req)
	}
	cs.finish(p)
	for _, k := range cs {
		if k.errno != nbd.OK || k.Command == nbd.CmdRead && !bytes.Equal(k.data, content[k.Offset:][:k.Length]) {
			p.t.Fatalf("%v of %d bytes at %d: %v, or other data", k.Command, k.Length, k.Offset, k.errno)
		}
	}
}

// A file that ends in the middle of a chunk that was begun: the chunk is filled up,
// with nothing of another reply in it, and the client is told; where it cannot be
// told it loses the connection.
func TestShortFileKeepsChunksWhole(t *testing.T) {
	t.Parallel()
	l := &readLender{lender: lend(t, splicedSize, unix.O_RDONLY)}
	short := lend(t, splicedSize/8, unix.O_RDONLY)
	if err := l.d.WriteAt(context.Background(), bytes.Repeat([]byte{7}, splicedSize), 0, 0); err != nil {
		t.Fatal(err)
	}
	l.fd = short.fd
	r := serveDisk(t, disk.New(l, "lender"))
	for _, m := range modes {
		p := r.connect(t, m, "d")
		for range 20 {
			cs := calls{}
			for i := range 100 {
				req := nbd.Request{Command: nbd.CmdFlush}
				if i%10 == 9 {
					req = nbd.Request{Command: nbd.CmdRead, Offset: splicedSize/8 - 300_000, Length: 1 << 20}
				}
				cs.start(p, req)
				if m == nbd.Simple && i == 9 {
					p.mustClose()
					break
				}
			}
			if m == nbd.Simple {
				break
			}
			cs.finish(p)
			for _, k := range cs {
				if k.Command == nbd.CmdRead && k.errno == nbd.OK {
					t.Fatal("a READ beyond the end of the file succeeded")
				}
			}
		}
	}
}
