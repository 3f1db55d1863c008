package unixsock

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Options say who may connect. The zero value leaves a path the permissions that
// the umask gives it.
type Options struct {
	// Mode are the permissions of a path, exactly, whatever the umask; nil: as the umask has it.
	Mode *fs.FileMode
	// Owner of a path; nil: this process's user and group. An id of -1 stays as it is.
	Owner *Owner
	// Peers are the only users that may connect; nil: whoever the path lets.
	Peers []int
	// Guarded says that whoever connects has to show a credential anyhow, so that
	// an abstract name is not open to all.
	Guarded bool
	// Refused, if not nil, is told of peers that were turned away.
	Refused func(uid int)
}

// Owner is a user and a group.
type Owner struct{ UID, GID int }

// maxPath is the longest path of a unix socket, unix(7), less the zero.
const maxPath = 107

// backlog is cut by the kernel to net.core.somaxconn.
const backlog = 4096

// Abstract reports whether a socket's name is no path: it begins with @ or NUL.
func Abstract(name string) bool { return name != "" && (name[0] == '@' || name[0] == 0) }

// Check refuses an abstract name that anybody could connect to, and options that
// have no effect on one.
func Check(name string, o Options) error {
	switch {
	case name == "":
		return errors.New("the path of the socket is empty")
	case !Abstract(name):
		return nil
	case o.Mode != nil || o.Owner != nil:
		return ErrNoPermissions
	case !o.Guarded && o.Peers == nil:
		return ErrOpenToAll
	}
	return nil
}

// ErrOpenToAll refuses a socket that every process of the host may connect to.
var ErrOpenToAll = errors.New("an abstract socket has no permissions, so every user of the host could connect; require TLS, name the users that may, or use a path")

// ErrNoPermissions refuses a mode or an owner for a socket that can have none.
var ErrNoPermissions = errors.New("an abstract socket has no permissions and no owner; name a path, or the users that may connect")

// Listener listens on a unix socket. Close removes the path if it still is this one's.
type Listener struct {
	*net.UnixListener
	addr    net.UnixAddr
	options Options
	path    *boundPath // nil: abstract, or somebody else's
}

// Listen listens on a path or, after @ or NUL, an abstract name.
func Listen(name string, o Options) (*Listener, error) {
	if err := Check(name, o); err != nil {
		return nil, err
	}
	if Abstract(name) {
		name = "@" + name[1:]
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
		if err != nil {
			return nil, err
		}
		return &Listener{l, net.UnixAddr{Name: name, Net: "unix"}, o, nil}, nil
	}
	if len(name) > maxPath {
		return nil, fmt.Errorf("its path has %d bytes, %d are possible; use a shorter one", len(name), maxPath)
	}
	return listenPath(name, o)
}

// Given wraps a socket that a service manager made; the path and its permissions
// are the manager's.
func Given(l *net.UnixListener, o Options) (*Listener, error) {
	addr, _ := l.Addr().(*net.UnixAddr)
	if o.Mode != nil || o.Owner != nil {
		return nil, errors.New("the service manager made the socket: set SocketMode=, SocketUser= and SocketGroup= in its unit")
	}
	if addr == nil {
		addr = &net.UnixAddr{Net: "unix"}
	}
	if err := Check(addr.Name, o); err != nil && addr.Name != "" {
		return nil, err
	}
	return &Listener{l, *addr, o, nil}, nil
}

func listenPath(name string, o Options) (*Listener, error) {
	path, err := hold(name)
	if err != nil {
		return nil, err
	}
	l, err := path.listen(o)
	if err != nil {
		return nil, errors.Join(err, path.release())
	}
	return &Listener{l, net.UnixAddr{Name: name, Net: "unix"}, o, path}, nil
}

// Addr is where clients connect.
func (l *Listener) Addr() net.Addr { return &l.addr }

// Accept returns the next connection of a peer that is allowed.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, err := peer(c)
		if l.options.Peers == nil || err == nil && slices.Contains(l.options.Peers, uid) {
			return c, nil
		}
		_ = c.Close()
		if l.options.Refused != nil {
			l.options.Refused(uid)
		}
	}
}

// peer is the user that connected, as the kernel noted it at that time.
func peer(c *net.UnixConn) (uid int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	uid = -1
	ctlErr := raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			uid = int(cred.Uid)
		}
	})
	return uid, errors.Join(err, ctlErr)
}

// Close stops listening. The path goes first: while the socket is open its inode
// cannot be another's.
func (l *Listener) Close() error {
	var err error
	if l.path != nil {
		err = l.path.remove()
	}
	return errors.Join(err, l.UnixListener.Close())
}

// Dir is the folder in which the path lies, "" for an abstract name.
func Dir(name string) string {
	if name == "" || Abstract(name) {
		return ""
	}
	if abs, err := filepath.Abs(name); err == nil {
		name = abs
	}
	return filepath.Dir(strings.TrimRight(name, "/"))
}

var errNoSocket = errors.New("no socket")

// socketFile opens a bound socket's path without following a link put in its place.
func socketFile(dir int, base string) (fd int, st unix.Stat_t, err error) {
	fd, err = unix.Openat(dir, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, st, err
	}
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		err = errNoSocket
	}
	if err != nil {
		unix.Close(fd)
		return -1, st, err
	}
	return fd, st, nil
}

// chmod changes the permissions of a descriptor that is a mere path.
func chmod(fd int, mode fs.FileMode) error {
	return os.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode.Perm())
}
