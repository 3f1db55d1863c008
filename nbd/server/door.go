package server

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// What a negotiation is taken to cost in memory: its goroutine, what it reads of an
// option at a time, a string, and the answers that have not left; and what TLS takes
// until it has begun.
const (
	haggleCost = 24 << 10
	tlsCost    = 2*maxClientTLS + 16<<10
)

const (
	// haggleGrace is how long a negotiation may take before it yields its place to a
	// new connection. Honest ones take some round trips.
	haggleGrace = time.Second
	// askGrace is the same for a session that has not made any request yet.
	askGrace = 10 * time.Second
	// maxRefusing bounds the connections that are being told why they are refused;
	// further ones are closed at once.
	maxRefusing   = 64
	refuseTimeout = 2 * time.Second
	// yieldTries bounds how many connections are asked to yield for one.
	yieldTries = 8
)

// place is what a connection takes of the bounds on connections. Its fields belong to
// Server.mu.
type place struct {
	address string
	given   bool // back
}

// visitor is a connection that is being negotiated. Its fields belong to Server.mu.
type visitor struct {
	nc     net.Conn
	place  *place // nil: it is being refused
	since  time.Time
	agreed bool // the client may already send requests
	cost   int64
	cut    bool
}

// door counts who is in. Its fields belong to Server.mu.
type door struct {
	taken     int
	byAddress map[string]int
	haggling  map[net.Conn]*visitor
	refusing  int
	memory    int64 // of the negotiations
}

// addressOf is what connections are counted by: an IP address, of which a site has
// 2^64 with IPv6, or the user at the other end of a unix socket.
func addressOf(nc net.Conn) string {
	switch a := nc.RemoteAddr().(type) {
	case *net.TCPAddr:
		ip := a.AddrPort().Addr().Unmap().WithZone("")
		if prefix, err := ip.Prefix(64); ip.Is6() && err == nil && !ip.IsLoopback() {
			return prefix.String()
		}
		return ip.String()
	case *net.UnixAddr:
		return peerUser(nc)
	default:
		host, _, err := net.SplitHostPort(a.String())
		if err == nil {
			return host
		}
		return a.String()
	}
}

func peerUser(nc net.Conn) string {
	u, ok := nc.(*net.UnixConn)
	if !ok {
		return "unix"
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return "unix"
	}
	name := "unix"
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			name = "uid " + strconv.FormatUint(uint64(cred.Uid), 10)
		}
	})
	return name
}

// full tells why there is no place for another connection of an address, and of whom
// somebody would have to yield; "" is anybody. The caller holds s.mu.
func (s *Server) full(address string) (why, of string) {
	if n := s.cfg.MaxPerAddress; n > 0 && s.door.byAddress[address] >= n {
		return fmt.Sprintf("all %d connections that this server allows from one address (%s) are in use; try again later", n, address), address
	}
	if s.door.taken >= s.cfg.MaxConnections {
		return fmt.Sprintf("all %d connections that this server allows are in use; try again later", s.cfg.MaxConnections), ""
	}
	return "", ""
}

// start begins negotiation on an accepted connection, or refuses it.
func (s *Server) start(nc net.Conn) {
	s.stats.accepted.Add(1)
	v := &visitor{nc: nc, since: time.Now()}
	address := addressOf(nc)
	for try := 0; ; try++ {
		s.mu.Lock()
		if s.draining.Load() {
			s.mu.Unlock()
			nc.Close()
			return
		}
		why, of := s.full(address)
		if why == "" {
			v.place = &place{address: address}
			s.door.taken++
			s.door.byAddress[address]++
			s.enter(v)
			s.mu.Unlock()
			go s.negotiate(v)
			return
		}
		yield := s.whoYields(of)
		s.mu.Unlock()
		if yield == nil || try == yieldTries {
			s.refuse(v, why)
			return
		}
		yield()
	}
}

// enter notes that a negotiation begins. The caller holds s.mu.
func (s *Server) enter(v *visitor) {
	s.door.haggling[v.nc] = v
	s.open.Add(1)
	s.chargeLocked(v, haggleCost)
}

// leave notes that a negotiation is over, and tells whether it was cut.
func (s *Server) leave(v *visitor) (cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaveLocked(v)
	return v.cut
}

func (s *Server) leaveLocked(v *visitor) {
	delete(s.door.haggling, v.nc)
	s.door.memory -= v.cost
	v.cost = 0
}

// giveBack frees a place. The caller holds s.mu.
func (s *Server) giveBack(p *place) {
	if p == nil || p.given {
		return
	}
	p.given = true
	s.door.taken--
	if s.door.byAddress[p.address]--; s.door.byAddress[p.address] == 0 {
		delete(s.door.byAddress, p.address)
	}
}

