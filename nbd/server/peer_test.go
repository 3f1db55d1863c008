package server_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/file"
	"github.com/vmdisk/vmdisk/driver/mem"
	"github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/server"
)

// patience bounds every wait of a test; it passes only when something hangs.
const patience = time.Minute

// running is a server on a unix socket.
type running struct {
	*server.Server
	path string
}

// serve runs a server until the test ends.
func serve(t testing.TB, cfg server.Config) *running {
	t.Helper()
	s, err := server.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{s, filepath.Join(t.TempDir(), "s")}
	l, err := net.Listen("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Serve(context.Background(), l); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		wg.Wait()
	})
	return r
}

func serveDisk(t testing.TB, d *disk.Disk) *running {
	t.Helper()
	return serve(t, server.Config{Exports: []server.Export{{Name: "d", Description: "a disk", Disk: d}}})
}

func memDisk(t testing.TB, size int64) *disk.Disk {
	t.Helper()
	d, err := mem.Open(size)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// below is a driver over a disk; tests embed it and replace methods. It has no
// optional interface.
type below struct {
	d    *disk.Disk
	info func(*disk.Info)
}

func (b *below) Info() disk.Info {
	i := b.d.Info()
	if b.info != nil {
		b.info(&i)
	}
	return i
}
func (b *below) ReadAt(ctx context.Context, p []byte, off int64) error {
	return b.d.ReadAt(ctx, p, off)
}
func (b *below) WriteAt(ctx context.Context, p []byte, off int64, f disk.Flags) error {
	return b.d.WriteAt(ctx, p, off, f)
}
func (b *below) Zero(ctx context.Context, off, n int64, f disk.Flags) error {
	return b.d.Zero(ctx, off, n, f)
}
func (b *below) Trim(ctx context.Context, off, n int64, f disk.Flags) error {
	return b.d.Trim(ctx, off, n, f)
}
func (b *below) Flush(ctx context.Context) error { return b.d.Flush(ctx) }
func (b *below) Extents(ctx context.Context, m disk.MapName, off, n int64, dst []disk.Extent) ([]disk.Extent, error) {
	return b.d.Extents(ctx, m, off, n, dst)
}
func (b *below) Close() error { return b.d.Close() }

// peer is a client that can say anything.
type peer struct {
	t    testing.TB
	conn net.Conn
	mode nbd.Mode
}

func (r *running) dial(t testing.TB) *peer {
	t.Helper()
	nc, err := net.Dial("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	return &peer{t: t, conn: nc}
}

// greet exchanges greeting and client flags.
func (p *peer) greet(f nbd.HandshakeFlags) *peer {
	p.t.Helper()
	got, err := nbd.DecodeGreeting(p.read(nbd.GreetingSize))
	if err != nil || got != nbd.FlagFixedNewstyle|nbd.FlagNoZeroes {
		p.t.Fatalf("greeting: %v, %v", got, err)
	}
	p.write(nbd.AppendClientFlags(nil, f))
	return p
}

func (p *peer) read(n int) []byte {
	p.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(p.conn, b); err != nil {
		p.t.Fatalf("reading %d bytes: %v", n, err)
	}
	return b
}

func (p *peer) write(b []byte) {
	p.t.Helper()
	if _, err := p.conn.Write(b); err != nil {
		p.t.Fatalf("writing %d bytes: %v", len(b), err)
	}
}

// mustClose fails unless the server closes the connection.
func (p *peer) mustClose() {
	p.t.Helper()
	var b [4096]byte
	for {
		if _, err := p.conn.Read(b[:]); err != nil {
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				p.t.Fatal("the server keeps the connection open")
			}
			return
		}
	}
}

// optReply is one answer to an option.
type optReply struct {
	typ  nbd.OptionReplyType
	data string
}

// option sends an option and returns all its replies; the last is ACK or an error.
func (p *peer) option(o nbd.Option, data []byte) []optReply {
	p.t.Helper()
	p.write(nbd.AppendOption(nil, o, data))
	return p.replies(o)
}

func (p *peer) replies(o nbd.Option) (all []optReply) {
	p.t.Helper()
	for {
		h, err := nbd.DecodeOptionReplyHeader(p.read(nbd.OptionReplyHeaderSize))
		if err != nil || h.Option != o {
			p.t.Fatalf("reply to %v: %+v, %v", o, h, err)
		}
		all = append(all, optReply{h.Type, string(p.read(int(h.Len)))})
		if h.Type == nbd.RepAck || h.Type.IsError() {
			return all
		}
	}
}

// want sends an option whose last reply must be of the given type.
func (p *peer) want(o nbd.Option, data []byte, typ nbd.OptionReplyType) []optReply {
	p.t.Helper()
	all := p.option(o, data)
	if last := all[len(all)-1]; last.typ != typ {
		p.t.Fatalf("%v: %v %q, want %v", o, last.typ, last.data, typ)
	}
	return all
}

// connect negotiates mode m and the contexts, then the export.
func (r *running) connect(t testing.TB, m nbd.Mode, export string, contexts ...string) *peer {
	t.Helper()
	p := r.dial(t).greet(nbd.FlagFixedNewstyle | nbd.FlagNoZeroes)
	p.haggle(m, export, contexts...)
	return p
}

func (p *peer) haggle(m nbd.Mode, export string, contexts ...string) nbd.TransmissionFlags {
	p.t.Helper()
	switch m {
	case nbd.Structured:
		p.want(nbd.OptStructuredReply, nil, nbd.RepAck)
	case nbd.Extended:
		p.want(nbd.OptExtendedHeaders, nil, nbd.RepAck)
	}
	if len(contexts) > 0 {
		got := p.want(nbd.OptSetMetaContext, nbd.AppendMetaQuery(nil, export, contexts), nbd.RepAck)
		if len(got)-1 != len(contexts) {
			p.t.Fatalf("contexts %q: %v", contexts, got)
		}
	}
	p.mode = m
	for _, rep := range p.want(nbd.OptGo, nbd.AppendGo(nil, export, nil), nbd.RepAck) {
		if i, err := nbd.DecodeInfo([]byte(rep.data)); rep.typ == nbd.RepInfo && err == nil && i.Type == nbd.InfoExport {
			return i.Flags
		}
	}
	p.t.Fatal("no export information")
	return 0
}

func (p *peer) send(r nbd.Request, payload []byte) {
	p.t.Helper()
	p.write(append(r.Append(nil, p.mode), payload...))
}

// result is a whole reply.
type result struct {
	errno    nbd.Errno
	message  string
	data     []byte // of a READ, holes filled in
	holes    int    // hole chunks
	chunks   int
	statuses map[uint32][]nbd.Status
}

// do sends a request and returns its reply. WRITEs in extended mode get the
// flag that they need.
func (p *peer) do(r nbd.Request, payload []byte) result {
	p.t.Helper()
	r.Cookie = 0xc00c1e
	if p.mode == nbd.Extended && r.Command == nbd.CmdWrite {
		r.Flags |= nbd.CmdFlagPayloadLen
	}
	p.send(r, payload)
	return p.reply(r)
}

func (p *peer) reply(r nbd.Request) result {
	p.t.Helper()
	res := result{statuses: map[uint32][]nbd.Status{}}
	if r.Command == nbd.CmdRead {
		res.data = make([]byte, r.Length)
	}
	for {
		h := p.header()
		if h.Cookie != r.Cookie {
			p.t.Fatalf("cookie %#x, want %#x", h.Cookie, r.Cookie)
		}
		res.chunks++
		if h.Simple {
			if r.Command == nbd.CmdRead && p.mode != nbd.Simple {
				p.t.Fatal("a simple reply to a READ after structured replies were negotiated")
			}
			if res.errno = h.Error; res.errno == nbd.OK && r.Command == nbd.CmdRead {
				res.data = p.read(int(r.Length))
			}
			return res
		}
		if p.mode == nbd.Extended && h.Offset != r.Offset {
			p.t.Fatalf("reply offset %d, want %d", h.Offset, r.Offset)
		}
		p.chunk(h, r, &res)
		if h.Done() {
			return res
		}
	}
}

func (p *peer) header() (h nbd.Reply) {
	p.t.Helper()
	size := nbd.SimpleReplySize
	if p.mode == nbd.Extended {
		size = nbd.ExtendedReplySize
	}
	b := p.read(size)
	_, err := h.Decode(b, p.mode)
	if err == nbd.ErrShort {
		b = append(b, p.read(nbd.StructuredReplySize-size)...)
		_, err = h.Decode(b, p.mode)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return h
}

func (p *peer) chunk(h nbd.Reply, r nbd.Request, res *result) {
	p.t.Helper()
	b := p.read(int(h.Length))
	var err error
	switch {
	case h.Type == nbd.ChunkNone:
	case h.Type == nbd.ChunkOffsetData:
		copy(res.data[binary.BigEndian.Uint64(b)-r.Offset:], b[8:])
	case h.Type == nbd.ChunkOffsetHole:
		var off uint64
		var n uint32
		if off, n, err = nbd.DecodeHole(b); err == nil {
			res.holes++
			clear(res.data[off-r.Offset:][:n])
		}
	case h.Type == nbd.ChunkBlockStatus, h.Type == nbd.ChunkBlockStatusExt:
		if (h.Type == nbd.ChunkBlockStatusExt) != (p.mode == nbd.Extended) {
			p.t.Fatalf("%v in mode %v", h.Type, p.mode)
		}
		var id uint32
		var x []nbd.Status
		id, x, err = nbd.DecodeBlockStatus(h.Type, b, nil)
		if res.statuses[id] != nil {
			p.t.Fatalf("two chunks for context %d", id)
		}
		res.statuses[id] = x
	default:
		var e nbd.ErrorChunk
		e, err = nbd.DecodeError(h.Type, b)
		res.errno, res.message = e.Errno, e.Message
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// alive fails unless the connection still serves.
func (p *peer) alive() {
	p.t.Helper()
	if res := p.do(nbd.Request{Command: nbd.CmdRead, Length: 512}, nil); res.errno != nbd.OK {
		p.t.Fatalf("read after that: %v", res.errno)
	}
}

// testLog sends a server's log to the test's.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func fileDisk(t testing.TB, size int64) *disk.Disk {
	t.Helper()
	path := filepath.Join(t.TempDir(), "img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	err = f.Truncate(size)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	d, err := file.OpenDisk(context.Background(), path, file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}
