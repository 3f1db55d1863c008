package server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/imageio/batch"
	"github.com/vmdisk/vmdisk/imageio/pyjson"
	"github.com/vmdisk/vmdisk/internal/confine"
	"github.com/vmdisk/vmdisk/internal/unixsock"
)

// Server is the daemon: the services over one store of tickets.
type Server struct {
	cfg      *Config
	log      *logger
	logFiles []*rotatingFile
	tickets  *Tickets
	services []*service
	nbd      *nbdService // nil: off

	drainTime, hangTime time.Duration
}

// New binds the services' sockets; nothing is accepted before Serve. The log
// goes where the configuration says. The caller ends it by Serve or Close.
func New(cfg *Config, open Opener) (*Server, error) {
	s := &Server{cfg: cfg, drainTime: drainTime, hangTime: hangTime, tickets: newTickets(open, cfg.Daemon.InactivityTimeout)}
	if err := s.openLog(); err != nil {
		return nil, err
	}
	if err := s.bind(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Tickets is the store, for a ticket that is installed at start.
func (s *Server) Tickets() *Tickets { return s.tickets }

// LogDebug writes a line to the daemon's log.
func (s *Server) LogDebug(text string) { s.log.log(slog.LevelDebug, "server", "%s", text) }

func (s *Server) bind() error {
	shared := service{cfg: s.cfg, tickets: s.tickets, log: newQuiet(s.log), metrics: newMetrics(s.tickets),
		nextID: new(atomic.Uint64), moving: new(atomic.Int32), heads: new(headRoom)}
	secure, err := s.tlsConfig()
	if err != nil {
		return err
	}
	if s.cfg.NBD.Address != "" {
		if err := s.bindNBD(&shared, secure); err != nil {
			return fmt.Errorf("start the NBD service: %w", err)
		}
	}
	if err := s.bindRemote(&shared, secure); err != nil {
		return fmt.Errorf("start the remote service: %w", err)
	}
	if s.cfg.Local.Enable {
		if err := s.bindLocal(&shared); err != nil {
			return fmt.Errorf("start the local service: %w", err)
		}
	}
	if s.cfg.Control.Enable {
		if err := s.bindControl(&shared); err != nil {
			return fmt.Errorf("start the control service: %w", err)
		}
	}
	return nil
}

// add completes a service.
func (s *Server) add(shared *service, name string, l net.Listener, secure func(net.Conn) net.Conn, routes []route) {
	svc := &service{name: name, cfg: shared.cfg, tickets: shared.tickets, log: shared.log, metrics: shared.metrics,
		nbd: shared.nbd, nextID: shared.nextID, moving: shared.moving, heads: shared.heads, routes: routes, listener: l, secure: secure,
		conns: map[*conn]struct{}{}, door: door{byAddress: map[string]int{}}, headTime: headTime,
		maxClients: s.cfg.Daemon.MaxClients, maxPerAddress: s.cfg.Daemon.MaxClientsPerAddress}
	svc.ctx, svc.cancel = context.WithCancel(context.Background())
	s.services = append(s.services, svc)
	s.log.info("services", "%s listening on %s", name, l.Addr())
}

func (s *service) dataRoutes() []route {
	return []route{
		newRoute("/images/*/extents", map[string]handler{"GET": getExtents}),
		newRoute("/images/*/checksum/algorithms", map[string]handler{"GET": getAlgorithms}),
		newRoute("/images/*/checksum", map[string]handler{"GET": getChecksum}),
		newRoute("/images/*", s.imageMethods()),
	}
}

func (s *Server) bindRemote(shared *service, config *tls.Config) error {
	var secure func(net.Conn) net.Conn
	if config != nil {
		bulk := batch.Config(config)
		secure = func(c net.Conn) net.Conn { return batch.Server(c, bulk) }
	}
	l, err := net.Listen("tcp", net.JoinHostPort(s.cfg.Remote.Host, strconv.Itoa(s.cfg.Remote.Port)))
	if err != nil {
		return err
	}
	s.cfg.Remote.Port = l.Addr().(*net.TCPAddr).Port
	info := newRoute("/info/", map[string]handler{"GET": cors("*", getInfo)})
	s.add(shared, "remote.service", l, secure, append(shared.dataRoutes(), info))
	return nil
}

func getInfo(_ *conn, _ *request, w *response, _ string) error {
	return w.sendJSON(pyjson.Object{}.With("version", Version))
}

// tlsConfig returns nil when TLS is off.
func (s *Server) tlsConfig() (*tls.Config, error) {
	if !s.cfg.TLS.Enable {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(s.cfg.TLS.CertFile, s.cfg.TLS.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("load [tls] cert_file %s and key_file %s: %w", s.cfg.TLS.CertFile, s.cfg.TLS.KeyFile, err)
	}
	if s.cfg.TLS.EnableTLS11 {
		s.log.warn("services", "[tls] enable_tls1_1 is ignored: TLS 1.2 is the minimum")
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, nil
}

func (s *Server) bindLocal(shared *service) error {
	if s.cfg.Local.Socket == "" {
		s.cfg.Local.Socket = "\x00/vmdisk/imageio/" + rand.Text()
	}
	// Whoever connects needs a ticket's id.
	l, err := s.listenUnix(&s.cfg.Local.Socket, 0o666, unixsock.Options{Guarded: true})
	if err != nil {
		return err
	}
	s.add(shared, "local.service", l, nil, shared.dataRoutes())
	return nil
}

func (s *Server) bindControl(shared *service) error {
	var l net.Listener
	var err error
	if strings.EqualFold(s.cfg.Control.Transport, "tcp") {
		host := "localhost"
		if s.cfg.Control.PreferIPv4 {
			host = "127.0.0.1"
		}
		l, err = net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(s.cfg.Control.Port)))
		if err == nil {
			s.cfg.Control.Port = l.Addr().(*net.TCPAddr).Port
		}
	} else {
		var o unixsock.Options
		if o.Peers, err = s.controllers(); err == nil {
			l, err = s.listenUnix(&s.cfg.Control.Socket, 0o660, o)
		}
	}
	if err != nil {
		return err
	}
	s.add(shared, "control.service", l, nil, shared.controlRoutes())
	control := s.services[len(s.services)-1]
	control.trusted, control.maxPerAddress = true, 0
	return nil
}

// controllers are the users that may install tickets by an abstract socket, which has
// no permissions: root, this process's user, and whom it becomes. A path has its mode.
func (s *Server) controllers() ([]int, error) {
	if !unixsock.Abstract(s.cfg.Control.Socket) {
		return nil, nil
	}
	uids := []int{0, os.Geteuid()}
	if os.Geteuid() == 0 && s.cfg.Daemon.DropPrivileges {
		a, err := confine.LookupUser(s.cfg.Daemon.UserName)
		if err != nil {
			return nil, err
		}
		uids = append(uids, a.UID)
	}
	return uids, nil
}

// listenUnix listens on a path or, after NUL or @, an abstract name, to which any
// user of the host can connect: o says what guards it.
func (s *Server) listenUnix(socket *string, mode os.FileMode, o unixsock.Options) (net.Listener, error) {
	if *socket == "" {
		return nil, errors.New("no socket is configured")
	}
	if unixsock.Abstract(*socket) {
		*socket = "\x00" + (*socket)[1:]
	} else {
		o.Mode = &mode
	}
	o.Refused = func(uid int) {
		s.log.warn("services", "user %d was refused at %s", uid, strings.ReplaceAll(*socket, "\x00", "@"))
	}
	l, err := unixsock.Listen(*socket, o)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", strings.ReplaceAll(*socket, "\x00", "@"), err)
	}
	return l, nil
}

// How long the end of the daemon may take: running requests are canceled after
// drainTime, and those that do not even then end, because their storage does not
// answer, are left behind after hangTime more. Less than systemd's 90 s in all.
const (
	drainTime = 60 * time.Second
	hangTime  = 10 * time.Second
)

// Serve accepts until ctx ends, then lets the running requests finish: for 60 s
// at most, after which they are canceled. It returns when all has ended, or with an
// error 10 s later: what hangs in the kernel ends with the process alone.
func (s *Server) Serve(ctx context.Context) error {
	var running sync.WaitGroup
	for _, svc := range s.services {
		running.Go(svc.serve)
	}
	if s.nbd != nil {
		running.Go(s.nbd.serve)
	}
	s.notifySystemd()
	s.log.info("server", "Ready for requests")
	<-ctx.Done()
	s.log.info("server", "Shutting down")
	limit, cancel := context.WithTimeout(context.Background(), s.drainTime)
	defer cancel()
	for _, svc := range s.services {
		running.Go(func() { svc.shutdown(limit) })
	}
	if s.nbd != nil {
		n := s.nbd
		running.Go(func() { n.shutdown(limit) })
	}
	if err := s.awaitEnd(&running); err != nil {
		s.log.error("server", "%v", err)
		s.nbd = nil
		return errors.Join(err, s.Close())
	}
	s.services[0].log.tellLeft()
	s.log.info("server", "Stopped")
	return s.Close()
}

func (s *Server) awaitEnd(running *sync.WaitGroup) error {
	ended := make(chan struct{})
	go func() {
		running.Wait()
		close(ended)
	}()
	hanging := time.NewTimer(s.drainTime + s.hangTime)
	defer hanging.Stop()
	select {
	case <-ended:
		return nil
	case <-hanging.C:
		return fmt.Errorf("requests still run %v after they were to end: their storage does not answer", s.drainTime+s.hangTime)
	}
}

// Close releases the sockets and the log of a Server that does not Serve.
func (s *Server) Close() error {
	var errs []error
	for _, svc := range s.services {
		svc.listener.Close()
		svc.cancel()
	}
	if s.nbd != nil {
		s.nbd.listener.Close()
		limit, cancel := context.WithTimeout(context.Background(), time.Second)
		s.nbd.shutdown(limit) // once more, where it was never served
		cancel()
		s.nbd = nil
	}
	for _, f := range s.logFiles {
		errs = append(errs, f.Close())
	}
	s.logFiles = nil
	return errors.Join(errs...)
}

// notifySystemd tells systemd that the daemon is ready (sd_notify(3)).
func (s *Server) notifySystemd() {
	socket := os.Getenv("NOTIFY_SOCKET")
	if !s.cfg.Daemon.SystemdEnable || socket == "" {
		return
	}
	c, err := net.Dial("unixgram", socket)
	if err == nil {
		_, err = c.Write([]byte("READY=1"))
		c.Close()
	}
	if err != nil {
		s.log.warn("server", "notify systemd: %v", err)
	}
}

// monotonic is the time since boot, which the API shows as "expires".
func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("no monotonic clock: " + err.Error()) // Linux always has it
	}
	return time.Duration(ts.Nano())
}
