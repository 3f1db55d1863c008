package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/uring"
)

// ZeroProbe tells what a storage makes of the zero ladder.
type ZeroProbe struct {
	Path        string      `json:"path"`
	Storage     string      `json:"storage"` // "ext4", "block device", …
	Length      int64       `json:"length"`  // bytes that each rung was tried on
	Rungs       []RungProbe `json:"rungs"`
	WriteZeroes int64       `json:"write_zeroes_max_bytes,omitempty"` // block device: largest offloaded zeroing; -1 unknown
	DiscardMax  int64       `json:"discard_max_bytes,omitempty"`      // block device: largest discard; -1 unknown
}

// RungProbe is the outcome of one rung.
type RungProbe struct {
	Rung  string `json:"rung"`
	Works bool   `json:"works"`
	// Errno and Error are set where the rung was refused or not tried.
	Errno string `json:"errno,omitempty"`
	Error string `json:"error,omitempty"`
	// Microseconds of the call.
	Microseconds float64 `json:"microseconds"`
	// Allocated tells whether the range takes space afterwards (files only).
	Allocated *bool `json:"allocated,omitempty"`
}

const probeLen = 4 << 20

// ProbeZero tries each rung of the zero ladder on the storage that path lies on.
// For a directory or a regular file it uses a new unnamed file beside it, and
// never the file itself. On a block device it uses a range that reads as zeros
// already, so nothing changes; without one among the first GiB it changes
// nothing and fails. Discards are not tried on devices: they promise no zeros.
func ProbeZero(ctx context.Context, path string) (*ZeroProbe, error) {
	p, err := probeZero(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("probe zeroing on %s: %w", path, err)
	}
	return p, nil
}

func probeZero(ctx context.Context, path string) (*ZeroProbe, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return probeBeside(ctx, path, path)
	case unix.S_IFREG:
		return probeBeside(ctx, path, filepath.Dir(path))
	case unix.S_IFBLK:
		return probeDevice(ctx, path)
	}
	return nil, errors.New("neither a directory, a regular file nor a block device")
}

// probeBeside makes its unnamed file on the file system of dir.
func probeBeside(ctx context.Context, path, dir string) (out *ZeroProbe, err error) {
	fd, err := openFD(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a temporary file in %s: %w", dir, err)
	}
	f := &File{fd: fd, plain: -1, flushes: flusher{fd: -1}, path: dir}
	defer func() { err = errors.Join(err, f.closeFDs()) }()
	if err := errors.Join(f.flushes.open(fd), f.start(), unix.Ftruncate(fd, probeLen)); err != nil {
		return nil, err
	}
	f.size.Store(probeLen)
	out = &ZeroProbe{Path: path, Storage: fsName(f.fsType), Length: probeLen}
	for _, r := range []Rung{PunchHole, ZeroRange, PunchAllocate, WriteZeros} {
		// Data to be zeroed, durable, so that all rungs meet the same work.
		if err := errors.Join(f.fill(), f.Flush(ctx)); err != nil {
			return nil, err
		}
		p, err := f.probeRung(ctx, r, 0, probeLen)
		if err != nil {
			return nil, err
		}
		out.Rungs = append(out.Rungs, p)
	}
	return out, nil
}

// fill writes what is not zero.
func (f *File) fill() error {
	return writeFull(f.fd, bytes.Repeat([]byte{0xa5}, probeLen), 0, 0)
}

func probeDevice(ctx context.Context, path string) (out *ZeroProbe, err error) {
	f, err := open(ctx, path, Options{Cache: None})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	off, n, err := f.findZeros(ctx)
	if err != nil {
		return nil, err
	}
	out = &ZeroProbe{Path: path, Storage: "block device", Length: n, WriteZeroes: f.maxZeroes, DiscardMax: f.maxDiscard}
	for _, r := range []Rung{PunchHole, ZeroRange, Zeroout, WriteZeros} {
		p, err := f.probeRung(ctx, r, off, n)
		if err != nil {
			return nil, err
		}
		out.Rungs = append(out.Rungs, p)
	}
	discard := RungProbe{Rung: Discard.String(), Works: f.maxDiscard > 0, Error: "not tried: a discard promises no zeros"}
	out.Rungs = append(out.Rungs, discard)
	return out, nil
}

// findZeros looks for a range that reads as zeros.
func (f *File) findZeros(ctx context.Context) (off, n int64, err error) {
	const within = 1 << 30
	buf, err := uring.Alloc(probeLen)
	if err != nil {
		return 0, 0, err
	}
	defer uring.Free(buf)
	size := f.size.Load()
	n = min(size, probeLen)
	for off = 0; n > 0 && off+n <= min(size, within); off += n {
		if err := f.ReadAt(ctx, buf[:n], off); err != nil {
			return 0, 0, err
		}
		if bytes.Equal(buf[:n], make([]byte, n)) {
			return off, n, nil
		}
	}
	return 0, 0, fmt.Errorf("no %d bytes of zeros among the first %d to try it on without loss", probeLen, min(size, within))
}

// probeRung tries one rung; the error is of the probing, not of the rung.
func (f *File) probeRung(ctx context.Context, r Rung, off, n int64) (RungProbe, error) {
	p := RungProbe{Rung: r.String()}
	start := time.Now()
	err := f.climb(ctx, r, off, n)
	if r == WriteZeros && err == nil {
		err = f.flushes.sync(ctx) // the others reach the storage at once, or its journal
	}
	p.Microseconds = float64(time.Since(start).Nanoseconds()) / 1e3
	var errno unix.Errno
	switch {
	case err == nil:
		p.Works = true
	case errors.As(err, &errno):
		p.Errno, p.Error = errnoName(errno), errno.Error()
	default:
		return p, err
	}
	if p.Works && !f.blockDev {
		var st unix.Stat_t
		if err := unix.Fstat(f.fd, &st); err != nil {
			return p, err
		}
		allocated := st.Blocks*512 >= n
		p.Allocated = &allocated
	}
	return p, nil
}

// fsName names a file system by its magic number.
func fsName(magic int64) string {
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext2, ext3 or ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.TMPFS_MAGIC: "tmpfs", unix.RAMFS_MAGIC: "ramfs", unix.NFS_SUPER_MAGIC: "nfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs",
		unix.F2FS_SUPER_MAGIC: "f2fs", unix.FUSE_SUPER_MAGIC: "fuse", unix.CEPH_SUPER_MAGIC: "ceph", unix.SMB2_SUPER_MAGIC: "smb2",
		unix.CIFS_SUPER_MAGIC: "cifs",
	}
	if name, ok := names[magic]; ok {
		return name
	}
	return fmt.Sprintf("file system %#x", magic)
}

// errnoName gives EOPNOTSUPP by the name that fallocate(2) uses for it.
func errnoName(errno unix.Errno) string {
	if errno == unix.EOPNOTSUPP {
		return "EOPNOTSUPP"
	}
	return unix.ErrnoName(errno)
}
