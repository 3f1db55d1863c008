package client

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// A server that takes requests and answers nothing ends each of them, though it would
// be tried again for an hour if it hung up.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	url, _ := scripted(t, modern(allFeatures, func(turn) (string, bool) { <-hang; return "", true }))
	t.Cleanup(func() { close(hang) })
	for name, ask := range map[string]func(ctx context.Context, c *Client) error{
		"read":     func(ctx context.Context, c *Client) error { return c.ReadAt(ctx, make([]byte, 10), 0) },
		"write":    func(ctx context.Context, c *Client) error { return c.WriteAt(ctx, make([]byte, 64<<10), 0) },
		"zero":     func(ctx context.Context, c *Client) error { return c.Zero(ctx, 0, 4096) },
		"flush":    func(ctx context.Context, c *Client) error { return c.Flush(ctx) },
		"checksum": func(ctx context.Context, c *Client) error { _, err := c.Checksum(ctx, "", 0); return err },
		"extents": func(ctx context.Context, c *Client) error {
			return c.Extents(ctx, "zero", 0, 10, func(Extent) bool { return true })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, url, func(cfg *Config) { cfg.Retry, cfg.Timeout = time.Hour, 50*time.Millisecond })
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if err := ask(ctx, c); !errors.Is(err, ErrSilent) {
				t.Errorf("%v", err)
			}
		})
	}
}

// So does one that takes connections and does not even begin TLS.
func TestSilentTLS(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // the backlog takes the connection
	_, err = Dial(t.Context(), Config{URL: "https://" + l.Addr().String() + "/images/t", TLS: &tls.Config{}, Timeout: 100 * time.Millisecond})
	if !errors.Is(err, ErrSilent) || !strings.Contains(err.Error(), "no connection within 100ms") {
		t.Errorf("%v", err)
	}
}

// A flush may take longer than the time-out, and without one a request waits, which
// the client tells.
func TestSlowServer(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	url, _ := scripted(t, modern(allFeatures, func(turn) (string, bool) { <-hang; return reply(200, "", ""), false }))
	c := dial(t, url, func(cfg *Config) { cfg.Timeout = 300 * time.Millisecond })
	forever := dial(t, url, func(cfg *Config) { cfg.Timeout = -1 })
	var group sync.WaitGroup
	for _, c := range []*Client{c, forever} {
		group.Go(func() {
			if err := c.Flush(t.Context()); err != nil {
				t.Error(err)
			}
		})
		for begin := time.Now(); c.Waiting() < 2*300*time.Millisecond; time.Sleep(time.Millisecond) {
			if time.Since(begin) > 20*time.Second {
				t.Fatal("the client does not tell that it waits")
			}
		}
	}
	close(hang)
	group.Wait()
	if w := c.Waiting(); w != 0 {
		t.Errorf("a client without a request waits for %v", w)
	}
}

// A long body that a slow link takes in drops is progress.
func TestSlowLink(t *testing.T) {
	t.Parallel()
	const timeout, size, drop = time.Second, 4 << 20, 128 << 10
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		r := bufio.NewReader(nc)
		for line := ""; line != "\r\n"; {
			if line, err = r.ReadString('\n'); err != nil {
				return
			}
		}
		for range size / drop {
			if _, err := io.CopyN(io.Discard, r, drop); err != nil {
				return
			}
			time.Sleep(timeout / 16)
		}
		_, _ = io.WriteString(nc, reply(200, "", ""))
	})
	nc, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := newConn(nc, true, timeout, &waits{})
	if a, err := c.roundTrip("h", &call{method: "PUT", path: "/", body: make([]byte, size)}); err != nil || a.status != 200 {
		t.Error(err)
	}
}
