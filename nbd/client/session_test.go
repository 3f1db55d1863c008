package client

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/nbd"
)

func TestHandshake(t *testing.T) {
	t.Parallel()
	refuse := func(e nbd.OptionReplyType, which ...nbd.Option) func(*fake, nbd.Option, []byte) bool {
		return func(f *fake, o nbd.Option, _ []byte) bool {
			for _, w := range which {
				if w == o {
					f.reply(o, e, []byte("no\x1b[31m"))
					return true
				}
			}
			return false
		}
	}
	for _, c := range []struct {
		name   string
		fake   fake
		want   error
		text   string
		verify func(e Export) bool
	}{
		{"GO unknown", fake{mode: nbd.Structured, option: refuse(nbd.RepErrUnsupported, nbd.OptGo)}, nil, "",
			func(e Export) bool { return e.Size == fakeSize && e.Min == 512 && e.Max == 32<<20 }},
		{"no such export", fake{option: refuse(nbd.RepErrUnknown, nbd.OptGo)}, nil, "ERR_UNKNOWN: no [31m", nil},
		{"TLS required", fake{option: refuse(nbd.RepErrTLSRequired, nbd.OptExtendedHeaders, nbd.OptGo)}, ErrTLSRequired, "nbds://", nil},
		{"contexts refused", fake{mode: nbd.Structured, option: refuse(nbd.RepErrUnknown, nbd.OptSetMetaContext)}, nil, "",
			func(e Export) bool { return e.Mode == nbd.Structured && len(e.Contexts) == 0 }},
		{"block sizes", fake{mode: nbd.Extended, info: &nbd.Info{Type: nbd.InfoBlockSize, Min: 4096, Preferred: 65536, Max: 1 << 20}}, nil, "",
			func(e Export) bool {
				return e.Min == 4096 && e.Preferred == 65536 && e.Max == 1<<20 && e.BlockSizes && len(e.Contexts) == 1
			}},
		{"minimum of 3", fake{info: &nbd.Info{Type: nbd.InfoBlockSize, Min: 3, Preferred: 4096, Max: 1 << 20}}, nbd.ErrMalformed, "", nil},
		{"no size", fake{option: func(f *fake, o nbd.Option, _ []byte) bool {
			if o == nbd.OptGo {
				f.reply(o, nbd.RepAck, nil)
			}
			return o == nbd.OptGo
		}}, nbd.ErrMalformed, "size", nil},
		{"size of 2^63", fake{option: func(f *fake, o nbd.Option, _ []byte) bool {
			if o == nbd.OptGo {
				f.reply(o, nbd.RepInfo, nbd.Info{Type: nbd.InfoExport, Size: 1 << 63, Flags: 1}.Append(nil))
			}
			return o == nbd.OptGo
		}}, nbd.ErrMalformed, "", nil},
		{"reply to another option", fake{option: func(f *fake, o nbd.Option, _ []byte) bool {
			f.reply(o+1, nbd.RepAck, nil)
			return true
		}}, nbd.ErrMalformed, "", nil},
		{"reply of 4 GiB", fake{option: func(f *fake, o nbd.Option, _ []byte) bool {
			b := nbd.AppendOptionReply(nil, o, nbd.RepErrUnsupported, nil)
			binary.BigEndian.PutUint32(b[16:], 1<<32-1)
			f.send(b)
			return true
		}}, nbd.ErrMalformed, "", nil},
		{"endless replies", fake{option: func(f *fake, o nbd.Option, _ []byte) bool {
			if o != nbd.OptGo {
				return false
			}
			b := bytes.Repeat(nbd.AppendOptionReply(nil, o, nbd.RepInfo, nbd.Info{Type: 99}.Append(nil)), 1000)
			for range 11 {
				f.send(b)
			}
			return true
		}}, nbd.ErrMalformed, "more than", nil},
		{"garbage", fake{option: func(f *fake, o nbd.Option, _ []byte) bool {
			f.send(fill(100, 'x'))
			return true
		}}, nbd.ErrMalformed, "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			client, err := Dial(context.Background(), c.fake.config(t, func(f *fake) { f.request() }))
			if err == nil {
				defer client.Close()
			}
			switch {
			case c.verify != nil && err != nil:
				t.Fatal(err)
			case c.verify != nil:
				if !c.verify(client.Export()) {
					t.Errorf("%+v", client.Export())
				}
			case err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text):
				t.Errorf("%v", err)
			}
		})
	}
}

