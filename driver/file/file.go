package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/uring"
)

// File is an open raw disk; it implements disk.Driver and every optional
// interface of that package that a file can serve.
type File struct {
	fd      int
	plain   int // without O_DIRECT, for the partial block at the end of a file; -1 without
	flushes flusher
	path    string
	opts    Options
	geometry
	key lockKey

	size      atomic.Int64
	knownZero atomic.Bool
	info      atomic.Pointer[disk.Info]
	infoMu    sync.Mutex // held while info is replaced
	inline

	modes   [numModes]modeState // what the zero ladder has learned
	served  [numRungs]atomic.Uint64
	changes atomic.Uint64 // completed changes of content
	lent    atomic.Int64  // writable FileRanges not yet released
	seen    seenExtents
	tail    sync.RWMutex // see nearTail
	oldEnd  atomic.Int64 // the last end within a sector that Grow has moved
	turn    sync.Mutex   // see writeInTurn

	releaseRange func() // Done of a writable FileRange
}

// Open opens the regular file or block device at path.
//
// It fails if the disk is in use (ErrInUse): by another process that holds
// QEMU's locks, by the kernel (a mounted device), or for writing in this
// process, where only one Disk may write to one file, since unaligned writes
// are serialized within a Disk.
func Open(ctx context.Context, path string, o Options) (*File, error) {
	f, err := open(ctx, path, o)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return f, nil
}

// OpenDisk is Open with the contract's checks and emulations put over the
// driver. The disk's name is the path.
func OpenDisk(ctx context.Context, path string, o Options) (*disk.Disk, error) {
	f, err := Open(ctx, path, o)
	if err != nil {
		return nil, err
	}
	return disk.New(f, path), nil
}

