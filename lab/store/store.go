package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Options describe a store and its golden disk.
type Options struct {
	// Dir is made where missing; all files lie in it, and one store uses it at a
	// time. Its path is at most 80 bytes, for the sake of unix sockets.
	Dir string
	// Size of the golden disk, and of every node's, in bytes: a multiple of 4096.
	Size int64
	// Data is how many bytes of the golden disk are data that does not compress: at
	// the start, or as the file golden.data of the file system.
	Data int64
	// FileSystem of the golden disk: none, ext4 or xfs.
	FileSystem string
	// Vmdisk is the path of the vmdisk binary.
	Vmdisk string
	// Log, if not nil, gets a line for each step that takes a while.
	Log io.Writer
}

// maxDir leaves room for the names of sockets; a unix socket's path has 108 bytes.
const maxDir = 80

// unit of every disk's size: no sector or page is larger.
const unit = 4096

// Least sizes of file systems.
const (
	minExt4 = 16 << 20
	minXFS  = 300 << 20
)

// check completes the options.
func (o *Options) check() error {
	dir, err := filepath.Abs(o.Dir)
	switch {
	case err != nil:
		return err
	case o.Dir == "":
		return errors.New("the lab's work folder has no name")
	case len(dir) > maxDir:
		return fmt.Errorf("work folder %s: the path has %d bytes, and unix sockets in it allow %d: use a shorter one", dir, len(dir), maxDir)
	case strings.ContainsFunc(dir, func(r rune) bool { return r < ' ' }):
		return fmt.Errorf("work folder %q: control characters in the path: use another", dir)
	case o.Size <= 0 || o.Size%unit != 0:
		return fmt.Errorf("disk size %d: want a multiple of %d bytes", o.Size, unit)
	}
	o.Dir = dir
	return o.checkData()
}

func (o *Options) checkData() error {
	room, least := o.Size, int64(0)
	switch o.FileSystem {
	case "none":
	case "ext4":
		room, least = o.Size-o.Size/10, minExt4
	case "xfs":
		room, least = o.Size-o.Size/10, minXFS
	default:
		return fmt.Errorf("file system %q of the disk: use none, ext4 or xfs", o.FileSystem)
	}
	switch {
	case o.Size < least:
		return fmt.Errorf("a disk of %s is too small for %s: %s at least", sizeText(o.Size), o.FileSystem, sizeText(least))
	case o.Data < 0 || o.Data > room:
		return fmt.Errorf("%d bytes of data do not fit on a disk of %s (file system: %s)", o.Data, sizeText(o.Size), o.FileSystem)
	}
	return nil
}

// Store makes disks. Its methods may be called by several goroutines at a time;
// what they share is made by one of them.
type Store struct {
	o       Options
	run     runner
	lock    *os.File
	ledger  *ledger
	madeDir bool

	mu     sync.Mutex // of all below, held while something is made
	shared *scope     // host file systems and golden disks
	hostFS map[string]*hostFS
	golden map[string]bool // paths of golden disks
	used   map[string]bool // devices of the user that got our data
	sets   map[*Set]bool
	nextID int
	closed bool
}

// Open takes possession of the folder, and undoes what a killed run left in it.
// An error in that means that something could not be undone and names it.
func Open(ctx context.Context, o Options) (*Store, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	s := &Store{o: o, run: runCommand, hostFS: map[string]*hostFS{}, golden: map[string]bool{}, used: map[string]bool{}, sets: map[*Set]bool{}}
	if err := s.open(ctx); err != nil {
		if s.lock != nil {
			err = errors.Join(err, s.release())
		}
		return nil, fmt.Errorf("the lab's work folder: %w", err)
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) (err error) {
	if _, err := os.Stat(s.o.Dir); os.IsNotExist(err) {
		s.madeDir = true
	}
	if err := os.MkdirAll(s.o.Dir, 0o755); err != nil {
		return err
	}
	// The kernel names the files behind loop devices and mounts by their real path.
	if s.o.Dir, err = filepath.EvalSymlinks(s.o.Dir); err != nil {
		return err
	}
	if s.lock, err = lockDir(filepath.Join(s.o.Dir, "lock"), s.o.Dir); err != nil {
		return err
	}
	if s.ledger, err = openLedger(filepath.Join(s.o.Dir, "ledger.json")); err != nil {
		return err
	}
	s.shared = s.newScope()
	return s.recover(ctx)
}

// Close ends all sets and removes everything that the store has made. It can be
// called again, which tries what failed before once more.
func (s *Store) Close() error {
	ctx := context.Background()
	s.mu.Lock()
	sets := make([]*Set, 0, len(s.sets))
	for set := range s.sets {
		sets = append(sets, set)
	}
	s.mu.Unlock()
	var errs []error
	for _, set := range sets {
		errs = append(errs, set.Close(ctx))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	errs = append(errs, s.shared.close(ctx))
	if len(s.shared.made) == 0 && s.lock != nil {
		errs = append(errs, s.release())
	}
	return errors.Join(errs...)
}

// release gives the folder back, and removes it if it was made by us and is empty.
func (s *Store) release() error {
	var err error
	if s.ledger != nil {
		err = s.ledger.remove()
	}
	err = errors.Join(err, removeFile(s.lock.Name()), s.lock.Close())
	s.lock = nil
	if s.madeDir {
		if rmErr := unix.Rmdir(s.o.Dir); rmErr != nil && !errors.Is(rmErr, syscall.ENOTEMPTY) && !errors.Is(rmErr, syscall.ENOENT) {
			err = errors.Join(err, fmt.Errorf("remove %s: %w", s.o.Dir, rmErr))
		}
	}
	return err
}

func (s *Store) logf(format string, args ...any) {
	if s.o.Log != nil {
		fmt.Fprintf(s.o.Log, format+"\n", args...)
	}
}

// sizeText is a size for people.
func sizeText(n int64) string {
	const units = "KMGTPE"
	if n < 1<<10 {
		return fmt.Sprintf("%d bytes", n)
	}
	v, i := float64(n)/(1<<10), 0
	for v >= 1<<10 && i < len(units)-1 {
		v /= 1 << 10
		i++
	}
	return fmt.Sprintf("%.4g %ciB", v, units[i])
}
