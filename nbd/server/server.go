package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmdisk/vmdisk/disk/splice"
)

// TLSMode says who has to use TLS.
type TLSMode int

// TLS modes.
const (
	TLSOff     TLSMode = iota // STARTTLS is refused
	TLSOn                     // the client decides
	TLSRequire                // nothing but STARTTLS is answered in the clear
)

// Config configures New. The zero value of every field but Exports is useful.
type Config struct {
	// Exports served, with different names.
	Exports []Export
	// Default is the name of the export that the empty name stands for. Where it
	// is empty and no export has the empty name, a lone export is the default.
	Default string
	// Resolve, if not nil, is asked for names that are not among Exports. It may
	// be called concurrently; what it finds is never listed. An error, which is
	// logged, means that there is no such export.
	Resolve func(ctx context.Context, name string) (Lease, error)

	// TLS is the X.509 configuration for STARTTLS; needed unless TLSMode is
	// TLSOff. MinVersion below 1.2 is raised to it.
	TLS     *tls.Config
	TLSMode TLSMode

	// HandshakeTimeout bounds the time from accept to the end of negotiation
	// (default 10 s).
	HandshakeTimeout time.Duration
	// MaxConnections bounds the connections at one time (default 4096). Further
	// ones are refused with a message, unless an idle one yields.
	MaxConnections int
	// MaxPerAddress bounds the connections of one IP address (or network of 64 bits,
	// with IPv6), or of one user by unix sockets; 0: no bound but MaxConnections.
	MaxPerAddress int
	// IdleYield is for how long a session without any request keeps its place when
	// a new connection finds none (default 5 min; one that never made a request: 10 s);
	// negative: for ever. Negotiations keep it for a second.
	IdleYield time.Duration
	// HandshakeMemory bounds the memory of all negotiations together in bytes (default
	// 64 MiB). When there are more, the oldest are cut.
	HandshakeMemory int64
	// Depth bounds the requests of one connection that wait for the disk at one
	// time (default 64); it is the number of threads they can occupy.
	Depth int
	// Memory bounds the buffers of all connections together in bytes (default
	// 80 MiB, at least 16 MiB). Half of it is for clients that are waited for; when
	// that is used up, the slowest are cut.
	Memory int64

	// Log gets what went wrong (default: nothing is logged).
	Log *slog.Logger
}

// Server serves a fixed set of exports on any number of listeners. Its methods
// are safe for concurrent use.
type Server struct {
	cfg     Config
	exports []*export
	byName  map[string]*export
	log     *slog.Logger
	mem     *memory
	pipes   splice.Pipes
	poll    *poller
	work    workers

	ctx      context.Context // the requests'
	cancel   context.CancelFunc
	draining atomic.Bool
	// Free slots for waiting in recv, see hotSlots, and whether somebody found none.
	hot       atomic.Int32
	hotWanted atomic.Bool

	mu        sync.Mutex
	conns     map[*conn]struct{}
	seq       uint64 // of the last conn
	door      door
	listeners map[net.Listener]struct{}
	stats     stats
	open      sync.WaitGroup // connections, haggling or not
	stop      sync.Once
}

// ErrClosed is returned by Serve on a server that was shut down before.
var ErrClosed = errors.New("nbd server: closed")

// New checks the configuration and returns a server. It must be ended by
// Shutdown.
func New(cfg Config) (*Server, error) {
	if cfg.TLSMode != TLSOff && cfg.TLS == nil {
		return nil, errors.New("nbd server: TLS is on but there is no certificate; set Config.TLS")
	}
	if cfg.TLSMode == TLSOff && cfg.TLS != nil {
		return nil, errors.New("nbd server: Config.TLS is set but TLS is off; set Config.TLSMode")
	}
	setDefaults(&cfg)
	s := &Server{
		cfg: cfg, log: cfg.Log, byName: map[string]*export{},
		mem:       newMemory(cfg.Memory),
		pipes:     make(splice.Pipes, maxIdlePipes),
		conns:     map[*conn]struct{}{},
		door:      door{byAddress: map[string]int{}, haggling: map[net.Conn]*visitor{}},
		listeners: map[net.Listener]struct{}{},
	}
	for _, e := range cfg.Exports {
		if err := s.addExport(e); err != nil {
			return nil, err
		}
	}
	if cfg.Default != "" && s.byName[cfg.Default] == nil {
		return nil, fmt.Errorf("nbd server: the default export %q is not among the exports", cfg.Default)
	}
	s.hot.Store(hotSlots())
	s.ctx, s.cancel = context.WithCancel(context.Background())
	var err error
	if s.poll, err = newPoller(s); err != nil {
		s.cancel()
		return nil, err
	}
	s.log = slog.New(newBoundedLog(cfg.Log.Handler(), &s.stats.dropped))
	s.mem.starved = s.poll.ensureWaiter
	s.work.start()
	return s, nil
}

