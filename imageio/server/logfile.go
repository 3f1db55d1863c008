package server

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// rotatingFile is a log file that is renamed to FILE.1 … FILE.N as it grows past
// maxBytes. Safe for concurrent use.
//
// The daemon may be root when it opens its log, and the log's folder belong to the user
// that it becomes, who must not make root write to, or give away, a file of his choice.
// In a folder that others may write to, the log is a regular file with one name, and no
// link; the folder itself is held, so that it cannot be another one later.
type rotatingFile struct {
	path     string
	maxBytes int64
	backups  int

	mu     sync.Mutex
	folder int // descriptor, O_PATH
	f      *os.File
	size   int64
}

func openLog(cfg LogConfig) (*rotatingFile, error) {
	r := &rotatingFile{path: cfg.File, maxBytes: cfg.MaxBytes, backups: cfg.BackupCount}
	var err error
	r.folder, err = unix.Open(filepath.Dir(cfg.File), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the log: %s: %w", filepath.Dir(cfg.File), err)
	}
	if err := r.open(); err != nil {
		unix.Close(r.folder)
		return nil, err
	}
	return r, nil
}

func (r *rotatingFile) open() error {
	f, size, err := r.openFile()
	if err != nil {
		return fmt.Errorf("open the log: %s: %w", r.path, err)
	}
	r.f, r.size = f, size
	return nil
}

const logFlags = unix.O_APPEND | unix.O_WRONLY | unix.O_CLOEXEC | unix.O_NOCTTY

func (r *rotatingFile) openFile() (*os.File, int64, error) {
	var folder unix.Stat_t
	if err := unix.Fstat(r.folder, &folder); err != nil {
		return nil, 0, err
	}
	name, trusted := filepath.Base(r.path), ownFolder(&folder)
	flags := logFlags | unix.O_CREAT
	if !trusted {
		flags |= unix.O_NOFOLLOW | unix.O_NONBLOCK // a FIFO must not stop the start
	}
	fd, err := unix.Openat(r.folder, name, flags, 0o640)
	if errors.Is(err, unix.ELOOP) {
		return nil, 0, errors.New("it is a link, in a folder that another user may write to: remove it, or log elsewhere")
	}
	if err != nil {
		return nil, 0, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && !trusted && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1) {
		err = errors.New("it is no regular file, or has another name too, in a folder that another user may write to: remove it, or log elsewhere")
	}
	if err != nil {
		unix.Close(fd)
		return nil, 0, err
	}
	return os.NewFile(uintptr(fd), r.path), st.Size, nil
}

// ownFolder: nobody but root and this process's user can put names into the folder.
func ownFolder(st *unix.Stat_t) bool {
	return (st.Uid == 0 || int(st.Uid) == os.Geteuid()) && st.Mode&0o022 == 0
}

func (r *rotatingFile) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.maxBytes > 0 && r.size > 0 && r.size+int64(len(p)) > r.maxBytes {
		if err := r.rotate(); err != nil {
			return 0, err
		}
	}
	n, err := r.f.Write(p)
	r.size += int64(n)
	return n, err
}

// rotate begins a new file. Where the old one cannot be renamed or emptied it goes on
// growing: a log beyond its limit is better than none, and so is the old one where no
// new one can be opened.
func (r *rotatingFile) rotate() error {
	if r.backups == 0 {
		_ = r.f.Truncate(0)
	}
	name := filepath.Base(r.path)
	for i := r.backups; i > 0; i-- {
		from := name
		if i > 1 {
			from = fmt.Sprintf("%s.%d", name, i-1)
		}
		_ = unix.Renameat(r.folder, from, r.folder, fmt.Sprintf("%s.%d", name, i))
	}
	old := r.f
	if err := r.open(); err != nil {
		r.size = 0 // try again after as much
		_, _ = fmt.Fprintln(old, err)
		return nil
	}
	return old.Close()
}

// giveTo makes uid and gid the owners of the file that is open, whatever its name
// leads to now.
func (r *rotatingFile) giveTo(uid, gid int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.f.Chown(uid, gid)
}

func (r *rotatingFile) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.f.Close(), unix.Close(r.folder))
}
