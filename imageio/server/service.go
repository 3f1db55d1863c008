package server

import (
	"bufio"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/imageio/pyjson"
)

// handler answers the requests of one resource; rest is what the route's
// wildcard matched.
type handler func(c *conn, req *request, w *response, rest string) error

// route is a path, whose one * matches anything, and what it allows.
type route struct {
	before, after string
	methods       map[string]handler
}

func newRoute(pattern string, methods map[string]handler) route {
	before, after, _ := strings.Cut(pattern, "*")
	return route{before, after, methods}
}

func (r *route) match(path string) (rest string, ok bool) {
	if !strings.HasPrefix(path, r.before) {
		return "", false
	}
	rest, ok = strings.CutSuffix(path[len(r.before):], r.after)
	return rest, ok
}

var knownMethods = map[string]bool{"GET": true, "PUT": true, "PATCH": true, "POST": true, "DELETE": true, "OPTIONS": true, "HEAD": true}

// service is one listening socket with its routes. Several services share the
// tickets, the configuration, the log and the metrics.
type service struct {
	name     string
	cfg      *Config
	tickets  *Tickets
	log      *quiet
	metrics  *metrics
	nbd      *nbdService // nil: off
	routes   []route
	listener net.Listener
	secure   func(net.Conn) net.Conn // nil: plain

	ctx    context.Context
	cancel context.CancelFunc
	nextID *atomic.Uint64 // connection ids are unique over all services
	moving *atomic.Int32  // transfers under way, of all services
	heads  *headRoom      // of all services

	trusted                   bool // its clients need no ticket
	maxClients, maxPerAddress int
	headTime                  time.Duration

	mu     sync.Mutex
	conns  map[*conn]struct{}
	door   door
	closed bool
	busy   sync.WaitGroup // requests
	group  sync.WaitGroup // connections
}

// dispatch finds the handler for a request.
func (s *service) dispatch(c *conn, req *request, w *response) error {
	if !knownMethods[req.method] {
		return failf(405, "Invalid method %.80s", pyjson.Repr(req.method))
	}
	for i := range s.routes {
		rest, ok := s.routes[i].match(req.path)
		if !ok {
			continue
		}
		h := s.routes[i].methods[req.method]
		if h == nil {
			return failf(405, "Method '%s' not defined for %s", req.method, pyjson.Repr(req.path))
		}
		return h(c, req, w, rest)
	}
	return failf(404, "No handler for %.400s", pyjson.Repr(req.path))
}

// explain turns any error into the answer the client gets; what is not the
// client's fault is logged and not shown.
func (s *service) explain(c *conn, err error) *httpError {
	var e *httpError
	var auth *authError
	var partial *partialError
	var invalid *invalidTicket
	var remote remoteError
	switch {
	case errors.As(err, &e):
	case errors.As(err, &auth):
		e = fatalf(403, "%v", auth)
	case errors.As(err, &partial):
		e = fatalf(400, "%v", partial)
	case errors.As(err, &invalid):
		e = failf(400, "%v", invalid)
	case errors.Is(err, disk.ErrRange):
		e = failf(416, "Requested range out of the image")
	case errors.As(err, &remote) && clientFault(remote):
		e = passOn(remote)
	case errors.Is(err, syscall.ENOSPC) && s.cfg.Daemon.Extensions:
		e = failf(507, "No space left on the storage")
	default:
		e = failf(500, "Server failed to perform the request, check logs")
	}
	switch {
	case e.status >= 500:
		c.complain("Server error: %v", err)
	default:
		c.complain("Client error: %d %s", e.status, hideError(e.message))
	}
	return e
}

// serve accepts connections until the listener is closed.
func (s *service) serve() {
	for {
		nc, err := s.listener.Accept()
		if err != nil {
			var temporary interface{ Temporary() bool }
			if errors.As(err, &temporary) && temporary.Temporary() {
				if s.log.allow(nil) {
					s.log.warn(s.name, "accept: %v", err)
				}
				time.Sleep(50 * time.Millisecond) // out of descriptors: some will end
				continue
			}
			return
		}
		c := s.newConn(nc)
		if why := s.admit(c); why != "" {
			s.refuse(c, why)
			continue
		}
		go func() {
			defer s.group.Done()
			c.serve()
			s.mu.Lock()
			s.forget(c)
			s.mu.Unlock()
		}()
	}
}

func (s *service) newConn(nc net.Conn) *conn {
	c := &conn{id: s.nextID.Add(1), svc: s, ctx: s.ctx, client: clientName(nc), attached: map[*Ticket]*disk.Disk{},
		socket: nc, address: addressOf(nc), since: time.Now(), known: s.trusted, lines: noise{rate: connLines, burst: connBurst}}
	if s.secure == nil {
		if raw, ok := nc.(syscall.Conn); ok {
			c.plain, _ = raw.SyscallConn()
		}
	} else {
		nc = s.secure(nc)
	}
	c.io = &timedConn{Conn: nc, timeout: unauthorizedTimeout, head: headReader{room: s.heads}}
	c.reader = bufio.NewReaderSize(c.io, maxRequestLine)
	return c
}

func clientName(nc net.Conn) string {
	if addr, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		return addr.IP.String()
	}
	return "local"
}

// enter counts a request as running; false once the service is stopping.
func (s *service) enter(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.busy.Add(1)
	c.busy, c.since = true, time.Now()
	return true
}

func (s *service) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.busy, c.since = false, time.Now()
	s.busy.Done()
}

func (s *service) stopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// shutdown stops accepting, lets the running requests end (until ctx does, then
// they are canceled), and closes the connections. Idle ones are closed at once,
// so that it takes no longer than the last request.
func (s *service) shutdown(ctx context.Context) {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.listener.Close()
	ended := make(chan struct{})
	go func() {
		s.busy.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	s.cancel()
	s.mu.Lock()
	for c := range s.conns {
		c.cut()
	}
	s.mu.Unlock()
	s.group.Wait()
	<-ended
}
