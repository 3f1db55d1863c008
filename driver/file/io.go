package file

import (
	"context"
	"errors"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/uring"
)

var errShrunk = errors.New("the file ends before the disk does: it was truncated after it was opened")

// ReadAt reads by pread on the caller's thread.
func (f *File) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if f.opts.Cache.direct() {
		return f.readDirect(p, off)
	}
	return readFull(f.fd, p, off)
}

// WriteAt writes by pwrite on the caller's thread; FUA is RWF_DSYNC.
func (f *File) WriteAt(ctx context.Context, p []byte, off int64, fl disk.Flags) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.changing()
	defer f.changed()
	if f.opts.Cache.direct() {
		return f.writeDirect(p, off, f.rwf(fl))
	}
	return f.writeCached(p, off, f.rwf(fl))
}

// rwf translates flags for pwritev2. In the cache modes that make every write
// durable the file is open with O_DSYNC already.
func (f *File) rwf(fl disk.Flags) int {
	if fl&disk.FUA != 0 && f.opts.Cache != Unsafe && !f.opts.Cache.sync() {
		return unix.RWF_DSYNC
	}
	return 0
}

func readFull(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pread(fd, p, off)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return errShrunk
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// cachedStep bounds one write into the page cache. The kernel makes the folios
// of a new range as large as the write: at 1 MiB a copy into a new ext4 file cost
// 1.6 to 4.6 s of system time where 256 KiB cost 0.7.
const cachedStep = 256 << 10

// writeCached is writeFull in steps, where each write need not be durable.
func (f *File) writeCached(p []byte, off int64, rwf int) error {
	if rwf != 0 {
		return writeFull(f.fd, p, off, rwf)
	}
	for len(p) > 0 {
		n := min(len(p), cachedStep)
		if err := f.writeInTurn(p[:n], off); err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// turnSize is from where on writers wait for each other in user space.
const turnSize = 32 << 10

// writeInTurn is writeFull, where large writes into one file's page cache do not
// meet in the kernel. Its file systems serialize them by the inode's lock, and
// while one writer has it, the next one's processor spins. A copy from an NBD
// server into one file took an eighth less processor time without that, and no
// longer. A block device has no such lock.
func (f *File) writeInTurn(p []byte, off int64) error {
	if len(p) >= turnSize && !f.blockDev {
		f.turn.Lock()
		defer f.turn.Unlock()
	}
	return writeFull(f.fd, p, off, 0)
}

func writeFull(fd int, p []byte, off int64, rwf int) error {
	for len(p) > 0 {
		var n int
		var err error
		if rwf == 0 {
			n, err = unix.Pwrite(fd, p, off)
		} else {
			n, err = uring.Pwrite2(fd, p, off, rwf)
		}
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return unix.ENOSPC // as a device answers at its end
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// Readv reads by preadv.
func (f *File) Readv(ctx context.Context, vec [][]byte, off int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n := vecLen(vec)
	if f.opts.Cache.direct() && !f.alignedVec(vec, n) {
		return f.readBounced(vec, off, n)
	}
	if len(vec) <= uring.MaxIovecs {
		if got, err := unix.Preadv(f.fd, vec, off); err == nil && int64(got) == n {
			return nil
		}
	}
	// Short, interrupted or failed: the plain way finishes it, or tells.
	if f.opts.Cache.direct() {
		return f.readBounced(vec, off, n)
	}
	for _, p := range vec {
		if err := f.ReadAt(ctx, p, off); err != nil {
			return err
		}
		off += int64(len(p))
	}
	return nil
}

// Writev writes by pwritev2.
func (f *File) Writev(ctx context.Context, vec [][]byte, off int64, fl disk.Flags) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.changing()
	defer f.changed()
	n := vecLen(vec)
	if f.opts.Cache.direct() && (!f.alignedVec(vec, n) || f.nearTail(off, n)) {
		return f.writeBounced(vec, off, n, f.rwf(fl))
	}
	if len(vec) <= uring.MaxIovecs {
		if got, err := unix.Pwritev2(f.fd, vec, off, f.rwf(fl)); err == nil && int64(got) == n {
			return nil
		}
	}
	if f.opts.Cache.direct() {
		return f.writeBounced(vec, off, n, f.rwf(fl))
	}
	for _, p := range vec {
		if err := f.WriteAt(ctx, p, off, fl); err != nil {
			return err
		}
		off += int64(len(p))
	}
	return nil
}

func vecLen(vec [][]byte) (n int64) {
	for _, p := range vec {
		n += int64(len(p))
	}
	return n
}

// TryRead reads what the page cache holds, by RWF_NOWAIT. Past the page cache it
// refuses at once: RWF_NOWAIT on O_DIRECT blocked for a median of 74 us. tmpfs
// and ramfs know no RWF_NOWAIT but are memory (unless swapped out), so they are
// just read.
func (f *File) TryRead(p []byte, off int64) error {
	if f.opts.Cache.direct() || f.noWaitRefused.Load() {
		return disk.ErrWouldBlock
	}
	if f.inMemory {
		return readFull(f.fd, p, off)
	}
	n, err := uring.Pread2(f.fd, p, off, unix.RWF_NOWAIT)
	if err == nil && n == len(p) {
		return nil
	}
	if err == unix.EOPNOTSUPP {
		f.noWaitRefused.Store(true)
	}
	return disk.ErrWouldBlock // what else is wrong the blocking read tells
}

// inline is what an open file has learned of I/O that does not wait.
type inline struct {
	noWaitRefused atomic.Bool  // RWF_NOWAIT reads are refused
	writesPlain   atomic.Bool  // RWF_NOWAIT writes are refused, or useless
	misses        atomic.Int32 // RWF_NOWAIT writes that would have blocked, less those that did not
}

// uselessAfter is the number of misses after which RWF_NOWAIT writes are given
// up: XFS and btrfs accept the flag, but then almost every write is found to
// need a new time stamp or space, and "would block" for a microsecond's work.
const uselessAfter = 8

// TryWrite writes into the page cache. Where RWF_NOWAIT is refused (ext4, tmpfs)
// or of no use an ordinary write is made, which may meet the kernel's throttling
// of dirty pages: the caller watches how long it takes.
func (f *File) TryWrite(p []byte, off int64, fl disk.Flags) error {
	if !f.cachedWrite(fl) {
		return disk.ErrWouldBlock
	}
	f.changing()
	defer f.changed()
	if f.writesPlain.Load() {
		return f.writeCached(p, off, 0)
	}
	n, err := uring.Pwrite2(f.fd, p, off, unix.RWF_NOWAIT)
	switch {
	case err == nil && n == len(p):
		if f.misses.Load() > 0 {
			f.misses.Add(-1)
		}
		return nil
	case err == unix.EOPNOTSUPP:
		f.writesPlain.Store(true)
		return f.writeCached(p, off, 0)
	case f.misses.Add(1) >= uselessAfter:
		f.writesPlain.Store(true)
	}
	// Perhaps a part is written; the caller writes all of it again.
	return disk.ErrWouldBlock
}

// cachedWrite reports whether a write ends in the page cache.
func (f *File) cachedWrite(fl disk.Flags) bool {
	return !f.opts.Cache.direct() && !f.opts.Cache.sync() && f.rwf(fl) == 0
}

// FileRange lends the file itself. Past the page cache there is nothing to
// lend, and writes through it would not be durable in time where each has to be.
func (f *File) FileRange(off, n int64, write bool) (disk.FileRange, bool) {
	if f.opts.Cache.direct() || write && f.opts.Cache.sync() {
		return disk.FileRange{}, false
	}
	r := disk.FileRange{FD: f.fd, Off: off, Len: n}
	if write {
		f.changing()
		f.lent.Add(1)
		r.Done = f.releaseRange
		if !f.blockDev {
			r.Turn = &f.turn // see writeInTurn
		}
	}
	return r, true
}

var (
	_ disk.Driver     = (*File)(nil)
	_ disk.Inliner    = (*File)(nil)
	_ disk.Vectorer   = (*File)(nil)
	_ disk.FileRanger = (*File)(nil)
	_ disk.Cacher     = (*File)(nil)
	_ disk.Resizer    = (*File)(nil)
	_ disk.Grower     = (*File)(nil)
	_ disk.Queuer     = (*File)(nil)
	_ disk.Inspector  = (*File)(nil)
)
