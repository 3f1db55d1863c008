package nbd_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/nbd"
	wire "github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/client"
)

const lossyFlags = wire.FlagHasFlags | wire.FlagSendFlush | wire.FlagSendFUA | wire.FlagSendTrim |
	wire.FlagSendWriteZeroes | wire.FlagSendFastZero | wire.FlagCanMultiConn

// verdict is what a hook makes of a request.
type verdict int

const (
	serve   verdict = iota
	hangUp          // before doing it
	forget          // hang up after doing it, without an answer
	garbage         // answer with garbage
	refuse          // answer with the errno of the server
)

// lossy is a server that keeps writes in RAM until a flush or FUA, and loses
// the rest when it is killed: its host died.
type lossy struct {
	t    testing.TB
	path string

	mu       sync.Mutex
	size     int64
	flags    wire.TransmissionFlags
	cache    []byte // what readers see
	durable  []byte // what survives
	hook     func(r *wire.Request) verdict
	errno    wire.Errno
	counts   map[wire.Command]int
	sessions int
	listener net.Listener
	conns    map[net.Conn]bool
	group    sync.WaitGroup
}

func newLossy(t testing.TB, size int64) *lossy {
	t.Helper()
	dir, err := os.MkdirTemp("", "lossy")
	if err != nil {
		t.Fatal(err)
	}
	s := &lossy{t: t, path: filepath.Join(dir, "s"), size: size, flags: lossyFlags, errno: wire.EIO,
		cache: make([]byte, size), durable: make([]byte, size), counts: map[wire.Command]int{}, conns: map[net.Conn]bool{}}
	s.start()
	t.Cleanup(func() {
		s.kill()
		s.group.Wait()
		os.RemoveAll(dir)
	})
	return s
}

func (s *lossy) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, err := net.Listen("unix", s.path)
	if err != nil {
		s.t.Error(err)
		return
	}
	s.listener = l
	s.group.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			if s.listener != l {
				nc.Close()
			}
			s.conns[nc] = true
			s.mu.Unlock()
			s.group.Go(func() { s.serve(nc) })
		}
	})
}

// kill ends the server and loses what was not flushed.
func (s *lossy) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return
	}
	s.listener.Close()
	s.listener = nil
	s.cut()
	copy(s.cache, s.durable)
}

// cut closes all connections; s.mu is held. Nothing of theirs is done any more.
func (s *lossy) cut() {
	for nc := range s.conns {
		nc.Close()
	}
	clear(s.conns)
}

func (s *lossy) crash() {
	s.kill()
	s.start()
}

func (s *lossy) set(hook func(r *wire.Request) verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = hook
}

func (s *lossy) count(c wire.Command) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[c]
}

func (s *lossy) content() (cache, durable []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]byte(nil), s.cache...), append([]byte(nil), s.durable...)
}

func (s *lossy) serve(nc net.Conn) {
	defer nc.Close()
	read := func(n int) []byte {
		b := make([]byte, n)
		if _, err := io.ReadFull(nc, b); err != nil {
			return nil
		}
		return b
	}
	_, _ = nc.Write(wire.AppendGreeting(nil, wire.FlagFixedNewstyle|wire.FlagNoZeroes))
	read(wire.ClientFlagsSize)
	for {
		h, err := wire.DecodeOptionHeader(read(wire.OptionHeaderSize))
		if err != nil {
			return
		}
		read(int(h.Len))
		if h.Option != wire.OptGo {
			_, _ = nc.Write(wire.AppendOptionReply(nil, h.Option, wire.RepErrUnsupported, nil))
			continue
		}
		s.mu.Lock()
		info := wire.Info{Type: wire.InfoExport, Size: uint64(s.size), Flags: s.flags}
		s.sessions++
		s.mu.Unlock()
		b := wire.AppendOptionReply(nil, h.Option, wire.RepInfo, info.Append(nil))
		b = wire.AppendOptionReply(b, h.Option, wire.RepInfo, wire.Info{Type: wire.InfoBlockSize, Min: 1, Preferred: 4096, Max: 32 << 20}.Append(nil))
		_, _ = nc.Write(wire.AppendOptionReply(b, h.Option, wire.RepAck, nil))
		break
	}
	for {
		var r wire.Request
		if _, err := r.Decode(read(wire.RequestSize), wire.Simple); err != nil || r.Command == wire.CmdDisconnect {
			return
		}
		var p []byte
		if r.Command == wire.CmdWrite {
			if p = read(int(r.Length)); p == nil {
				return
			}
		}
		answer := s.do(nc, &r, p)
		if answer == nil {
			return
		}
		_, _ = nc.Write(answer)
	}
}

// do does one request; nil hangs up.
func (s *lossy) do(nc net.Conn, r *wire.Request, p []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.conns[nc] {
		return nil
	}
	v := serve
	if s.hook != nil {
		v = s.hook(r)
	}
	switch v {
	case hangUp:
		return nil
	case garbage:
		return make([]byte, 64)
	case refuse:
		return wire.AppendSimpleReply(nil, r.Cookie, s.errno)
	}
	s.counts[r.Command]++
	b := wire.AppendSimpleReply(nil, r.Cookie, wire.OK)
	at := s.cache[r.Offset:]
	switch r.Command {
	case wire.CmdRead:
		b = append(b, at[:r.Length]...)
	case wire.CmdWrite:
		copy(at, p)
	case wire.CmdWriteZeroes:
		clear(at[:r.Length])
	case wire.CmdFlush:
		copy(s.durable, s.cache)
	}
	if r.Flags&wire.CmdFlagFUA != 0 {
		copy(s.durable[r.Offset:r.Offset+r.Length], at)
	}
	if v == forget {
		return nil
	}
	return b
}

func (s *lossy) config() nbd.Config {
	return nbd.Config{Client: client.Config{Network: "unix", Addr: s.path, Connections: 2},
		Reconnect: nbd.Reconnect{Delay: 2 * time.Millisecond, MaxDelay: 10 * time.Millisecond, Limit: 20 * time.Second}}
}

func (s *lossy) open(edit func(*nbd.Config)) *disk.Disk {
	s.t.Helper()
	cfg := s.config()
	if edit != nil {
		edit(&cfg)
	}
	d, err := nbd.Open(context.Background(), cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := d.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			s.t.Error(err)
		}
	})
	return d
}