func TestHeadersAsked(t *testing.T) {
	t.Parallel()
	for limit, want := range map[Headers]nbd.Mode{ExtendedHeaders: nbd.Extended, StructuredReplies: nbd.Structured, SimpleReplies: nbd.Simple} {
		cfg := fake{mode: want}.config(t, func(f *fake) { f.request() })
		cfg.Headers = limit
		if got := dial(t, cfg).Export().Mode; got != want {
			t.Errorf("%v: %v", limit, got)
		}
	}
}

func TestSilentServer(t *testing.T) {
	t.Parallel()
	cfg := fake{option: func(*fake, nbd.Option, []byte) bool { return true }}.config(t, nil)
	cfg.HandshakeTimeout = 50 * time.Millisecond
	if _, err := Dial(context.Background(), cfg); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	cfg.HandshakeTimeout = time.Hour
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := Dial(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Lengths above 32 bits go out whole with extended headers and are refused without.
func TestLongEffects(t *testing.T) {
	t.Parallel()
	const size = 1 << 43
	eachMode(t, func(t *testing.T, m nbd.Mode) {
		got := make(chan uint64, 1)
		c := dial(t, fake{mode: m, goAnswer: func(f *fake, o nbd.Option, _ []byte) bool {
			if o != nbd.OptGo {
				return false
			}
			f.reply(o, nbd.RepInfo, nbd.Info{Type: nbd.InfoExport, Size: size, Flags: fakeFlags}.Append(nil))
			f.reply(o, nbd.RepAck, nil)
			return true
		}}.config(t, func(f *fake) {
			if r, _, ok := f.request(); ok {
				got <- r.Length
				f.answer(r, nbd.OK)
			}
		}))
		err := c.WriteZeroes(context.Background(), 0, size, 0)
		if m == nbd.Extended {
			if n := <-got; err != nil || n != size {
				t.Errorf("%v, length %d", err, n)
			}
			return
		}
		if err == nil || c.MaxEffect() != 1<<32-512 {
			t.Errorf("%v, limit %d", err, c.MaxEffect())
		}
		if err := c.WriteZeroes(context.Background(), 0, c.MaxEffect(), 0); err != nil || <-got != 1<<32-512 {
			t.Error(err)
		}
	})
}

func TestCancel(t *testing.T) {
	t.Parallel()
	type step struct {
		r  nbd.Request
		ok bool
	}
	start := func(t *testing.T) (*Client, chan step, chan func(*fake)) {
		got, act := make(chan step), make(chan func(*fake))
		c := dial(t, fake{mode: nbd.Structured}.config(t, func(f *fake) {
			for {
				r, _, ok := f.request()
				got <- step{r, ok}
				if !ok {
					return
				}
				(<-act)(f)
			}
		}))
		t.Cleanup(func() { c.Close(); <-got })
		return c, got, act
	}
	t.Run("read", func(t *testing.T) {
		t.Parallel()
		c, got, act := start(t)
		ctx, cancel := context.WithCancel(context.Background())
		mem := fill(4096, 0xcc)
		end := make(chan error, 1)
		go func() { end <- c.ReadAt(ctx, mem, 0) }()
		s := <-got
		cancel()
		if err := <-end; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		// The late answer must not reach the memory, and the session goes on.
		act <- func(f *fake) { f.send(data(f.to(s.r), nbd.ChunkDone, 0, fill(4096, 1))) }
		go func() {
			s := <-got
			act <- func(f *fake) { f.answer(s.r, nbd.OK) }
		}()
		if err := c.Flush(context.Background()); err != nil {
			t.Error(err)
		}
		if !bytes.Equal(mem, fill(4096, 0xcc)) {
			t.Error("memory was touched after the call had returned")
		}
	})
	t.Run("read in the middle of its data", func(t *testing.T) {
		t.Parallel()
		c, got, act := start(t)
		ctx, cancel := context.WithCancel(context.Background())
		mem := fill(4096, 0xcc)
		end := make(chan error, 1)
		go func() { end <- c.ReadAt(ctx, mem, 0) }()
		s := <-got
		act <- func(f *fake) {
			b := data(f.to(s.r), 0, 0, fill(2000, 1))
			f.send(b[:1000])
			cancel()
			time.Sleep(10 * time.Millisecond)
			f.send(b[1000:])
			f.send(data(f.to(s.r), nbd.ChunkDone, 2000, fill(2096, 1)))
		}
		if err := <-end; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		keep := bytes.Clone(mem)
		go func() {
			s := <-got
			act <- func(f *fake) { f.answer(s.r, nbd.OK) }
		}()
		if err := c.Flush(context.Background()); err != nil {
			t.Error(err)
		}
		if !bytes.Equal(mem, keep) {
			t.Error("memory was touched after the call had returned")
		}
	})
	t.Run("write waits for the server", func(t *testing.T) {
		t.Parallel()
		c, got, act := start(t)
		ctx, cancel := context.WithCancel(context.Background())
		end := make(chan error, 1)
		go func() { end <- c.WriteAt(ctx, fill(4096, 1), 0, 0) }()
		s := <-got
		cancel()
		select {
		case err := <-end:
			t.Errorf("returned while the server was at it: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		act <- func(f *fake) { f.answer(s.r, nbd.OK) }
		if err := <-end; err != nil {
			t.Error(err)
		}
	})
	t.Run("write to a stuck server", func(t *testing.T) {
		t.Parallel()
		c, got, act := start(t)
		ctx, cancel := context.WithCancel(context.Background())
		end := make(chan error, 1)
		go func() { end <- c.WriteAt(ctx, fill(4096, 1), 0, 0) }()
		<-got
		cancel()
		if err := <-end; !errors.Is(err, ErrDisconnected) {
			t.Error(err)
		}
		act <- func(*fake) {}
	})
	t.Run("large write to a stuck server", func(t *testing.T) {
		t.Parallel()
		c, got, act := start(t)
		end := make(chan error, 1)
		go func() { end <- c.Flush(context.Background()) }()
		<-got                          // the fake reads no more
		c.conns[0].awaitSending(false) // the flush has arrived, but its sender may not be back
		ctx, cancel := context.WithCancel(context.Background())
		go func() { end <- c.WriteAt(ctx, make([]byte, fakeSize), 0, 0) }()
		c.conns[0].awaitSending(true)
		cancel()
		for range 2 {
			if err := <-end; !errors.Is(err, ErrDisconnected) {
				t.Error(err)
			}
		}
		act <- func(*fake) {}
	})
	t.Run("queued behind a stuck write", func(t *testing.T) {
		t.Parallel()
		c, got, act := start(t)
		end := make(chan error, 1)
		bg := context.Background()
		go func() { end <- c.WriteAt(bg, fill(512, 1), 0, 0) }()
		s := <-got // the fake reads no more until told
		c.conns[0].awaitSending(false)
		// More than the socket takes: the sender is stuck.
		go func() { end <- c.WriteAt(bg, make([]byte, fakeSize), 0, 0) }()
		c.conns[0].awaitSending(true)
		ctx, cancel := context.WithCancel(bg)
		time.AfterFunc(10*time.Millisecond, cancel)
		if err := c.WriteZeroes(ctx, 0, 512, 0); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		act <- func(f *fake) { f.answer(s.r, nbd.OK) }
		s = <-got
		act <- func(f *fake) { f.answer(s.r, nbd.OK) }
		for range 2 {
			if err := <-end; err != nil {
				t.Error(err)
			}
		}
	})
}

// awaitSending waits until something is being sent, or nothing is.
func (c *conn) awaitSending(sending bool) {
	for c.isSending() != sending {
		time.Sleep(time.Millisecond)
	}
}

func (c *conn) isSending() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flushing
}

func TestClose(t *testing.T) {
	t.Parallel()
	polite := make(chan bool, 1)
	c := dial(t, fake{}.config(t, func(f *fake) {
		f.request()
		r, _, _ := f.request()
		polite <- r.Command == nbd.CmdDisconnect
	}))
	end := make(chan error, 1)
	go func() { end <- c.ReadAt(context.Background(), make([]byte, 512), 0) }()
	for c.conns[0].load.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-end; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := c.Flush(context.Background()); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if !<-polite {
		t.Error("no DISC was sent")
	}
}

// A connection that breaks ends the others.
func TestOneBreaksAll(t *testing.T) {
	t.Parallel()
	f := fake{flags: nbd.FlagCanMultiConn}
	reads := make(chan func(), 8)
	cfg := f.config(t, func(f *fake) {
		if _, _, ok := f.request(); ok {
			reads <- func() { f.nc.Close() }
		}
		f.request()
	})
	cfg.Connections = 3
	c := dial(t, cfg)
	if c.Connections() != 3 {
		t.Fatalf("%d connections", c.Connections())
	}
	end := make(chan error, 3)
	var breakOne func()
	for range 3 {
		// One after the other: a read goes to the connection with the least in flight,
		// and two that begin together may both find the same one idle.
		go func() { end <- c.ReadAt(context.Background(), make([]byte, 512), 0) }()
		breakOne = <-reads
	}
	breakOne()
	for range 3 {
		if err := <-end; !errors.Is(err, ErrDisconnected) {
			t.Error(err)
		}
	}
}

func TestWriteFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	content := make([]byte, 300<<10)
	_, _ = rand.Read(content)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	got := make(chan []byte, 2)
	c := dial(t, fake{}.config(t, func(f *fake) {
		for r, p, ok := f.request(); ok; r, p, ok = f.request() {
			got <- p
			f.answer(r, nbd.OK)
		}
	}))
	ctx := context.Background()
	if err := c.WriteFile(ctx, 4096, int(file.Fd()), 1000, 200<<10, 0); err != nil || !bytes.Equal(<-got, content[1000:][:200<<10]) {
		t.Errorf("%v", err)
	}
	// A file that is too short fails the request and leaves the stream in step.
	if err := c.WriteFile(ctx, 0, int(file.Fd()), 299<<10, 4<<10, 0); err == nil || errors.Is(err, ErrDisconnected) {
		t.Errorf("short file: %v", err)
	}
	<-got
	if err := c.WriteFile(ctx, 0, 1<<20, 0, 512, 0); !errors.Is(err, syscall.EBADF) {
		t.Errorf("bad descriptor: %v", err)
	}
	<-got
	if err := c.Flush(ctx); err != nil {
		t.Error(err)
	}
	<-got
}

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// withTLS makes a fake accept STARTTLS; extra is sent in the clear after the answer.
func withTLS(cert tls.Certificate, extra []byte) func(*fake, nbd.Option, []byte) bool {
	return func(f *fake, o nbd.Option, _ []byte) bool {
		if o != nbd.OptStartTLS {
			return false
		}
		f.send(append(nbd.AppendOptionReply(nil, o, nbd.RepAck, nil), extra...))
		f.nc = tls.Server(f.nc, &tls.Config{Certificates: []tls.Certificate{cert}})
		return true
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	cert, pool := certificate(t)
	mem := make([]byte, fakeSize)
	cfg := fake{mode: nbd.Structured, option: withTLS(cert, nil)}.config(t, func(f *fake) {
		for r, p, ok := f.request(); ok; r, p, ok = f.request() {
			copy(mem[r.Offset:], p)
			if r.Command == nbd.CmdRead {
				f.send(data(f.to(r), nbd.ChunkDone, int(r.Offset), mem[r.Offset:][:r.Length]))
			} else {
				f.answer(r, nbd.OK)
			}
		}
	})
	cfg.TLS = &tls.Config{RootCAs: pool}
	c := dial(t, cfg)
	want := make([]byte, 700001)
	_, _ = rand.Read(want)
	got := make([]byte, len(want))
	ctx := context.Background()
	if err := errors.Join(c.WriteAt(ctx, want, 12345, 0), c.ReadAt(ctx, got, 12345)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v", err)
	}
	if !c.Export().TLS || c.CanSendFile() {
		t.Error("the session is not what it seems")
	}
	if err := c.WriteFile(ctx, 0, 0, 0, 512, 0); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("sendfile over TLS: %v", err)
	}
}

// Encryption that was asked for is never done without.
func TestTLSFailsClosed(t *testing.T) {
	t.Parallel()
	cert, pool := certificate(t)
	for name, c := range map[string]struct {
		fake fake
		tls  *tls.Config
		want error
	}{
		"refused":           {fake{}, &tls.Config{RootCAs: pool}, ErrNoTLS},
		"unknown authority": {fake{option: withTLS(cert, nil)}, &tls.Config{RootCAs: x509.NewCertPool()}, nil},
		"wrong host":        {fake{option: withTLS(cert, nil)}, &tls.Config{RootCAs: pool, ServerName: "example.com"}, nil},
		"plaintext after":   {fake{option: withTLS(cert, nbd.AppendOptionReply(nil, nbd.OptStructuredReply, nbd.RepAck, nil))}, &tls.Config{RootCAs: pool}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := c.fake.config(t, nil)
			cfg.TLS, cfg.HandshakeTimeout = c.tls, 5*time.Second
			client, err := Dial(context.Background(), cfg)
			if err == nil {
				client.Close()
				t.Fatal("a session came about")
			}
			if c.want != nil && !errors.Is(err, c.want) {
				t.Error(err)
			}
		})
	}
	// A server without the fixed newstyle has no options at all.
	ours, theirs := net.Pipe()
	go func() {
		_, _ = theirs.Write(nbd.AppendGreeting(nil, 0))
		_, _ = theirs.Read(make([]byte, 4))
		theirs.Close()
	}()
	cfg := Config{Network: "fake", Addr: "x", TLS: &tls.Config{RootCAs: pool},
		Dialer: dialTo(ours)}
	if _, err := Dial(context.Background(), cfg); !errors.Is(err, ErrNoTLS) {
		t.Error(err)
	}
}

// No request allocates.
func TestAllocations(t *testing.T) {
	if raced {
		t.Skip("the race detector allocates")
	}
	c := dial(t, fake{mode: nbd.Structured}.config(t, func(f *fake) {
		hdr, buf := make([]byte, nbd.RequestSize), make([]byte, 8192)
		for {
			if _, err := f.nc.Read(hdr); err != nil {
				return
			}
			var r nbd.Request
			if _, err := r.Decode(hdr, f.mode); err != nil {
				return
			}
			switch r.Command {
			case nbd.CmdRead:
				b := nbd.ReplyTo{Mode: f.mode, Cookie: r.Cookie}.AppendDataHeader(buf[:0], nbd.ChunkDone, r.Offset, 4096)
				_, _ = f.nc.Write(buf[:len(b)+4096])
			case nbd.CmdWrite:
				_, _ = f.nc.Read(buf[:4096])
				fallthrough
			default:
				_, _ = f.nc.Write(nbd.ReplyTo{Mode: f.mode, Cookie: r.Cookie}.AppendNone(buf[:0]))
			}
		}
	}))
	p := make([]byte, 4096)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for name, run := range map[string]func() error{
		"read":  func() error { return c.ReadAt(ctx, p, 4096) },
		"write": func() error { return c.WriteAt(ctx, p, 4096, 0) },
		"zero":  func() error { return c.WriteZeroes(ctx, 4096, 4096, 0) },
	} {
		if n := testing.AllocsPerRun(500, func() {
			if err := run(); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// Cancelled at any moment, a read leaves its memory alone from then on.
func TestCancelAtAnyTime(t *testing.T) {
	t.Parallel()
	c := dial(t, fake{mode: nbd.Structured}.config(t, func(f *fake) {
		var held []nbd.Request
		for r, _, ok := f.request(); ok; r, _, ok = f.request() {
			// Answers come late and in another order.
			if held = append(held, r); len(held) < 3 {
				continue
			}
			r, held = held[1], append(held[:1], held[2:]...)
			b := data(f.to(r), 0, int(r.Offset), fill(int(r.Length/2), 1))
			f.send(append(b, data(f.to(r), nbd.ChunkDone, int(r.Offset+r.Length/2), fill(int(r.Length/2), 1))...))
		}
	}))
	var group sync.WaitGroup
	for w := range 6 {
		group.Go(func() {
			for i := range 100 {
				mem := make([]byte, 16<<10<<(i%3))
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration((i*7+w)%20)*50*time.Microsecond)
				err := c.ReadAt(ctx, mem, 0)
				cancel()
				if err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
					return
				}
				for j := range mem {
					mem[j] = 0xcc
				}
				time.Sleep(100 * time.Microsecond)
				if !bytes.Equal(mem, fill(len(mem), 0xcc)) {
					t.Error("memory was touched after the call had returned")
					return
				}
			}
		})
	}
	group.Wait()
}
