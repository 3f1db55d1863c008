package file

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/uring"
)

// Rung is one way to make a range read as zeros, or to trim it.
type Rung uint8

// The rungs, each named after the system call that does the work.
const (
	PunchHole     Rung = iota // fallocate PUNCH_HOLE: deallocates
	ZeroRange                 // fallocate ZERO_RANGE: stays allocated
	PunchAllocate             // fallocate PUNCH_HOLE, then mode 0 to allocate again
	Zeroout                   // ioctl BLKZEROOUT
	WriteZeros                // pwrite of zeros
	Discard                   // ioctl BLKDISCARD: trims, never zeroes
	numRungs
)

// String returns the rung's name in lower case.
func (r Rung) String() string {
	return [...]string{"punch_hole", "zero_range", "punch_hole+allocate", "blkzeroout", "write", "blkdiscard"}[r]
}

// mode is one system call of the rungs; what a storage refuses is remembered by
// mode.
type mode uint8

const (
	modePunch mode = iota
	modeZeroRange
	modeAllocate
	modeZeroout
	modeDiscard
	numModes
)

func (m mode) String() string {
	return [...]string{"punch_hole", "zero_range", "allocate", "blkzeroout", "blkdiscard"}[m]
}

// modeState is what an open file has learned of a mode: 0, or the errno with
// which it was refused for good.
type modeState struct{ refused atomic.Uint32 }

// refusedError reports a refusal by the storage. It matches
// errors.ErrUnsupported; nothing was touched.
type refusedError struct{ errno unix.Errno }

func (e refusedError) Error() string        { return e.errno.Error() }
func (e refusedError) Unwrap() error        { return e.errno }
func (e refusedError) Is(target error) bool { return target == errors.ErrUnsupported }

func isRefused(err error) bool {
	var r refusedError
	return errors.As(err, &r)
}

// call makes the mode's system call. Refusals for good (EOPNOTSUPP, ENODEV; for
// ioctls also ENOTTY) are remembered. EINVAL never is: it may be about this one
// range, such as one that is not aligned. Nor is EBUSY, which a block device
// gives while somebody else has it open exclusively.
func (f *File) call(m mode, off, n int64) error {
	if errno := f.modes[m].refused.Load(); errno != 0 {
		return refusedError{unix.Errno(errno)}
	}
	errno := f.syscall(m, off, n)
	switch errno {
	case 0:
		return nil
	case unix.EOPNOTSUPP, unix.ENODEV, unix.ENOTTY, unix.ENOSYS:
		f.modes[m].refused.Store(uint32(errno))
		return refusedError{errno}
	case unix.EINVAL, unix.EBUSY:
		return refusedError{errno}
	}
	return errno
}

