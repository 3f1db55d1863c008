package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/internal/unixsock"
	nbdserver "github.com/vmdisk/vmdisk/nbd/server"
)

// nbdService offers the tickets' images over NBD: the export's name is the
// ticket's id. On TCP it asks for TLS where the remote service does; on a unix
// socket the client may use it.
type nbdService struct {
	server   *nbdserver.Server
	listener net.Listener
	tickets  *Tickets
	log      *quiet
	metrics  *metrics
	nextID   *atomic.Uint64
	tls      bool
}

func (s *Server) bindNBD(shared *service, secure *tls.Config) error {
	n := &nbdService{tickets: s.tickets, log: shared.log, metrics: shared.metrics, nextID: shared.nextID, tls: secure != nil}
	path, local := strings.CutPrefix(s.cfg.NBD.Address, "unix:")
	cfg := nbdserver.Config{Resolve: n.lease, Log: s.log.s.With(partKey, "nbd"), TLS: secure,
		MaxConnections: s.cfg.Daemon.MaxClients, MaxPerAddress: s.cfg.Daemon.MaxClientsPerAddress}
	var err error
	if local {
		n.listener, err = s.listenUnix(&path, 0o666, unixsock.Options{Guarded: true}) // a ticket's id is the export's name
	} else {
		n.listener, err = net.Listen("tcp", s.cfg.NBD.Address)
	}
	if err != nil {
		return err
	}
	switch {
	case secure == nil:
	case local:
		cfg.TLSMode = nbdserver.TLSOn
	default:
		cfg.TLSMode = nbdserver.TLSRequire
	}
	if n.server, err = nbdserver.New(cfg); err != nil {
		n.listener.Close()
		return err
	}
	s.nbd, shared.nbd = n, n
	s.log.info("services", "nbd.service listening on %s", n.listener.Addr())
	return nil
}

// url is where the image is for a client that reached this daemon as host.
func (n *nbdService) url(host, id string) string {
	export := "/" + url.PathEscape(id)
	addr, tcp := n.listener.Addr().(*net.TCPAddr)
	if !tcp {
		// A plus is a plus in an NBD URI, so a blank is not written as one.
		return "nbd+unix://" + export + "?socket=" + strings.ReplaceAll(url.QueryEscape(n.listener.Addr().String()), "+", "%20")
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	scheme := "nbd://"
	if n.tls {
		scheme = "nbds://"
	}
	return scheme + net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(addr.Port)) + export
}

// lease opens the ticket's image for one NBD connection.
func (n *nbdService) lease(ctx context.Context, id string) (nbdserver.Lease, error) {
	t, err := n.tickets.authorize(id, "read")
	if err != nil {
		return nbdserver.Lease{}, errors.New(hideError(err.Error()))
	}
	u := &nbdUser{n: n, id: id, t: t, conn: n.nextID.Add(1)}
	if u.d, err = t.attach(ctx, u.conn); err != nil {
		return nbdserver.Lease{}, err
	}
	t.touch()
	u.info = u.readInfo()
	u.clock.start("connection")
	if u.shown = n.log.allow(nil); u.shown {
		n.log.info("nbd", "OPEN connection=%d ticket=%s transfer=%s", u.conn, logID(id), t.spec.TransferID)
	}
	return nbdserver.Lease{
		Export: nbdserver.Export{Disk: disk.New(u, "transfer "+t.spec.TransferID), ReadOnly: !t.may("write")},
		Until:  t.gone, Release: u.release,
	}, nil
}

// nbdUser is the driver that an NBD connection sees: the ticket's disk, with
// every operation authorized and accounted for as a request over HTTP is.
type nbdUser struct {
	n    *nbdService
	id   string
	t    *Ticket
	d    *disk.Disk
	conn uint64
	info disk.Info
	// shown: its beginning is in the log.
	shown bool

	mu      sync.Mutex
	clock   clock
	changed atomic.Bool // since the last flush
}

// readInfo: what needs alignment is left to the disk below, whose locks all
// users of the ticket share.
func (u *nbdUser) readInfo() disk.Info {
	in := u.d.Info()
	in.Size = min(in.Size, u.t.spec.Size)
	in.Preferred, in.Min = max(in.Preferred, in.Min), 0
	in.MaxIO, in.MaxZero, in.MaxTrim, in.TrimAlign = 0, 0, 0, 0
	in.FUA, in.Zero = disk.Native, disk.Native
	in.ReadOnly = in.ReadOnly || !u.t.may("write")
	if !u.t.spec.Sparse {
		in.Trim = disk.None
	}
	maps := in.Maps
	in.Maps = nil
	for _, m := range maps {
		if u.t.spec.Dirty || !strings.HasPrefix(string(m), disk.DirtyPrefix) {
			in.Maps = append(in.Maps, m)
		}
	}
	return in
}

// Info implements disk.Driver.
func (u *nbdUser) Info() disk.Info { return u.info }

// authorize is asked before every operation: tickets expire, are removed, and
// are replaced.
func (u *nbdUser) authorize(op string) error {
	t, err := u.n.tickets.authorize(u.id, op)
	if t != u.t {
		return u.t.errCanceled() // not that there is none: that would name the ticket in the NBD server's log
	}
	return err
}

