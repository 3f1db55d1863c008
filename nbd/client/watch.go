package client

import (
	"fmt"
	"syscall"
	"time"

	"github.com/vmdisk/vmdisk/nbd"
)

// slowFactor is how many times Config.Timeout a server may take over what it
// cannot answer piece by piece: a flush that writes out a page cache of many
// gigabytes, a zero or trim of a terabyte.
const slowFactor = 10

// Bounds on the time between two looks at a connection.
const (
	minLook = 5 * time.Millisecond
	maxLook = time.Second
)

// watch ends a session whose server stays silent for too long with requests in
// flight. Progress is anything that is received, and whatever a stuck socket takes:
// a slow server, or link, is not a dead one. It ends with the session.
//
// Looking now and then, instead of giving each request a timer, costs the hot path
// one addition for each system call.
func (c *Client) watch(timeout time.Duration) {
	look := min(max(timeout/16, minLook), maxLook)
	if timeout < 0 {
		look = maxLook
	}
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case <-c.ended:
			return
		case now := <-tick.C:
			for _, conn := range c.conns {
				conn.look(now, timeout)
			}
		}
	}
}

// look notes since when a connection waits, and fails it if that is too long.
func (c *conn) look(now time.Time, timeout time.Duration) {
	pulse := c.pulse.Load()
	switch since := c.since.Load(); {
	case c.load.Load() == 0:
		c.since.Store(0)
	case since == 0 || pulse != c.seen:
		c.since.Store(now.UnixNano())
	case timeout < 0:
	default:
		silent := time.Duration(now.UnixNano() - since)
		if silent >= timeout && (silent >= slowFactor*timeout || !c.client.slow()) {
			c.fail(fmt.Errorf("no answer for %v: %w", silent.Round(time.Millisecond), syscall.ETIMEDOUT))
		}
	}
	c.seen = pulse
}

// stalled is how long the connection has been waiting without progress.
func (c *conn) stalled() time.Duration {
	if since := c.since.Load(); since != 0 {
		return max(0, time.Duration(time.Now().UnixNano()-since))
	}
	return 0
}

// Waiting is how long the server has been silent though it has requests to
// answer, to within a second or two.
func (c *Client) Waiting() (longest time.Duration) {
	for _, conn := range c.conns {
		longest = max(longest, conn.stalled())
	}
	return longest
}

// slow reports whether a request is in flight that takes long on some servers; on
// any connection, since many servers do one thing at a time.
func (c *Client) slow() bool {
	for _, conn := range c.conns {
		if conn.slow() {
			return true
		}
	}
	return false
}

func (c *conn) slow() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.slots {
		if r != nil && r.slow() {
			return true
		}
	}
	return false
}

func (r *Request) slow() bool {
	switch r.Command {
	case nbd.CmdFlush, nbd.CmdTrim, nbd.CmdWriteZeroes, nbd.CmdCache:
		return true
	}
	return r.Flags&nbd.CmdFlagFUA != 0
}
