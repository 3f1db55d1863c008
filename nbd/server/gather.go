package server

import (
	"time"

	"github.com/vmdisk/vmdisk/uring"
)

// A client with many requests in flight that is slower than the server gets each
// reply before it needs it, and finds the server asleep whenever it sends the next
// request, so that it pays for a wake-up each time, and the server for a system call
// to receive one request and another to answer it. So where a client is behind, the
// server waits a little before it receives, without being woken, and finds several
// requests. Neither side loses time: the client is busy with the replies it has.
//
// fio at depth 16 on a unix socket took 10.0 us of processor time for each read of
// 4 KiB without this, and 6.3 with it.

// gatherer finds out whether a connection's client is behind, and by how much.
//
// The pause grows while the client still has replies to read when the next are
// ready, and is halved when it has none, for then it may have waited. There is no
// pause unless it has several replies to read; so a client with few requests in
// flight, which the server would only keep waiting, is never kept waiting.
type gatherer struct {
	pause  time.Duration
	unread int // bytes that the client had not read before the last replies, as the kernel counts them
	each   int // such bytes for each reply, on the average
	behind int // how many replies the client has to read
}

const (
	gatherStep = 500 * time.Nanosecond
	gatherMin  = 5 * time.Microsecond // shorter ones cost more than they save
	gatherMax  = 30 * time.Microsecond
	// gathered is a batch that is large enough.
	gathered = 8
	// farBehind is how many replies a client has to have to read.
	farBehind = 6
)

// replying is called when replies are ready to be sent to the unix socket fd. What the
// kernel counts as unread there is more than their bytes, and a buffer counts until all
// of it was read. (TCP tells what was not acknowledged, which on a network is never
// nothing.)
func (g *gatherer) replying(fd int) {
	g.behind = 0
	if g.unread = uring.Unsent(fd); g.unread == 0 {
		g.pause /= 2
		return
	}
	g.pause = min(g.pause+gatherStep, gatherMax)
}

// replied is called when n replies were sent there.
func (g *gatherer) replied(fd, n int) {
	if g.unread == 0 || n == 0 {
		return
	}
	now := uring.Unsent(fd)
	each := max(now-g.unread, 1) / n // less if the peer has just read something
	if g.each == 0 {
		g.each = each
	}
	g.each += (each - g.each) / 4
	g.behind = now / max(g.each, 1)
}

// wait is called when a batch of n requests was answered, before the next is received.
func (g *gatherer) wait(n int) {
	if g.pause < gatherMin || n >= gathered || g.behind < farBehind {
		return
	}
	g.behind = 0 // known anew with the next replies
	uring.Nap(g.pause)
}
