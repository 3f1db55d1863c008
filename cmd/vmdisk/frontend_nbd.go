package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"

	"golang.org/x/sync/errgroup"

	"github.com/vmdisk/vmdisk/internal/confine"
	"github.com/vmdisk/vmdisk/internal/unixsock"
	"github.com/vmdisk/vmdisk/nbd/server"
)

// nbdFrontEnd serves the exports over NBD.
type nbdFrontEnd struct {
	flags     *serveFlags
	config    server.Config
	listeners []net.Listener
	private   string // the folder of --run's own socket
	srv       *server.Server
	drained   bool
}

func (n *nbdFrontEnd) prepare() (err error) {
	n.config, err = n.flags.tlsConfig()
	return err
}

func (n *nbdFrontEnd) listen(s serving) (err error) {
	n.listeners, n.private, err = n.flags.listen(s.given, n.secure(), s.account)
	if err != nil {
		return err
	}
	for _, e := range s.exports {
		n.config.Exports = append(n.config.Exports, server.Export(e))
	}
	n.flags.limits.apply(&n.config)
	n.config.Log = s.log
	if os.Getenv("GOGC") == "" {
		// Little is allocated while requests are served, and what many short connections leave
		// behind should not double what is held: a thousand of them took 325 MiB, and so 207.
		debug.SetGCPercent(50)
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(server.RecommendedProcs())
	}
	n.srv, err = server.New(n.config)
	return err
}

// secure: who comes without TLS is refused.
func (n *nbdFrontEnd) secure() bool { return n.config.TLSMode == server.TLSRequire }

func (n *nbdFrontEnd) describe(e export) (uris []string) {
	for _, l := range n.listeners {
		uris = append(uris, uri(l, e.Name, n.secure()))
	}
	return uris
}

// needs: sockets with names are removed in the end.
func (n *nbdFrontEnd) needs(needs *confine.Needs) {
	for _, l := range n.listeners {
		if u, ok := l.(*unixsock.Listener); ok {
			needs.Remove = append(needs.Remove, unixsock.Dir(u.Addr().String()))
		}
	}
	if n.private != "" {
		needs.RemoveDirs = append(needs.RemoveDirs, filepath.Dir(n.private))
	}
}

func (n *nbdFrontEnd) run(ctx context.Context) error {
	group := new(errgroup.Group)
	for _, l := range n.listeners {
		group.Go(func() error {
			err := n.srv.Serve(ctx, l)
			if errors.Is(err, server.ErrClosed) {
				return nil // drained before this began
			}
			if err != nil {
				closeAll(n.listeners) // ends the others, too
			}
			return err
		})
	}
	return group.Wait()
}

func (n *nbdFrontEnd) drain(ctx context.Context) error {
	n.drained = true
	return n.srv.Shutdown(ctx)
}

func (n *nbdFrontEnd) end() {
	if !n.drained {
		closeAll(n.listeners)
		if n.srv != nil {
			_ = n.srv.Shutdown(context.Background()) // nothing has been served
		}
	}
	removePrivate(n.private)
}

// removePrivate removes the folder of the socket of --run, which is empty by then.
func removePrivate(dir string) {
	if dir != "" {
		_ = os.Remove(dir)
	}
}

// makePrivate makes that folder, for a if that is not nil.
func makePrivate(a *confine.Account) (dir string, err error) {
	if dir, err = os.MkdirTemp("", "vmdisk-"); err != nil || a == nil {
		return dir, err
	}
	if err = os.Chown(dir, a.UID, a.GID); err != nil {
		removePrivate(dir)
	}
	return dir, err
}

// listen opens the sockets besides those given; private is the folder of --run's own.
func (f *serveFlags) listen(given []net.Listener, guarded bool, account *confine.Account) (_ []net.Listener, private string, _ error) {
	o, err := f.sockets.options(guarded)
	if err == nil {
		err = f.sockets.check(f.nbd, given, f.run != "" && len(f.nbd)+len(given) == 0)
	}
	if err == nil {
		err = guardGiven(given, o)
	}
	if err != nil {
		closeAll(given)
		return nil, "", err
	}
	if len(given) > 0 && len(f.nbd) == 0 {
		return given, "", nil
	}
	addrs := f.nbd
	switch {
	case len(addrs) > 0:
	case f.run != "":
		if private, err = makePrivate(account); err != nil {
			return nil, "", err
		}
		if account != nil {
			o.Owner = &unixsock.Owner{UID: account.UID, GID: account.GID}
		}
		addrs = []string{"unix:" + filepath.Join(private, "sock")}
	default:
		addrs = []string{defaultListen}
	}
	opened, err := listen(addrs, o)
	if err != nil {
		closeAll(given)
		removePrivate(private)
		return nil, "", err
	}
	return append(given, opened...), private, nil
}