func open(ctx context.Context, path string, o Options) (*File, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if o.AIO == IOUring {
		if err := uring.Probe(); err != nil {
			return nil, fmt.Errorf("%w; use AIO mode threads", err)
		}
	}
	f := &File{fd: -1, plain: -1, flushes: flusher{fd: -1}, path: path, opts: o}
	if err := f.openFDs(); err != nil {
		return nil, errors.Join(err, f.closeFDs())
	}
	if err := f.acquire(); err != nil {
		return nil, errors.Join(err, f.closeFDs())
	}
	if err := f.start(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// openFDs opens path, having made sure that opening it does not block or act
// (as it would on a FIFO or a tape).
func (f *File) openFDs() error {
	var st unix.Stat_t
	if err := unix.Stat(f.path, &st); err != nil {
		return err
	}
	isBlock, err := diskKind(st.Mode)
	if err != nil {
		return err
	}
	f.blockDev = isBlock
	if f.fd, err = openFD(f.path, f.openFlags()); err != nil {
		return f.explainOpen(err)
	}
	if err := unix.Fstat(f.fd, &st); err != nil {
		return err
	}
	if isBlock, err = diskKind(st.Mode); err != nil || isBlock != f.blockDev {
		return errors.Join(errors.New("the file was replaced while it was being opened"), err)
	}
	f.key = keyOf(&st)
	self := fmt.Sprintf("/proc/self/fd/%d", f.fd)
	if f.opts.Cache.direct() && !f.blockDev {
		if f.plain, err = openFD(self, f.openFlags()&^unix.O_DIRECT); err != nil {
			return err
		}
	}
	return f.flushes.open(f.fd)
}

func diskKind(mode uint32) (isBlock bool, err error) {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return false, nil
	case unix.S_IFBLK:
		return true, nil
	case unix.S_IFDIR:
		return false, unix.EISDIR
	}
	return false, errors.New("neither a regular file nor a block device")
}

func (f *File) openFlags() int {
	flags := unix.O_RDWR | unix.O_CLOEXEC
	if f.opts.ReadOnly {
		flags = unix.O_RDONLY | unix.O_CLOEXEC
	}
	if f.opts.Cache.direct() {
		flags |= unix.O_DIRECT
	}
	if f.opts.Cache.sync() {
		flags |= unix.O_DSYNC
	}
	if f.blockDev && !f.opts.ReadOnly && !f.opts.ForceShare {
		flags |= unix.O_EXCL
	}
	return flags
}

// newMode is the permissions of a new file, before the umask.
const newMode = 0o644

func openFD(path string, flags int) (int, error) { return openMode(path, flags, newMode) }

func openMode(path string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Open(path, flags, mode)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func (f *File) explainOpen(err error) error {
	switch {
	case err == unix.EINVAL && f.opts.Cache.direct():
		return fmt.Errorf("%w: the file system has no O_DIRECT, so cache mode %s cannot be had; use writeback or writethrough", err, f.opts.Cache)
	case err == unix.EBUSY && f.blockDev:
		return fmt.Errorf("%w: %w by the kernel (mounted, or part of a volume) or opened exclusively", err, ErrInUse)
	case !f.opts.ReadOnly && (err == unix.EROFS || err == unix.EACCES || err == unix.EPERM):
		return f.explainReadOnly(err)
	case err == unix.ENXIO && f.blockDev:
		return fmt.Errorf("%w: no such device, or no medium in it", err)
	}
	return err
}

// immutable is FS_IMMUTABLE_FL of linux/fs.h.
const immutable = 0x10

// explainReadOnly says whether a file that cannot be opened for writing can be read.
func (f *File) explainReadOnly(err error) error {
	fd, cannot := openFD(f.path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK)
	if cannot != nil {
		return err
	}
	defer unix.Close(fd)
	why := "it can be read, not written"
	if flags, e := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS); e == nil && flags&immutable != 0 {
		why = "it is immutable (chattr -i changes that)"
	}
	return fmt.Errorf("%s: %w: %w", why, disk.ErrReadOnly, err)
}

// start finds out what the storage can do and builds the first Info.
func (f *File) start() error {
	if err := f.learnGeometry(f.fd, f.opts.Cache.direct()); err != nil {
		return err
	}
	size, err := f.fileSize()
	if err != nil {
		return err
	}
	f.size.Store(size)
	f.knownZero.Store(!f.blockDev && !f.opts.ForceShare && allHole(f.fd))
	f.releaseRange = func() {
		f.changed()
		f.lent.Add(-1)
	}
	in := f.firstInfo()
	f.info.Store(&in)
	return nil
}

// allHole reports whether a file holds no data at all.
func allHole(fd int) bool {
	_, err := unix.Seek(fd, 0, unix.SEEK_DATA)
	return err == unix.ENXIO
}

func (f *File) fileSize() (int64, error) {
	if f.blockDev {
		n, err := uring.BlkSize(f.fd)
		if err != nil {
			return 0, fmt.Errorf("ask for the device's size: %w", err)
		}
		return n, nil
	}
	var st unix.Stat_t
	err := unix.Fstat(f.fd, &st)
	return st.Size, err
}

func (f *File) firstInfo() disk.Info {
	direct := f.opts.Cache.direct()
	in := disk.Info{
		Size: f.size.Load(), Preferred: f.preferred, TrimAlign: f.trimAlign,
		Volatile: !f.opts.Cache.sync(), ReadOnly: f.opts.ReadOnly || f.readOnly, MultiConn: true,
		KnownZero: f.knownZero.Load(), KernelIO: !direct || uring.CanCopyByKernel(),
		Zero: disk.Native, FastZero: disk.Native, Trim: disk.Native, FUA: disk.Native, Cache: disk.Native,
		ID: f.key.String(),
	}
	if direct {
		in.Min = f.ioAlign
	}
	if f.blockDev {
		if f.maxZeroes == 0 {
			in.FastZero = disk.None
		}
		if f.maxDiscard == 0 {
			in.Trim = disk.None
		}
	} else {
		in.Maps = []disk.MapName{disk.Allocation}
	}
	return in
}

// Info describes the disk. It costs a copy.
func (f *File) Info() disk.Info { return *f.info.Load() }

// editInfo replaces Info; Gen grows.
func (f *File) editInfo(edit func(*disk.Info)) {
	f.infoMu.Lock()
	defer f.infoMu.Unlock()
	in := *f.info.Load()
	edit(&in)
	in.Gen++
	f.info.Store(&in)
}

// changing is called before, changed after the content changes: whoever looked
// at the extents in between must not be believed later.
func (f *File) changing() {
	if f.knownZero.Load() && f.knownZero.Swap(false) {
		f.editInfo(func(in *disk.Info) { in.KnownZero = false })
	}
}

func (f *File) changed() { f.changes.Add(1) }

// Flush makes completed writes durable by fdatasync, which covers the file's
// size too; Resize syncs by itself. Cache mode unsafe does nothing.
func (f *File) Flush(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if f.opts.Cache == Unsafe {
		return nil
	}
	return f.flushes.sync(ctx)
}

// Resize truncates or extends a regular file; what is added reads as zeros. The
// size of a block device is not ours to change, so only its present size is
// accepted, which takes over a device that has grown.
func (f *File) Resize(ctx context.Context, size int64) error {
	if f.opts.ReadOnly {
		return disk.ErrReadOnly
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if f.blockDev {
		if now, err := f.fileSize(); err != nil || now != size {
			return errors.Join(fmt.Errorf("a block device of %d bytes is resized where it was made, not here: %w", now, errors.ErrUnsupported), err)
		}
	} else if err := f.truncate(size); err != nil {
		return err
	}
	f.size.Store(size)
	f.changed()
	f.editInfo(func(in *disk.Info) { in.Size = size })
	return nil
}

// truncate excludes writes into the partial block at the end, which it moves.
func (f *File) truncate(size int64) error {
	f.tail.Lock()
	defer f.tail.Unlock()
	if err := unix.Ftruncate(f.fd, size); err != nil {
		return err
	}
	if f.opts.Cache == Unsafe {
		return nil
	}
	return unix.Fsync(f.fd)
}

// Cache asks the kernel to read a range ahead. Past the page cache there is
// nothing to do.
func (f *File) Cache(ctx context.Context, off, n int64) error {
	if f.opts.Cache.direct() {
		return nil
	}
	return unix.Fadvise(f.fd, off, n, unix.FADV_WILLNEED)
}

// Close closes the file and with it the locks; it does not flush. A second Close
// answers fs.ErrClosed.
func (f *File) Close() error {
	if f.fd < 0 {
		return fs.ErrClosed
	}
	f.release()
	return f.closeFDs()
}

func (f *File) closeFDs() error {
	var err error
	for _, fd := range []int{f.plain, f.flushes.fd} {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
	}
	if f.fd >= 0 {
		f.unlockBytes()
		err = errors.Join(err, unix.Close(f.fd))
	}
	f.fd, f.plain, f.flushes.fd = -1, -1, -1
	return err
}
