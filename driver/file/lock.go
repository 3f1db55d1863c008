package file

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrInUse: another opening of the same storage excludes this one.
var ErrInUse = errors.New("disk is in use")

// lockKey is the identity of the storage: device and inode of a file, device
// number of a block device however many nodes name it.
type lockKey struct {
	block    bool
	dev, ino uint64
}

func keyOf(st *unix.Stat_t) lockKey {
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return lockKey{block: true, dev: st.Rdev}
	}
	return lockKey{dev: st.Dev, ino: st.Ino}
}

// String is Info.ID.
func (k lockKey) String() string {
	if k.block {
		return fmt.Sprintf("block:%d:%d", unix.Major(k.dev), unix.Minor(k.dev))
	}
	return fmt.Sprintf("file:%d:%d", k.dev, k.ino)
}

// Identity is the Info.ID of the disk at path, without opening it.
func Identity(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return keyOf(&st).String(), nil
}

// opened counts this process's openings of each disk. OFD locks exclude those
// too, but their error would blame another process, and --force-share skips
// them, while two writing Disks of one file in one process are never right.
var opened = struct {
	sync.Mutex
	m map[lockKey]*openings
}{m: map[lockKey]*openings{}}

type openings struct{ readers, writers, sharedReaders int }

func (o *openings) refuse(f *File) error {
	switch {
	case !f.opts.ReadOnly && o.writers > 0:
		return fmt.Errorf("%w: this process has it open for writing already", ErrInUse)
	case f.opts.ForceShare:
		return nil
	case o.writers > 0:
		return fmt.Errorf("%w: this process has it open for writing", ErrInUse)
	case !f.opts.ReadOnly && o.readers > 0:
		return fmt.Errorf("%w: this process has it open for reading", ErrInUse)
	}
	return nil
}

func (o *openings) count(f *File) *int {
	switch {
	case !f.opts.ReadOnly:
		return &o.writers
	case f.opts.ForceShare:
		return &o.sharedReaders
	}
	return &o.readers
}

// acquire makes the file ours or fails with ErrInUse.
func (f *File) acquire() error {
	opened.Lock()
	defer opened.Unlock()
	o := opened.m[f.key]
	if o == nil {
		o = &openings{}
	}
	if err := o.refuse(f); err != nil {
		return err
	}
	if err := f.lockBytes(); err != nil {
		return err
	}
	*o.count(f)++
	opened.m[f.key] = o
	return nil
}

func (f *File) release() {
	opened.Lock()
	defer opened.Unlock()
	o := opened.m[f.key]
	*o.count(f)--
	if *o == (openings{}) {
		delete(opened.m, f.key)
	}
}

// QEMU's image locks (block/file-posix.c): a user holds a shared lock on byte
// 100+n for each permission n it uses, and on byte 200+n for each permission it
// denies to others; then it looks whether anybody uses what it denies or denies
// what it uses. Taking before looking means that of two that race at most one
// goes on.
const (
	permBase   = 100
	sharedBase = 200

	permRead   = 0 // BLK_PERM_CONSISTENT_READ
	permWrite  = 1 // BLK_PERM_WRITE
	permResize = 3 // BLK_PERM_RESIZE
)

var permNames = map[int]string{permRead: "read", permWrite: "write", permResize: "resize"}

// permissions returns what this opening uses and what it denies to others.
func (f *File) permissions() (use, deny []int) {
	use = []int{permRead}
	if !f.opts.ReadOnly {
		use = []int{permRead, permWrite, permResize}
	}
	if !f.opts.ForceShare {
		deny = []int{permWrite, permResize}
	}
	return use, deny
}

func (f *File) lockBytes() error {
	use, deny := f.permissions()
	for _, p := range use {
		if err := f.lockByte(permBase + p); err != nil {
			return err
		}
	}
	for _, p := range deny {
		if err := f.lockByte(sharedBase + p); err != nil {
			return err
		}
	}
	if f.opts.ForceShare {
		return nil
	}
	for _, p := range use {
		if err := f.testByte(sharedBase+p, "another process denies permission to "+permNames[p]); err != nil {
			return err
		}
	}
	for _, p := range deny {
		if err := f.testByte(permBase+p, "another process holds permission to "+permNames[p]); err != nil {
			return err
		}
	}
	return nil
}

// unlockBytes gives the locks back by name. Closing the descriptor would do if it
// were the last reference, but a ring that had the file registered is torn down
// by the kernel some milliseconds after its close, or after the process ended: the
// next program to open the disk then found it in use.
func (f *File) unlockBytes() {
	lk := unix.Flock_t{Type: unix.F_UNLCK, Start: permBase, Len: sharedBase}
	_ = unix.FcntlFlock(uintptr(f.fd), unix.F_OFD_SETLK, &lk) // where locks do not work there were none
}

func (f *File) lockByte(at int) error {
	lk := unix.Flock_t{Type: unix.F_RDLCK, Start: int64(at), Len: 1}
	err := unix.FcntlFlock(uintptr(f.fd), unix.F_OFD_SETLK, &lk)
	if err == nil || f.opts.ForceShare {
		return nil
	}
	if err == unix.EAGAIN || err == unix.EACCES {
		return fmt.Errorf("%w: another process holds an exclusive lock", ErrInUse)
	}
	return fmt.Errorf("lock byte %d: %w (where the file system has no locks, use force-share)", at, err)
}

func (f *File) testByte(at int, conflict string) error {
	lk := unix.Flock_t{Type: unix.F_WRLCK, Start: int64(at), Len: 1}
	if err := unix.FcntlFlock(uintptr(f.fd), unix.F_OFD_GETLK, &lk); err != nil {
		return fmt.Errorf("look for locks on byte %d: %w", at, err)
	}
	if lk.Type != unix.F_UNLCK {
		return fmt.Errorf("%w: %s; end it, or use force-share", ErrInUse, conflict)
	}
	return nil
}
