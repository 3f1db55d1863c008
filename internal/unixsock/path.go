package unixsock

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// boundPath is a path while this process has a socket there. The folder stays open:
// removing the path needs nothing to be opened, which a process that has restricted
// itself could not do.
type boundPath struct {
	name string
	dir  *os.File
	base string
	dev  uint64
	ino  uint64
	once sync.Once
	err  error // of remove
}

func hold(name string) (*boundPath, error) {
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return nil, err
	}
	return &boundPath{name: name, dir: dir, base: filepath.Base(name)}, nil
}

func (p *boundPath) release() error { return p.dir.Close() }

// lockTime is how long others may hold the lock of a folder: what is done under it
// takes less than a millisecond.
const lockTime = 5 * time.Second

// locked runs f while no other server makes or removes a socket in the folder.
//
// The lock is on the folder itself. A lock file beside the socket would have to stay
// for ever: whoever removes it lets two servers hold locks on two files of one name.
// Where a folder cannot be locked (NFS has locks for writable files alone) a file
// does it, and stays.
func (p *boundPath) locked(f func() error) error {
	lock := p.dir
	err := flock(lock)
	if errors.Is(err, unix.EBADF) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		if lock, err = p.lockFile(); err == nil {
			defer lock.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("lock the folder of the socket: %w", err)
	}
	defer unix.Flock(int(lock.Fd()), unix.LOCK_UN)
	return f()
}

func (p *boundPath) lockFile() (*os.File, error) {
	fd, err := unix.Openat(int(p.dir.Fd()), p.base+".lock", unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), p.name+".lock")
	if err := flock(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func flock(f *os.File) error {
	for end := time.Now().Add(lockTime); ; time.Sleep(time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) && (!errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end)) {
			return err
		}
	}
}

// listen binds the path and listens. With a mode, the path begins with none, so that its
// owner and mode can be set without a moment in which others could come in.
func (p *boundPath) listen(o Options) (*net.UnixListener, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), p.name)
	defer f.Close()
	err = p.locked(func() error {
		if err := p.removeStale(); err != nil {
			return err
		}
		if o.Mode != nil {
			// The file begins with the socket's own mode. Who looked the path up while it was wider
			// would be let in by a listen that comes a moment later: the kernel checks permission at
			// the look-up and the listening afterwards.
			if err := unix.Fchmod(fd, 0); err != nil {
				return os.NewSyscallError("fchmod", err)
			}
		}
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: p.name}); err != nil {
			return os.NewSyscallError("bind", err)
		}
		err := p.own(o)
		if err == nil {
			err = unix.Listen(fd, backlog)
		}
		if err != nil {
			return errors.Join(err, p.unlinkOurs())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, errors.Join(err, p.locked(p.unlinkOurs))
	}
	return l.(*net.UnixListener), nil
}

// own gives the path its owner and mode, and notes which one it is.
func (p *boundPath) own(o Options) error {
	fd, st, err := socketFile(int(p.dir.Fd()), p.base)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	p.dev, p.ino = st.Dev, st.Ino
	if o.Owner != nil {
		if err := unix.Fchownat(fd, "", o.Owner.UID, o.Owner.GID, unix.AT_EMPTY_PATH); err != nil {
			return fmt.Errorf("give it to user %d and group %d: %w", o.Owner.UID, o.Owner.GID, err)
		}
	}
	if o.Mode != nil {
		if err := chmod(fd, *o.Mode); err != nil {
			return fmt.Errorf("set its mode: %w", err)
		}
	}
	return nil
}

// removeStale removes the socket that a crashed server left behind. A socket that
// answers, and anything that is no socket, is left alone.
func (p *boundPath) removeStale() error {
	fd, _, err := socketFile(int(p.dir.Fd()), p.base)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if errors.Is(err, errNoSocket) {
		return fmt.Errorf("%s exists and is no socket; remove it, or choose another path", p.name)
	}
	if err != nil {
		return err
	}
	unix.Close(fd)
	switch err := probe(p.name); {
	case err == nil || errors.Is(err, unix.EAGAIN): // a full queue is somebody's
		return errors.New("it is in use: another server answers there; end it, or choose another path")
	case !errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("a socket is there that cannot be asked whether it is in use: %w", err)
	}
	return unix.Unlinkat(int(p.dir.Fd()), p.base, 0)
}

// probe connects without waiting: a server that has stopped accepting would hold it for ever.
func probe(name string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: name})
}

// remove unlinks the path if it still is ours. Who has given up the right to do so
// (--user) leaves it; the next server replaces it.
func (p *boundPath) remove() error {
	p.once.Do(func() {
		p.err = errors.Join(p.locked(p.unlinkOurs), p.release())
	})
	return p.err
}

func (p *boundPath) unlinkOurs() error {
	var st unix.Stat_t
	err := unix.Fstatat(int(p.dir.Fd()), p.base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && st.Dev == p.dev && st.Ino == p.ino {
		err = unix.Unlinkat(int(p.dir.Fd()), p.base, 0)
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS) {
		return nil
	}
	return err
}