func setDefaults(cfg *Config) {
	if cfg.HandshakeTimeout <= 0 {
		cfg.HandshakeTimeout = 10 * time.Second
	}
	if cfg.MaxConnections <= 0 {
		cfg.MaxConnections = 4096
	}
	if cfg.IdleYield == 0 {
		cfg.IdleYield = 5 * time.Minute
	}
	if cfg.HandshakeMemory <= 0 {
		cfg.HandshakeMemory = 64 << 20
	}
	if cfg.Depth <= 0 {
		cfg.Depth = 64
	}
	if cfg.Memory <= 0 {
		cfg.Memory = 80 << 20
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.TLS != nil && cfg.TLS.MinVersion < tls.VersionTLS12 {
		cfg.TLS = cfg.TLS.Clone()
		cfg.TLS.MinVersion = tls.VersionTLS12
	}
	cfg.TLS = verifyClients(cfg.TLS)
}

// Serve accepts connections on l until Shutdown, or until ctx ends, and closes
// l. It does not wait for the connections: Shutdown does. The error is nil
// after Shutdown.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if !s.addListener(l) {
		l.Close()
		return ErrClosed
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer s.dropListener(l)
	for {
		nc, err := l.Accept()
		if err == nil {
			s.start(nc)
			continue
		}
		if s.draining.Load() {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !temporary(err) {
			return fmt.Errorf("nbd server: accept on %s: %w", l.Addr(), err)
		}
		s.log.Warn("accept failed, trying again", "address", l.Addr().String(), "error", err)
		s.yieldOne()
		select { // out of descriptors or memory: they come back as connections end
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// temporary reports whether accept may succeed later on the same listener.
func temporary(err error) bool {
	var ne interface{ Temporary() bool }
	return errors.As(err, &ne) && ne.Temporary()
}

// yieldOne makes an idle connection yield to one that could not be accepted.
func (s *Server) yieldOne() {
	s.mu.Lock()
	yield := s.whoYields("")
	s.mu.Unlock()
	if yield != nil {
		yield()
	}
}

func (s *Server) addListener(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining.Load() {
		return false
	}
	s.listeners[l] = struct{}{}
	return true
}

func (s *Server) dropListener(l net.Listener) {
	s.mu.Lock()
	delete(s.listeners, l)
	s.mu.Unlock()
	l.Close()
}

// negotiate haggles and then serves the connection, or leaves it to the poller.
func (s *Server) negotiate(v *visitor) {
	peer := clientName(v.nc)
	h := &haggler{s: s, v: v, conn: v.nc, timeout: s.cfg.HandshakeTimeout}
	result, err := h.haggle()
	if s.leave(v) {
		err = errMadeRoom
	}
	if err != nil || result == nil {
		if err != nil && !s.draining.Load() {
			s.log.Info("negotiation ended", "client", peer, "error", err)
		}
		v.nc.Close()
		s.ended(v.place)
		return
	}
	_ = result.conn.SetDeadline(time.Time{})
	result.peer = peer
	c, err := s.newConn(result, v.place)
	if err != nil {
		s.log.Warn("connection lost", "client", peer, "error", err)
		result.conn.Close()
		result.exp.release()
		s.ended(v.place)
		return
	}
	c.first()
}

// Shutdown drains the server: it accepts no more, lets requests that have
// arrived finish, answers them, closes the connections and flushes the disks.
// When ctx ends first the remaining requests are cancelled and their connections
// cut. The server's disks stay open. Shutdown waits for everything the server
// started; a second call does the same.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.draining.Store(true)
	for l := range s.listeners {
		l.Close()
	}
	for nc, v := range s.door.haggling {
		if !v.agreed {
			nc.Close()
		}
	}
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.drain()
	}
	err := s.waitOpen(ctx)
	s.cancel()
	s.stop.Do(func() {
		s.work.stop()
		s.poll.close()
		s.pipes.Close()
		for _, e := range s.exports {
			e.filling.Close()
		}
	})
	return errors.Join(err, s.flushAll(ctx))
}

// waitOpen waits for the connections to end, and cuts them when ctx ends.
func (s *Server) waitOpen(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		s.open.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	s.cancel()
	s.mu.Lock()
	n := len(s.conns)
	for c := range s.conns {
		c.kill()
	}
	for nc := range s.door.haggling {
		nc.Close()
	}
	s.mu.Unlock()
	<-done
	return fmt.Errorf("nbd server: %d connections cut with requests in flight: %w", n, context.Cause(ctx))
}

// flushAll makes what was acknowledged durable, as a server that goes away must.
func (s *Server) flushAll(ctx context.Context) error {
	var errs []error
	for _, e := range s.exports {
		if !e.readOnly() && e.changed.Load() {
			errs = append(errs, e.Disk.Flush(context.WithoutCancel(ctx)))
		}
	}
	return errors.Join(errs...)
}
