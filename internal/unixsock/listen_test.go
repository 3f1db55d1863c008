package unixsock

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func mode(m fs.FileMode) *fs.FileMode { return &m }

func mustListen(t *testing.T, name string, o Options) *Listener {
	t.Helper()
	l, err := Listen(name, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func dials(name string) error {
	c, err := net.Dial("unix", name)
	if err == nil {
		c.Close()
	}
	return err
}

// TestMode: the permissions are those asked for, whatever the umask, narrower and wider.
func TestMode(t *testing.T) {
	for _, umask := range []int{0, 0o077} {
		for _, want := range []fs.FileMode{0o600, 0o660, 0o666, 0o700} {
			old := unix.Umask(umask)
			path := filepath.Join(t.TempDir(), "s")
			l, err := Listen(path, Options{Mode: mode(want)})
			unix.Umask(old)
			if err != nil {
				t.Fatal(err)
			}
			st, err := os.Lstat(path)
			if err != nil || st.Mode() != fs.ModeSocket|want {
				t.Errorf("umask %03o: mode %v, want %v (%v)", umask, st.Mode(), want, err)
			}
			if err := dials(path); err != nil {
				t.Error(err)
			}
			l.Close()
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("left behind: %v", err)
			}
		}
	}
}

// TestOwner: a socket is given away.
func TestOwner(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root gives a file away")
	}
	path := filepath.Join(t.TempDir(), "s")
	mustListen(t, path, Options{Mode: mode(0o660), Owner: &Owner{UID: 12345, GID: 54321}})
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil || st.Uid != 12345 || st.Gid != 54321 || st.Mode&0o777 != 0o660 {
		t.Errorf("owner %d:%d, mode %o (%v)", st.Uid, st.Gid, st.Mode, err)
	}
}

// asOther runs f on a thread of user 12345 until it returns; the thread ends with it.
func asOther(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, 12345, 12345, 12345); e != 0 {
			done <- e
			return
		}
		done <- f()
	}()
	return <-done
}

// connectRaw connects on this very thread.
func connectRaw(name string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: name})
}

// TestNoWindow: another user that tries all the time never gets into a socket of
// mode 0600 while it is made, with the widest umask.
func TestNoWindow(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root has a thread of another user")
	}
	defer unix.Umask(unix.Umask(0))
	dir := t.TempDir()
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "s")
	var stop atomic.Bool
	var tries, refusedMode atomic.Int64
	var other sync.WaitGroup
	other.Go(func() {
		err := asOther(func() error {
			for !stop.Load() {
				err := connectRaw(path)
				tries.Add(1)
				switch {
				case err == nil:
					return errors.New("connected")
				case errors.Is(err, unix.EACCES):
					refusedMode.Add(1)
				case !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ECONNREFUSED):
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Errorf("the other user: %v", err)
			stop.Store(true)
		}
	})
	for end := time.Now().Add(30 * time.Second); !stop.Load() && (tries.Load() < 2000 || refusedMode.Load() == 0) && time.Now().Before(end); {
		l, err := Listen(path, Options{Mode: mode(0o600)})
		if err != nil {
			t.Error(err)
			break
		}
		runtime.Gosched()
		l.Close()
	}
	stop.Store(true)
	other.Wait()
	if refusedMode.Load() == 0 {
		t.Errorf("in %d tries the other user never met the socket: the test shows nothing", tries.Load())
	}
}

// TestPeers: whom the kernel names is let in or not, on a path and an abstract name.
func TestPeers(t *testing.T) {
	t.Parallel()
	for _, name := range []string{filepath.Join(t.TempDir(), "s"), "@vmdisk-test-peers"} {
		refused := make(chan int, 1)
		for _, me := range []bool{true, false} {
			uid := os.Getuid()
			if !me {
				uid += 12345
			}
			l, err := Listen(name, Options{Peers: []int{uid}, Refused: func(uid int) { refused <- uid }})
			if err != nil {
				t.Fatal(err)
			}
			accepted := make(chan error, 1)
			go func() {
				c, err := l.Accept()
				if err == nil {
					c.Close()
				}
				accepted <- err
			}()
			if err := dials(name); err != nil {
				t.Error(err)
			}
			select {
			case err := <-accepted:
				if !me || err != nil {
					t.Errorf("%s: accepted (me: %v): %v", name, me, err)
				}
			case uid := <-refused:
				if me || uid != os.Getuid() {
					t.Errorf("%s: user %d was refused (me: %v)", name, uid, me)
				}
			}
			l.Close()
		}
	}
}

func TestAbstractRefused(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"@vmdisk-test-open", "\x00vmdisk-test-open"} {
		if _, err := Listen(name, Options{}); !errors.Is(err, ErrOpenToAll) {
			t.Errorf("%q: %v", name, err)
		}
		if _, err := Listen(name, Options{Guarded: true, Mode: mode(0o600)}); !errors.Is(err, ErrNoPermissions) {
			t.Errorf("%q: %v", name, err)
		}
		l := mustListen(t, name, Options{Guarded: true})
		if got := l.Addr().String(); got != "@vmdisk-test-open" {
			t.Errorf("address %q", got)
		}
		l.Close()
	}
}

// TestNotOurs: a listener that is closed takes away its own socket, not one that
// has come in its place.
func TestNotOurs(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	first := mustListen(t, path, Options{})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second := mustListen(t, path, Options{})
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if err := dials(path); err != nil {
		t.Errorf("the second server's socket: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
}

// TestKeepsOthers: what is no socket, a link to one, and a server that does not
// accept but has a full queue are left alone.
func TestKeepsOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, link, busy := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "busy")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: busy}), unix.Listen(fd, 0), os.Symlink(busy, link)); err != nil {
		t.Fatal(err)
	}
	for probe(busy) == nil { // the test's own connections wait in the queue, closed
	}
	for _, c := range []struct{ path, want string }{
		{file, "exists and is no socket"}, {link, "exists and is no socket"}, {busy, "another server answers there"},
		{filepath.Join(dir, "none", "s"), "no such file"}, {filepath.Join(dir, strings.Repeat("x", 108)), "bytes"}, {"", "empty"},
	} {
		before, _ := os.Lstat(c.path)
		l, err := Listen(c.path, Options{})
		if err == nil {
			l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.path, err, c.want)
		}
		if after, _ := os.Lstat(c.path); before != nil && !os.SameFile(before, after) {
			t.Errorf("%s was replaced", c.path)
		}
	}
}

// TestLockFile: where the folder cannot be locked, a file does it.
func TestLockFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	a, err := hold(path)
	if err != nil {
		t.Fatal(err)
	}
	defer a.release()
	first, err := a.lockFile()
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan error)
	go func() {
		f, err := a.lockFile()
		if err == nil {
			f.Close()
		}
		second <- err
	}()
	select {
	case err := <-second:
		t.Errorf("two locks at once (%v)", err)
	case <-time.After(50 * time.Millisecond):
		first.Close()
		if err := <-second; err != nil {
			t.Error(err)
		}
	}
}
