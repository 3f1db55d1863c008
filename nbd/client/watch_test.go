package client

import (
	"context"
	"errors"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/nbd"
	"golang.org/x/sys/unix"
)

// deaf takes requests and answers none.
func deaf(f *fake) { _, _ = io.Copy(io.Discard, f.nc) }

// A server that takes requests and answers nothing ends the session, whatever it
// was asked.
func TestDeafServer(t *testing.T) {
	t.Parallel()
	bg := context.Background()
	for name, ask := range map[string]func(c *Client) error{
		"read":    func(c *Client) error { return c.ReadAt(bg, make([]byte, 4096), 0) },
		"write":   func(c *Client) error { return c.WriteAt(bg, make([]byte, 16<<10), 0, 0) },
		"flush":   func(c *Client) error { return c.Flush(bg) },
		"zero":    func(c *Client) error { return c.WriteZeroes(bg, 0, 4096, 0) },
		"pipe":    func(c *Client) error { return askPipe(t, c) },
		"large":   func(c *Client) error { return c.WriteAt(bg, make([]byte, 4<<20), 0, 0) },
		"extents": func(c *Client) error { _, err := c.BlockStatus(bg, 0, 0, 4096, nil); return err },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := fake{mode: nbd.Extended, flags: nbd.FlagCanMultiConn}.config(t, deaf)
			cfg.Timeout, cfg.Connections = 50*time.Millisecond, 2
			c := dial(t, cfg)
			done := make(chan struct{})
			var err error
			go func() { defer close(done); err = ask(c) }()
			within(t, done, "the request")
			if !errors.Is(err, ErrDisconnected) || !errors.Is(err, syscall.ETIMEDOUT) {
				t.Errorf("%v", err)
			}
		})
	}
}

// askPipe sends a read by a connection of its own and waits for its end.
func askPipe(t *testing.T, c *Client) error {
	p := c.Pipe()
	if p == nil {
		t.Fatal("no connection to take")
	}
	defer p.Close()
	end := newCounted()
	p.Start(&Request{Command: nbd.CmdRead, Length: 4096, Vec: [][]byte{make([]byte, 4096)}, Owner: end})
	for end.n.Load() == 0 {
		fd, events := p.Events()
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, 1000)
		_ = p.Receive(context.Background())
	}
	return end.err
}

// What is slow but moves, and what may take long as a whole, is waited for.
func TestSlowServer(t *testing.T) {
	t.Parallel()
	// Many drops make a time-out, so that a busy machine does not make silence of the pauses.
	const timeout, pause = 3 * time.Second, 30 * time.Millisecond
	bg := context.Background()
	for _, c := range []struct {
		name   string
		script func(f *fake)
		ask    func(c *Client) error
	}{
		{"a flush of two time-outs", func(f *fake) {
			r, _, _ := f.request()
			time.Sleep(2 * timeout)
			f.answer(r, nbd.OK)
		}, func(c *Client) error { return c.Flush(bg) }},
		{"a read that drips", func(f *fake) {
			r, _, _ := f.request()
			b := append(nbd.AppendSimpleReply(nil, r.Cookie, nbd.OK), make([]byte, r.Length)...)
			for len(b) > 0 {
				f.send(b[:64])
				b = b[min(64, len(b)):]
				time.Sleep(pause)
			}
		}, func(c *Client) error { return c.ReadAt(bg, make([]byte, 64*120-nbd.SimpleReplySize), 0) }},
		{"a write that is taken in drops", func(f *fake) {
			h := f.read(f.mode.RequestHeaderSize())
			var r nbd.Request
			_, _ = r.Decode(h, f.mode)
			for left := int(r.Length); left > 0; left -= 64 << 10 {
				f.read(64 << 10)
				time.Sleep(pause)
			}
			f.answer(r, nbd.OK)
		}, func(c *Client) error { return c.WriteAt(bg, make([]byte, 8<<20), 0, 0) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := fake{mode: nbd.Simple}.config(t, c.script)
			cfg.Timeout = timeout
			if err := c.ask(dial(t, cfg)); err != nil {
				t.Error(err)
			}
		})
	}
}

// Without a time-out a request waits, and the client says for how long.
func TestWaiting(t *testing.T) {
	t.Parallel()
	cfg := fake{mode: nbd.Simple}.config(t, deaf)
	cfg.Timeout = -1
	c := dial(t, cfg)
	if w := c.Waiting(); w != 0 {
		t.Errorf("an idle session waits for %v", w)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	end := make(chan struct{})
	go func() { defer close(end); _ = c.WriteAt(ctx, make([]byte, 512), 0, 0) }()
	for begin := time.Now(); c.Waiting() < CancelGrace; time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > 20*time.Second {
			t.Fatal("the client does not tell that it waits")
		}
	}
	// A write is waited for when it is cancelled, but not by those who have waited already.
	start := time.Now()
	cancel()
	within(t, end, "the cancelled write")
	if took := time.Since(start); took >= CancelGrace {
		t.Errorf("the end of a silent session took %v", took)
	}
}