// charge counts memory of a negotiation. Where that is more than all may take together,
// the oldest ones are cut: an honest client is done after a few round trips.
func (s *Server) charge(v *visitor, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !v.cut {
		s.chargeLocked(v, n)
	}
}

func (s *Server) chargeLocked(v *visitor, n int64) {
	v.cost += n
	s.door.memory += n
	for n > 0 && s.door.memory > s.cfg.HandshakeMemory {
		old := s.oldest(func(o *visitor) bool { return o != v })
		if old == nil {
			return
		}
		s.cutVisitor(old)
	}
}

// oldest returns the negotiation that has lasted longest of those that want it. The
// caller holds s.mu.
func (s *Server) oldest(want func(*visitor) bool) (old *visitor) {
	for _, v := range s.door.haggling {
		if !v.agreed && want(v) && (old == nil || v.since.Before(old.since)) {
			old = v
		}
	}
	return old
}

// cutVisitor ends a negotiation for the good of others. The caller holds s.mu.
func (s *Server) cutVisitor(v *visitor) {
	v.cut = true
	v.nc.Close()
	s.leaveLocked(v)
	s.giveBack(v.place)
	s.stats.yielded.Add(1)
}

// whoYields finds a connection, of one address or of any, that has to make room for a
// new one, and returns what makes it do that; nil if there is none. The caller holds
// s.mu, and not any more when it calls the function.
func (s *Server) whoYields(address string) func() {
	now := time.Now()
	v := s.oldest(func(o *visitor) bool {
		return o.place != nil && (address == "" || o.place.address == address) && now.Sub(o.since) > haggleGrace
	})
	if v != nil {
		return func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.door.haggling[v.nc] == v && !v.agreed {
				s.cutVisitor(v)
			}
		}
	}
	if c := s.idlest(address, now); c != nil {
		return c.makeRoom
	}
	return nil
}

// idlest returns the session that is to yield its place first: those that never made a
// request come before those that made none for long. The caller holds s.mu.
func (s *Server) idlest(address string, now time.Time) (idlest *conn) {
	limit := s.cfg.IdleYield
	if limit < 0 {
		return nil
	}
	var longest time.Duration
	for c := range s.conns {
		if c.busy.Load() || c.refs.Load() > 1 || c.place.given || address != "" && c.place.address != address {
			continue
		}
		asked := c.asked.Load()
		idle := now.Sub(time.Unix(0, max(asked, c.opened)))
		if idle <= limit && (asked != 0 || idle <= askGrace) {
			continue
		}
		if asked == 0 {
			idle += 1 << 60
		}
		if idle > longest {
			idlest, longest = c, idle
		}
	}
	return idlest
}

// makeRoom ends an idle session, unless a request came meanwhile.
func (c *conn) makeRoom() {
	if !c.claim() {
		return
	}
	if c.socket != nil && (c.refs.Load() > 1 || c.socket.poll(unix.POLLIN, 0) != 0) {
		go c.run() // it is waited for as an open connection
		return
	}
	c.s.log.Info("an idle client makes room for another", "export", c.exp.Name, "client", c.peer)
	c.s.stats.yielded.Add(1)
	c.s.mu.Lock()
	c.s.giveBack(c.place)
	if _, open := c.s.conns[c]; open && c.socket == nil {
		c.t.shut() // the reader finds that it was claimed
	}
	c.s.mu.Unlock()
	if c.socket != nil {
		c.finish(errYielded)
	}
}

// refuse answers the first options of a connection that finds no place with the reason.
func (s *Server) refuse(v *visitor, why string) {
	s.stats.refused.Add(1)
	s.log.Warn("connection refused", "client", clientName(v.nc), "reason", why)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.door.refusing >= maxRefusing || s.draining.Load() {
		v.nc.Close()
		return
	}
	s.door.refusing++
	s.enter(v)
	go func() {
		h := &haggler{s: s, v: v, conn: v.nc, refusal: why, timeout: refuseTimeout}
		_, _ = h.haggle()
		v.nc.Close()
		s.mu.Lock()
		s.door.refusing--
		s.leaveLocked(v)
		s.mu.Unlock()
		s.open.Done()
	}()
}

// agree is told before the client is that it may send requests; false: the server ends,
// and would not answer them, or the connection was cut.
func (s *Server) agree(v *visitor) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining.Load() || v.cut {
		return false
	}
	v.agreed = true
	return true
}

// ended gives back what a connection holds in the server.
func (s *Server) ended(p *place) {
	s.mu.Lock()
	s.giveBack(p)
	s.mu.Unlock()
	s.open.Done()
}
