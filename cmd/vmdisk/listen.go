package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/vmdisk/vmdisk/diskurl"
	"github.com/vmdisk/vmdisk/internal/unixsock"
)

const defaultListen = "localhost:10809"

// firstListenFD is where systemd's socket activation puts the sockets
// (sd_listen_fds(3), SD_LISTEN_FDS_START).
const firstListenFD = 3

// listen opens every address; on an error none stays open.
func listen(addrs []string, o unixsock.Options) (_ []net.Listener, err error) {
	var all []net.Listener
	defer func() {
		if err != nil {
			closeAll(all)
		}
	}()
	for _, a := range addrs {
		l, err := listenOn(a, o)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

func closeAll(all []net.Listener) {
	for _, l := range all {
		l.Close()
	}
}

func unixAddr(addr string) bool { return strings.HasPrefix(addr, "unix:") }

func listenOn(addr string, o unixsock.Options) (net.Listener, error) {
	path, unix := strings.CutPrefix(addr, "unix:")
	if !unix {
		l, err := net.Listen("tcp", withPort(addr))
		return l, wrapListen(addr, err)
	}
	if path == "" {
		return nil, usagef("--nbd %s: the path is empty", addr)
	}
	if !unixsock.Abstract(path) {
		path = absolute(path)
	}
	l, err := unixsock.Listen(path, o)
	if err != nil {
		return nil, wrapListen(addr, explainOpen(err))
	}
	return l, nil
}

func wrapListen(addr string, err error) error {
	if err == nil {
		return nil
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Addr != nil {
		err = op.Err // its text repeats the address
	}
	return fmt.Errorf("listen on %s: %w", addr, err)
}

// withPort adds NBD's port to a host that has none.
func withPort(addr string) string {
	if _, _, err := net.SplitHostPort(addr); err == nil {
		return addr
	}
	return net.JoinHostPort(strings.Trim(addr, "[]"), "10809")
}

// guardGiven has the sockets of a service manager obey the same rules.
func guardGiven(all []net.Listener, o unixsock.Options) error {
	o.Mode, o.Owner = nil, nil // refused before, where they were meant for these
	for i, l := range all {
		u, ok := l.(*net.UnixListener)
		if !ok {
			continue
		}
		guarded, err := unixsock.Given(u, o)
		if err != nil {
			return fmt.Errorf("socket %d of LISTEN_FDS, %s: %w", i, l.Addr(), explainOpen(err))
		}
		all[i] = guarded
	}
	return nil
}

// activated returns the sockets that a service manager handed over, if any.
// The variables are removed, so that a child does not take them for its own.
func activated() ([]net.Listener, error) {
	pid, fds := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	if pid != strconv.Itoa(os.Getpid()) || fds == "" {
		return nil, nil
	}
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	n, err := strconv.Atoi(fds)
	if err != nil || n < 1 || n > 1000 {
		return nil, fmt.Errorf("LISTEN_FDS=%s is not a number of sockets", fds)
	}
	var all []net.Listener
	for fd := firstListenFD; fd < firstListenFD+n; fd++ {
		syscall.CloseOnExec(fd)
		f := os.NewFile(uintptr(fd), "LISTEN_FD_"+strconv.Itoa(fd))
		l, err := net.FileListener(f) // a copy; f is ours to close
		f.Close()
		if err != nil {
			closeAll(all)
			return nil, fmt.Errorf("file descriptor %d of LISTEN_FDS is no listening socket: %w", fd, err)
		}
		all = append(all, l)
	}
	return all, nil
}

// uri is how a client reaches an export on l.
func uri(l net.Listener, export string, secure bool) string {
	a := diskurl.NBDAddr{Network: "tcp", Export: export, TLS: secure}
	if l.Addr().Network() == "unix" {
		a.Network, a.Host = "unix", absolute(l.Addr().String())
	} else {
		a.Host = reachable(l.Addr())
	}
	return a.String()
}

// absolute makes a path good for clients elsewhere; "@name" is no path.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil && !strings.HasPrefix(path, "@") {
		return abs
	}
	return path
}

// reachable turns the wildcard address into one a client can connect to.
func reachable(a net.Addr) string {
	if t, ok := a.(*net.TCPAddr); ok && t.IP.IsUnspecified() {
		return net.JoinHostPort("localhost", strconv.Itoa(t.Port))
	}
	return a.String()
}
