package client

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/nbd"
	"golang.org/x/sys/unix"
)

// pipeTo opens a session of two connections with a fake and takes one.
func pipeTo(t *testing.T, f fake, script func(f *fake)) (*Client, *Pipe) {
	t.Helper()
	f.flags |= nbd.FlagCanMultiConn
	cfg := f.config(t, script)
	cfg.Connections = 2
	c := dial(t, cfg)
	p := c.Pipe()
	if p == nil {
		t.Fatal("no pipe")
	}
	t.Cleanup(func() { _ = p.Close() })
	return c, p
}

// pump waits for the pipe until all requests have ended.
func pump(t *testing.T, ctx context.Context, p *Pipe, rs []*Request) {
	t.Helper()
	left := func() (n int) {
		for _, r := range rs {
			if r.Owner.(*counted).n.Load() == 0 {
				n++
			}
		}
		return n
	}
	for end := time.Now().Add(20 * time.Second); left() > 0; {
		if time.Now().After(end) {
			t.Fatalf("%d requests did not end", left())
		}
		fd, events := p.Events()
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, 1000); err != nil && err != unix.EINTR {
			t.Fatal(err)
		}
		if p.Receive(ctx) != nil && left() > 0 {
			t.Fatalf("%d requests outlived the session", left())
		}
	}
}

func readRequest(off, n int64) *Request {
	return &Request{Command: nbd.CmdRead, Offset: off, Length: n, Vec: [][]byte{make([]byte, n)}, Owner: newCounted()}
}

func writeRequest(off int64, p ...[]byte) *Request {
	r := &Request{Command: nbd.CmdWrite, Offset: off, Vec: p, Owner: newCounted()}
	for _, part := range p {
		r.Length += int64(len(part))
	}
	return r
}

// store is memory that fakes serve.
type store struct {
	sync.Mutex
	mem [fakeSize]byte
}

func (s *store) write(p []byte, off uint64) {
	s.Lock()
	defer s.Unlock()
	copy(s.mem[off:], p)
}

func (s *store) read(off, n uint64) []byte {
	s.Lock()
	defer s.Unlock()
	return bytes.Clone(s.mem[off : off+n])
}

// serve does reads and writes, one after the other.
func (s *store) serve(f *fake) {
	for r, p, ok := f.request(); ok; r, p, ok = f.request() {
		switch {
		case r.Command != nbd.CmdRead:
			s.write(p, r.Offset)
			f.answer(r, nbd.OK)
		case f.mode == nbd.Simple:
			f.send(append(nbd.AppendSimpleReply(nil, r.Cookie, 0), s.read(r.Offset, r.Length)...))
		default:
			f.send(data(f.to(r), nbd.ChunkDone, int(r.Offset), s.read(r.Offset, r.Length)))
		}
	}
}

func TestPipe(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m nbd.Mode) {
		c, p := pipeTo(t, fake{mode: m}, new(store).serve)
		if c.Pipe() != nil {
			t.Error("the last connection was given away")
		}
		// Small and large, in one piece and several, more than the socket takes and
		// more than the server can answer before it reads on: nobody may wait for
		// the other for ever.
		var writes, reads []*Request
		for i := range 40 {
			n := []int{512, 4096, 16 << 10, 200000}[i%4]
			part := fill(n, byte(i+1))
			writes = append(writes, writeRequest(int64(i)*(200<<10), part[:100], part[100:]))
			reads = append(reads, readRequest(int64(i)*(200<<10), int64(n)))
		}
		p.Start(writes...)
		pump(t, t.Context(), p, writes)
		p.Start(append(reads[:20:20], writes...)...)
		p.Start(reads[20:]...)
		pump(t, t.Context(), p, reads)
		for i, r := range reads {
			if err := r.Owner.(*counted).err; err != nil || !bytes.Equal(r.Vec[0], fill(int(r.Length), byte(i+1))) {
				t.Errorf("read %d: %v", i, err)
			}
		}
		if err := c.ReadAt(t.Context(), make([]byte, 512), 0); err != nil {
			t.Errorf("the session's other connection: %v", err)
		}
	})
}

// Start does not wait for a server that takes nothing.
func TestPipeDoesNotBlock(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	disk := new(store)
	_, p := pipeTo(t, fake{}, func(f *fake) {
		select {
		case <-release:
		case <-t.Context().Done():
		}
		disk.serve(f)
	})
	var rs []*Request
	for i := range 8 {
		rs = append(rs, writeRequest(int64(i)<<20, fill(1<<20, byte(i+1))))
	}
	p.Start(rs...) // 8 MiB; the socket holds some 2 MiB
	if _, events := p.Events(); events&unix.POLLOUT == 0 {
		t.Fatal("everything was sent, so this test proves nothing")
	}
	cancelled := errors.New("cancelled")
	// One that is not being sent yet would be taken back; these are one batch.
	late := writeRequest(0, fill(512, 9))
	p.Start(late)
	p.c.client.Cancel(late, cancelled)
	if late.Owner.(*counted).err != cancelled {
		t.Error("a queued request was not taken back")
	}
	close(release)
	pump(t, t.Context(), p, rs)
	if !bytes.Equal(disk.read(7<<20, 1<<20), fill(1<<20, 8)) || disk.read(0, 1)[0] != 1 {
		t.Error("wrong data")
	}
}

func TestPipeCancel(t *testing.T) {
	t.Parallel()
	c, p := pipeTo(t, fake{mode: nbd.Structured}, func(f *fake) {
		a, _, _ := f.request()
		b, _, _ := f.request()
		f.send(data(f.to(a), nbd.ChunkDone, 0, fill(4096, 1)))
		f.send(data(f.to(b), nbd.ChunkDone, 0, fill(4096, 2)))
		f.request()
	})
	first, second := readRequest(0, 4096), readRequest(0, 4096)
	p.Start(first)
	cancelled := errors.New("cancelled")
	c.Cancel(first, cancelled)
	if o := first.Owner.(*counted); o.err != cancelled {
		t.Fatal("a read was not given up")
	}
	p.Start(second)
	pump(t, t.Context(), p, []*Request{second})
	if second.Vec[0][0] != 2 || first.Vec[0][0] != 0 {
		t.Error("the late answer went astray")
	}
}

// A reply that begins and does not go on: the context's end is its end.
func TestPipeStalledReply(t *testing.T) {
	t.Parallel()
	_, p := pipeTo(t, fake{mode: nbd.Structured}, func(f *fake) {
		if r, _, ok := f.request(); ok {
			f.send(data(f.to(r), nbd.ChunkDone, 0, fill(4096, 1))[:100])
			f.request()
		}
	})
	r := readRequest(0, 4096)
	p.Start(r)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	pump(t, ctx, p, []*Request{r})
	if err := r.Owner.(*counted).err; !errors.Is(err, ErrDisconnected) {
		t.Error(err)
	}
}

// The end of the session completes a pipe's requests although its owner sleeps.
func TestPipeAborted(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(c *Client){
		"abort":      func(c *Client) { c.Abort() },
		"close":      func(c *Client) { _ = c.Close() },
		"disconnect": func(c *Client) { _ = c.conns[0].nc.Close(); <-c.conns[0].done; c.Abort() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, p := pipeTo(t, fake{}, func(f *fake) {
				f.request()
				f.request()
			})
			r := readRequest(0, 512)
			p.Start(r)
			end(c)
			within(t, r.Owner.(*counted).end, "read")
			if err := p.Receive(t.Context()); err == nil {
				t.Error("the pipe outlived its session")
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