// run performs an operation of the ticket.
func (u *nbdUser) run(ctx context.Context, name string, off, n int64, f func(ctx context.Context) error) error {
	need := "write"
	if name == "read" || name == "extents" {
		need = "read"
	}
	if err := u.authorize(need); err != nil {
		return err
	}
	start := time.Now()
	err := u.t.run(ctx, off, func(ctx context.Context, op *operation) error {
		err := f(ctx)
		if err == nil {
			op.done.Store(n)
		}
		return err
	})
	u.count(name, time.Since(start), n, err)
	return err
}

func (u *nbdUser) count(name string, took time.Duration, n int64, err error) {
	if err != nil {
		n = 0
	}
	u.mu.Lock()
	u.clock.add(name, took, n)
	u.mu.Unlock()
	u.n.metrics.count(name, took, n, err)
}

// ReadAt implements disk.Driver.
func (u *nbdUser) ReadAt(ctx context.Context, p []byte, off int64) error {
	return u.run(ctx, "read", off, int64(len(p)), func(ctx context.Context) error { return u.d.ReadAt(ctx, p, off) })
}

// WriteAt implements disk.Driver.
func (u *nbdUser) WriteAt(ctx context.Context, p []byte, off int64, f disk.Flags) error {
	u.changed.Store(true)
	return u.run(ctx, "write", off, int64(len(p)), func(ctx context.Context) error { return u.d.WriteAt(ctx, p, off, f) })
}

// Zero implements disk.Driver. Only a sparse ticket's zeroes may leave holes.
func (u *nbdUser) Zero(ctx context.Context, off, n int64, f disk.Flags) error {
	u.changed.Store(true)
	if !u.t.spec.Sparse {
		f &^= disk.MayTrim
	}
	return u.run(ctx, "zero", off, n, func(ctx context.Context) error { return u.d.Zero(ctx, off, n, f) })
}

// Trim implements disk.Driver.
func (u *nbdUser) Trim(ctx context.Context, off, n int64, f disk.Flags) error {
	u.changed.Store(true)
	return u.run(ctx, "discard", off, n, func(ctx context.Context) error { return u.d.Trim(ctx, off, n, f) })
}

// Flush implements disk.Driver.
func (u *nbdUser) Flush(ctx context.Context) error {
	u.changed.Store(false)
	return u.run(ctx, "flush", 0, 0, u.d.Flush)
}

// Extents implements disk.Driver.
func (u *nbdUser) Extents(ctx context.Context, m disk.MapName, off, n int64, dst []disk.Extent) (got []disk.Extent, err error) {
	got = dst
	err = u.run(ctx, "extents", 0, 0, func(ctx context.Context) error {
		got, err = u.d.Extents(ctx, m, off, n, dst)
		return err
	})
	return got, err
}

// FileRange implements disk.FileRanger, for reading alone: the operation ends
// with the range's release.
func (u *nbdUser) FileRange(off, n int64, write bool) (disk.FileRange, bool) {
	op := &operation{off: off, cancel: func() {}} // the connection is cut
	if write || u.authorize("read") != nil || u.t.begin(op) != nil {
		return disk.FileRange{}, false
	}
	r, ok := u.d.FileRange(off, n, false)
	if !ok {
		_ = u.t.end(op)
		return r, false
	}
	start, inner := time.Now(), r.Done
	r.Done = func() {
		if inner != nil {
			inner()
		}
		op.done.Store(r.Len)
		u.count("read", time.Since(start), r.Len, u.t.end(op))
	}
	return r, true
}

// Close implements disk.Driver. The disk is the ticket's.
func (u *nbdUser) Close() error { return nil }

// release follows the end of the connection. What the client did not flush is
// made durable if it may still be: clients of the HTTP service end with a flush
// of their own, but an NBD server that ends has to see to it.
func (u *nbdUser) release() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if u.changed.Load() && u.t.gone.Err() == nil {
		if err := u.t.run(ctx, 0, func(ctx context.Context, _ *operation) error { return u.d.Flush(ctx) }); err != nil {
			u.n.log.error("nbd", "flushing the image of transfer %s: %v", u.t.spec.TransferID, err)
		}
	}
	if err := u.t.detach(u.conn); err != nil {
		u.n.log.error("nbd", "closing the image of transfer %s: %v", u.t.spec.TransferID, err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clock.stop("connection")
	if u.shown {
		u.n.log.info("nbd", "CLOSE connection=%d ticket=%s %s", u.conn, logID(u.id), u.clock.String())
	}
}

// shutdown lets the requests that have arrived end.
func (n *nbdService) shutdown(ctx context.Context) {
	if err := n.server.Shutdown(ctx); err != nil {
		n.log.warn("nbd", "%v", err)
	}
}

// serve accepts until shutdown.
func (n *nbdService) serve() {
	if err := n.server.Serve(context.Background(), n.listener); err != nil && !errors.Is(err, nbdserver.ErrClosed) {
		n.log.error("nbd", "%v", fmt.Errorf("nbd.service: %w", err))
	}
}