func (f *File) syscall(m mode, off, n int64) unix.Errno {
	var err error
	switch m {
	case modePunch:
		err = unix.Fallocate(f.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	case modeZeroRange:
		err = unix.Fallocate(f.fd, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	case modeAllocate:
		err = unix.Fallocate(f.fd, 0, off, n)
	case modeZeroout:
		err = uring.BlkZeroout(f.fd, off, n)
	case modeDiscard:
		err = uring.BlkDiscard(f.fd, off, n)
	}
	if err == nil {
		return 0
	}
	return errnoOf(err)
}

func errnoOf(err error) (errno unix.Errno) {
	errors.As(err, &errno)
	return errno
}

// climb does one step of zeroing by rung r.
func (f *File) climb(ctx context.Context, r Rung, off, n int64) error {
	var err error
	switch r {
	case PunchHole:
		err = f.call(modePunch, off, n)
	case ZeroRange:
		err = f.call(modeZeroRange, off, n)
	case PunchAllocate:
		err = f.punchAllocate(off, n)
	case Zeroout:
		err = f.call(modeZeroout, off, n)
	case WriteZeros:
		err = f.writeZeros(ctx, off, n)
	}
	if err == nil {
		f.served[r].Add(1)
	}
	return err
}

func (f *File) punchAllocate(off, n int64) error {
	if f.refuses(modeAllocate) { // the hole would stay
		return refusedError{unix.Errno(f.modes[modeAllocate].refused.Load())}
	}
	if err := f.call(modePunch, off, n); err != nil {
		return err
	}
	return f.call(modeAllocate, off, n)
}

// The ladders, by what the storage is and what is asked for.
var (
	fileMayTrim   = []Rung{PunchHole, ZeroRange, PunchAllocate, WriteZeros}
	fileAllocated = []Rung{ZeroRange, PunchAllocate, WriteZeros}
	// PUNCH_HOLE on a block device is made with the kernel's NOFALLBACK, so
	// success means that the device did it. ZERO_RANGE and BLKZEROOUT write zeros
	// from within the kernel where the device cannot.
	blockMayTrim   = []Rung{PunchHole, ZeroRange, Zeroout, WriteZeros}
	blockAllocated = []Rung{ZeroRange, Zeroout, WriteZeros}

	fastFileMayTrim    = []Rung{PunchHole, ZeroRange}
	fastFileAllocated  = []Rung{ZeroRange}
	fastBlockMayTrim   = []Rung{PunchHole, ZeroRange}
	fastBlockAllocated = []Rung{ZeroRange}
	fastBlockSlow      = []Rung{PunchHole} // the device cannot offload ZERO_RANGE
)

func (f *File) ladder(fl disk.Flags) []Rung {
	mayTrim, fast := fl&disk.MayTrim != 0, fl&disk.FastOnly != 0
	switch {
	case !f.blockDev && !fast && mayTrim:
		return fileMayTrim
	case !f.blockDev && !fast:
		return fileAllocated
	case !f.blockDev && mayTrim:
		return fastFileMayTrim
	case !f.blockDev:
		return fastFileAllocated
	case !fast && mayTrim:
		return blockMayTrim
	case !fast:
		return blockAllocated
	case mayTrim && f.maxZeroes > 0:
		return fastBlockMayTrim
	case mayTrim:
		return fastBlockSlow
	case f.maxZeroes > 0:
		return fastBlockAllocated
	}
	return nil
}

// Zero makes a range read as zeros by the first rung of the ladder that the
// storage accepts:
//
//	storage         may leave a hole                  must stay allocated
//	regular file    PUNCH_HOLE, ZERO_RANGE,           ZERO_RANGE, PUNCH_HOLE + mode 0,
//	                PUNCH_HOLE + mode 0, write        write
//	block device    PUNCH_HOLE, ZERO_RANGE,           ZERO_RANGE, BLKZEROOUT, write
//	                BLKZEROOUT, write
//
// FastOnly leaves PUNCH_HOLE and ZERO_RANGE; on block devices the latter only
// where the device offloads it (queue/write_zeroes_max_bytes > 0). Ranges that
// end within a sector of a block device have head and tail written; file
// systems do that themselves, and without allocating what is a hole already.
func (f *File) Zero(ctx context.Context, off, n int64, fl disk.Flags) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	defer f.changed()
	if err := f.zeroSplit(ctx, off, n, fl); err != nil {
		return err
	}
	return f.syncChange(ctx, fl)
}

// syncChange makes a change by anything else than a write durable where that was
// asked for.
func (f *File) syncChange(ctx context.Context, fl disk.Flags) error {
	if f.rwf(fl) != 0 || f.opts.Cache.sync() {
		return f.flushes.sync(ctx)
	}
	return nil
}

// zeroSplit zeroes the whole sectors first, so that a refusal under FastOnly
// leaves everything untouched.
func (f *File) zeroSplit(ctx context.Context, off, n int64, fl disk.Flags) error {
	mask := f.sector - 1
	first := min((off+mask)&^mask, off+n)
	last := max((off+n)&^mask, first)
	if first < last {
		if err := f.zeroSteps(ctx, first, last-first, fl); err != nil {
			return err
		}
	} else if fl&disk.FastOnly != 0 {
		return disk.ErrNotFast
	}
	if err := f.writeZeros(ctx, off, first-off); err != nil {
		return err
	}
	return f.writeZeros(ctx, last, off+n-last)
}

// Steps: the kernel holds locks during a call, SCSI commands time out, and a
// call cannot be cancelled. Their size follows what the storage does in a tenth
// of a second or so.
const (
	firstStep = 128 << 20
	leastStep = 1 << 20
	mostStep  = 64 << 30
	slowStep  = 200 * time.Millisecond
	quickStep = 20 * time.Millisecond
)

func (f *File) zeroSteps(ctx context.Context, off, n int64, fl disk.Flags) error {
	step := int64(firstStep)
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := min(n, step)
		start := time.Now()
		err := f.zeroStep(ctx, off, part, fl)
		if err == unix.EINTR {
			// A signal undid the call (tmpfs): a shorter one may pass between two.
			step = max(step/2, leastStep)
			continue
		}
		if err != nil {
			return err
		}
		step = nextStep(step, time.Since(start))
		off, n = off+part, n-part
		// Something has been touched: from here on a refusal may not surface.
		fl &^= disk.FastOnly
	}
	return nil
}

