package client

import (
	"context"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/nbd"
	"golang.org/x/sys/unix"
)

const (
	fakeSize  = 8 << 20
	fakeFlags = nbd.FlagHasFlags | nbd.FlagSendFlush | nbd.FlagSendFUA | nbd.FlagSendTrim | nbd.FlagSendWriteZeroes | nbd.FlagSendDF | nbd.FlagSendFastZero | nbd.FlagSendCache
	contextID = 7
)

// fake is a scripted server on one end of a socket pair.
type fake struct {
	t     testing.TB
	nc    net.Conn
	mode  nbd.Mode
	flags nbd.TransmissionFlags
	info  *nbd.Info // block sizes
	// option, if not nil, answers options before the usual answers do.
	option func(f *fake, o nbd.Option, data []byte) (done bool)
	// goAnswer, if not nil, answers GO whole.
	goAnswer func(f *fake, o nbd.Option, data []byte) bool
}

func socketPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conn := func(fd int) net.Conn {
		f := os.NewFile(uintptr(fd), "socket")
		defer f.Close()
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	return conn(fds[0]), conn(fds[1])
}

// config returns a configuration whose connections each go to a fake that runs
// script after the handshake; the test waits for it.
func (f fake) config(t testing.TB, script func(f *fake)) Config {
	t.Helper()
	return Config{Network: "fake", Addr: "fake", Dialer: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := socketPair(t)
		s := f
		s.t, s.nc = t, theirs
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			defer theirs.Close()
			if s.handshake() && script != nil {
				script(&s)
			}
		}()
		t.Cleanup(func() { theirs.Close(); <-ended })
		return ours, nil
	}}
}

func (f *fake) send(b []byte) { _, _ = f.nc.Write(b) }

func (f *fake) read(n int) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(f.nc, b); err != nil {
		return nil
	}
	return b
}

func (f *fake) handshake() bool {
	f.send(nbd.AppendGreeting(nil, nbd.FlagFixedNewstyle|nbd.FlagNoZeroes))
	f.read(nbd.ClientFlagsSize)
	for {
		h, err := nbd.DecodeOptionHeader(f.read(nbd.OptionHeaderSize))
		if err != nil {
			return false
		}
		data := f.read(int(h.Len))
		if f.goAnswer != nil && f.goAnswer(f, h.Option, data) {
			return true
		}
		if f.option != nil && f.option(f, h.Option, data) {
			continue
		}
		if f.usual(h.Option) {
			return true
		}
	}
}

func (f *fake) reply(o nbd.Option, t nbd.OptionReplyType, data []byte) {
	f.send(nbd.AppendOptionReply(nil, o, t, data))
}

// usual answers an option; true ends the handshake.
func (f *fake) usual(o nbd.Option) bool {
	switch {
	case o == nbd.OptExtendedHeaders && f.mode == nbd.Extended, o == nbd.OptStructuredReply && f.mode == nbd.Structured:
	case o == nbd.OptSetMetaContext:
		f.reply(o, nbd.RepMetaContext, nbd.AppendMetaContext(nil, contextID, nbd.ContextAllocation))
	case o == nbd.OptGo:
		f.reply(o, nbd.RepInfo, nbd.Info{Type: nbd.InfoExport, Size: fakeSize, Flags: fakeFlags | f.flags}.Append(nil))
		if f.info != nil {
			f.reply(o, nbd.RepInfo, f.info.Append(nil))
		}
	case o == nbd.OptExportName:
		f.send(nbd.AppendExportNameReply(nil, fakeSize, fakeFlags|f.flags, true))
		return true
	default:
		f.reply(o, nbd.RepErrUnsupported, []byte("no such option"))
		return false
	}
	f.reply(o, nbd.RepAck, nil)
	return o == nbd.OptGo
}

// request reads the next request and the payload of a write; false at the end.
func (f *fake) request() (r nbd.Request, payload []byte, ok bool) {
	b := f.read(f.mode.RequestHeaderSize())
	if b == nil {
		return r, nil, false
	}
	if _, err := r.Decode(b, f.mode); err != nil {
		f.t.Errorf("the client sent a malformed request: %v", err)
		return r, nil, false
	}
	if r.Command == nbd.CmdWrite {
		if payload = f.read(int(r.Length)); payload == nil {
			return r, nil, false
		}
	}
	return r, payload, r.Command != nbd.CmdDisconnect
}

func (f *fake) to(r nbd.Request) nbd.ReplyTo {
	return nbd.ReplyTo{Mode: f.mode, Cookie: r.Cookie, Offset: r.Offset}
}

// answer sends a whole reply without data: success or an error.
func (f *fake) answer(r nbd.Request, e nbd.Errno) {
	switch {
	case f.mode == nbd.Simple:
		f.send(nbd.AppendSimpleReply(nil, r.Cookie, e))
	case e != nbd.OK:
		f.send(f.to(r).AppendError(nil, nbd.ChunkDone, e, "no"))
	default:
		f.send(f.to(r).AppendNone(nil))
	}
}

func eachMode(t *testing.T, test func(t *testing.T, m nbd.Mode)) {
	for _, m := range []nbd.Mode{nbd.Simple, nbd.Structured, nbd.Extended} {
		t.Run(m.String(), func(t *testing.T) {
			t.Parallel()
			test(t, m)
		})
	}
}

// counted counts completions.
type counted struct {
	n   atomic.Int32
	err error
	end chan struct{}
}

func (c *counted) Complete(_ *Request, err error) {
	if c.n.Add(1) == 1 {
		c.err = err
		close(c.end)
	}
}

func newCounted() *counted { return &counted{end: make(chan struct{})} }

// within fails the test if ch does not close soon.
func within(t testing.TB, ch <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: did not end", what)
	}
}

// dialTo is a Dialer that hands out one connection.
func dialTo(nc net.Conn) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) { return nc, nil }
}
