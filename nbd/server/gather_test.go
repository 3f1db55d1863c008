package server

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// replyPair is a unix socket on which a server sends replies of size bytes.
type replyPair struct {
	t            *testing.T
	server, peer int
	size         int
	g            gatherer
}

func newReplyPair(t *testing.T, size int) *replyPair {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return &replyPair{t: t, server: fds[0], peer: fds[1], size: size}
}

// reply sends n replies at once, as a batch does.
func (p *replyPair) reply(n int) {
	p.t.Helper()
	p.g.replying(p.server)
	if _, err := unix.Write(p.server, make([]byte, n*p.size)); err != nil {
		p.t.Fatal(err)
	}
	p.g.replied(p.server, n)
}

func (p *replyPair) read(n int) {
	p.t.Helper()
	for left := n * p.size; left > 0; {
		k, err := unix.Read(p.peer, make([]byte, left))
		if err != nil {
			p.t.Fatal(err)
		}
		left -= k
	}
}

// waits reports whether the server would wait after a batch of one request.
func (p *replyPair) waits() bool {
	start := time.Now()
	p.g.wait(1)
	return time.Since(start) >= gatherMin
}

// A client that reads each reply before the next one is ready never waits, whatever its depth.
func TestNoPauseForClientThatKeepsUp(t *testing.T) {
	t.Parallel()
	for _, batch := range []int{1, 7} {
		p := newReplyPair(t, 4116)
		for range 500 {
			p.reply(batch)
			if p.g.pause != 0 || p.g.behind != 0 {
				t.Fatalf("batches of %d: a pause of %v with %d replies unread", batch, p.g.pause, p.g.behind)
			}
			p.read(batch)
		}
	}
}

// One with few requests in flight does not either, though there is always one to read.
func TestNoPauseAtSmallDepth(t *testing.T) {
	t.Parallel()
	for _, size := range []int{16, 4116} {
		p := newReplyPair(t, size)
		p.reply(1)
		p.reply(1)
		for range 500 {
			p.reply(1)
			if p.g.behind >= farBehind {
				t.Fatalf("%d replies of %d bytes are unread, want 3", p.g.behind, size)
			}
			p.read(1)
		}
		if p.g.pause != gatherMax {
			t.Errorf("the pause, if there were one, would be %v", p.g.pause)
		}
	}
}

// One that is behind is waited for, until it has read everything; a large batch is enough.
func TestPauseForClientThatIsBehind(t *testing.T) {
	t.Parallel()
	for _, size := range []int{16, 4116} {
		p := newReplyPair(t, size)
		for range 12 {
			p.reply(1)
		}
		for range 100 {
			p.reply(1)
			p.read(1)
		}
		p.reply(1)
		if p.g.behind < 8 || p.g.behind > 16 {
			t.Errorf("%d replies of %d bytes are unread, want 13", p.g.behind, size)
		}
		if p.g.pause != gatherMax || !p.waits() {
			t.Errorf("replies of %d bytes: no pause (%v) for a client with %d to read", size, p.g.pause, p.g.behind)
		}
		p.read(13)
		p.reply(1)
		if p.g.pause != gatherMax/2 || p.g.behind != 0 {
			t.Errorf("a pause of %v for a client that has read all, with %d unread", p.g.pause, p.g.behind)
		}
	}
}
