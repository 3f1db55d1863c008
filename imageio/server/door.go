package server

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// headTime is how long a request may take from its first byte to its end, as far as
	// no ticket vouches for who sends it: its head, and JSON. A limit on each receive
	// alone lets a client hold its connection for a byte a minute.
	headTime = 30 * time.Second
	// freeHead is what a head may take of memory that is not counted: all that honest
	// clients send.
	freeHead = 4 << 10
	// headMemory bounds, in bytes, what all heads take together beyond that.
	headMemory = 8 << 20
	// idleGrace is how long a client that has shown a ticket is idle before its
	// connection may be closed in favour of a new one.
	idleGrace = time.Second
	// maxRefusing bounds the connections that are being told that there is no room;
	// further ones are closed at once.
	maxRefusing   = 64
	refuseTimeout = 2 * time.Second
)

// door counts the connections of a service. Its fields belong to service.mu.
type door struct {
	byAddress map[string]int
	refusing  int
}

// addressOf is what connections are counted by: an IP address, of which a site has
// 2^64 with IPv6, or the user at the other end of a unix socket.
func addressOf(nc net.Conn) string {
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		ip := a.AddrPort().Addr().Unmap().WithZone("")
		if prefix, err := ip.Prefix(64); ip.Is6() && err == nil && !ip.IsLoopback() {
			return prefix.String()
		}
		return ip.String()
	}
	name := "unix"
	u, ok := nc.(*net.UnixConn)
	if !ok {
		return name
	}
	if raw, err := u.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
				name = "uid " + strconv.FormatUint(uint64(cred.Uid), 10)
			}
		})
	}
	return name
}

// admit notes a new connection. Where all places are taken the connection that needs its
// place least is closed; if none does, admit says why there is no place.
func (s *service) admit(c *conn) (why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return "The service is stopping"
	}
	for {
		of := ""
		switch {
		case s.maxPerAddress > 0 && s.door.byAddress[c.address] >= s.maxPerAddress:
			of = c.address
			why = fmt.Sprintf("All %d connections that one address may have are in use", s.maxPerAddress)
		case len(s.conns) >= s.maxClients:
			why = fmt.Sprintf("All %d connections of this service are in use", s.maxClients)
		default:
			s.conns[c] = struct{}{}
			s.group.Add(1)
			s.door.byAddress[c.address]++
			s.metrics.connections.Inc()
			return ""
		}
		victim := s.leastNeeded(of)
		if victim == nil {
			return why
		}
		s.forget(victim)
		victim.cut()
	}
}

// forget gives a connection's place back. The caller holds s.mu.
func (s *service) forget(c *conn) {
	if _, ok := s.conns[c]; !ok {
		return
	}
	delete(s.conns, c)
	if s.door.byAddress[c.address]--; s.door.byAddress[c.address] == 0 {
		delete(s.door.byAddress, c.address)
	}
}

// leastNeeded returns the connection, of one address or of any, that is to yield to a
// new one: of those that have not shown a ticket the one that has been waiting, or
// asking for something, longest; then the one that is idle longest. Honest clients show a
// ticket within milliseconds. Those that are served for a ticket never yield. The caller holds s.mu.
func (s *service) leastNeeded(address string) (victim *conn) {
	now, best := time.Now(), 0
	for c := range s.conns {
		if address != "" && c.address != address {
			continue
		}
		rank := c.rank(now)
		if rank > best || rank == best && rank > 0 && c.since.Before(victim.since) {
			victim, best = c, rank
		}
	}
	return victim
}

// rank tells how readily a connection yields; 0: not at all. The caller holds
// service.mu.
func (c *conn) rank(now time.Time) int {
	switch {
	case !c.known:
		return 2
	case !c.busy && now.Sub(c.since) >= idleGrace:
		return 1
	}
	return 0
}

// cut ends a connection from outside. TLS is not told: its farewell would wait for a
// client that does not read.
func (c *conn) cut() {
	c.io.interrupt()
	c.socket.Close()
}

// vouched notes that the client has shown a ticket that is good.
func (c *conn) vouched() {
	c.io.limit = time.Time{}
	if c.known {
		return
	}
	c.svc.mu.Lock()
	defer c.svc.mu.Unlock()
	c.known = true
}

// refuse tells a client that there is no place for it, as long as not too many are
// being told.
func (s *service) refuse(c *conn, why string) {
	s.mu.Lock()
	full := s.door.refusing >= maxRefusing || s.closed
	if !full {
		s.door.refusing++
		s.group.Add(1)
	}
	s.mu.Unlock()
	if c.svc.log.allow(nil) {
		c.svc.log.warn("http", "Refused connection=%d client=%s: %s", c.id, c.client, why)
	}
	if full {
		c.socket.Close()
		return
	}
	go func() {
		defer s.group.Done()
		c.sayFull(why)
		s.mu.Lock()
		s.door.refusing--
		s.mu.Unlock()
	}()
}

// sayFull answers before the request is read, and then reads it: closing a socket with
// unread data would take the answer back.
func (c *conn) sayFull(why string) {
	defer c.socket.Close()
	_ = c.io.SetDeadline(time.Now().Add(refuseTimeout))
	body := why + "; try again later\n"
	answer := fmt.Sprintf("HTTP/1.1 503 %s\r\nserver: %s\r\ndate: %s\r\nretry-after: 1\r\nconnection: close\r\ncontent-type: text/plain; charset=UTF-8\r\ncontent-length: %d\r\n\r\n%s",
		http.StatusText(503), serverHeader, time.Now().UTC().Format(http.TimeFormat), len(body), body)
	if _, err := io.WriteString(c.io.Conn, answer); err != nil {
		return
	}
	if half, ok := c.io.Conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_, _ = io.CopyN(io.Discard, c.io.Conn, maxHeaderBytes)
}

// headRoom is the memory that heads of requests share.
type headRoom struct{ used atomic.Int64 }

// take reports whether n more bytes are there to be had.
func (r *headRoom) take(n int64) bool {
	if r.used.Add(n) <= headMemory {
		return true
	}
	r.used.Add(-n)
	return false
}

func (r *headRoom) giveBack(n int64) { r.used.Add(-n) }

// headReader counts what a connection reads of a request's head.
type headReader struct {
	room  *headRoom
	on    bool
	read  int64
	taken int64
}

// begin starts to count; what was read ahead of the request counts for the one before.
func (h *headReader) begin() { h.on, h.read = true, 0 }

func (h *headReader) end() { h.on = false }

// release gives back what the head of a request that has ended took.
func (h *headReader) release() {
	h.room.giveBack(h.taken)
	h.taken = 0
}

func (h *headReader) add(n int) error {
	if !h.on {
		return nil
	}
	h.read += int64(n)
	more := h.read - freeHead - h.taken
	if more <= 0 {
		return nil
	}
	if !h.room.take(more) {
		return fatalf(503, "Too many large request headers at one time")
	}
	h.taken += more
	return nil
}