func nextStep(step int64, took time.Duration) int64 {
	switch {
	case took > slowStep:
		return max(step/2, leastStep)
	case took < quickStep:
		return min(step*2, mostStep)
	}
	return step
}

// refuses reports whether a mode was refused for good.
func (f *File) refuses(m mode) bool { return f.modes[m].refused.Load() != 0 }

// hopeless reports whether a rung needs what was refused for good.
func (f *File) hopeless(r Rung) bool {
	switch r {
	case PunchHole:
		return f.refuses(modePunch)
	case ZeroRange:
		return f.refuses(modeZeroRange)
	case PunchAllocate:
		return f.refuses(modePunch) || f.refuses(modeAllocate)
	case Zeroout:
		return f.refuses(modeZeroout)
	}
	return false
}

func (f *File) zeroStep(ctx context.Context, off, n int64, fl disk.Flags) error {
	for _, r := range f.ladder(fl) {
		if f.hopeless(r) {
			continue
		}
		err := f.climb(ctx, r, off, n)
		if err == nil || !isRefused(err) {
			return err
		}
	}
	return disk.ErrNotFast // every other ladder ends with a write
}

// zeroBuf is what WriteZeros writes from, aligned for O_DIRECT.
var zeroBuf = mustAlloc(256 << 10)

func mustAlloc(n int) []byte {
	b, err := uring.Alloc(n)
	if err != nil {
		b = make([]byte, n) // it is bounced then
	}
	return b
}

func (f *File) writeZeros(ctx context.Context, off, n int64) error {
	if n == 0 {
		return nil
	}
	f.changing()
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := min(n, int64(len(zeroBuf)))
		if err := f.WriteAt(ctx, zeroBuf[:part], off, 0); err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return nil
}

// Trim gives the range back to the storage: PUNCH_HOLE on files, BLKDISCARD on
// block devices (where PUNCH_HOLE would promise zeros, which LVM's thin volumes
// refuse). What the range reads as afterwards is not promised. Where the storage
// cannot trim it fails with errors.ErrUnsupported.
func (f *File) Trim(ctx context.Context, off, n int64, fl disk.Flags) error {
	m, r := modePunch, PunchHole
	if f.blockDev {
		m, r = modeDiscard, Discard
	}
	f.changing()
	defer f.changed()
	step := int64(firstStep)
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		part, start := min(n, step), time.Now()
		if err := f.call(m, off, part); err == unix.EINTR {
			continue
		} else if err != nil {
			return fmt.Errorf("%s: %w", r, err)
		}
		f.served[r].Add(1)
		step = nextStep(step, time.Since(start))
		off, n = off+part, n-part
	}
	return f.syncChange(ctx, fl)
}

// Served returns how many steps of zeroing and trimming each rung has served.
func (f *File) Served() map[Rung]uint64 {
	m := make(map[Rung]uint64)
	for r := range numRungs {
		if n := f.served[r].Load(); n > 0 {
			m[r] = n
		}
	}
	return m
}
