package disk

import (
	"context"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"
)

// Disk is a virtual disk as its users see it: any offset and length inside
// [0, Size) is allowed, every operation works (or is refused with a clear
// error) whatever the driver below lacks.
//
// All methods are safe for concurrent use, except Close: whoever owns the Disk
// waits for its users first.
type Disk struct {
	drv   Driver
	name  string
	trace func(Trace)

	inline Inliner
	vector Vectorer
	ranger FileRanger
	cacher Cacher

	limits     atomic.Pointer[limits]
	refreshing sync.Mutex
	locks      rangeLocks
	flushErr   atomic.Pointer[error] // the first failed flush
	closed     atomic.Bool
}

// limits is Info in the form the checks want.
type limits struct {
	Info            // as the driver gave it
	effective Info  // as callers see it
	mask      int64 // Min-1
	maxIO     int64 // never 0, whole blocks
	maxZero   int64 // never 0, whole blocks
	maxTrim   int64 // never 0, a multiple of trimAlign
	trimAlign int64 // >= Min, >= 1
	// plainWrite: writes need no lock, and may be made at all.
	plainWrite bool
}

// Trace is one finished operation.
type Trace struct {
	Op       string
	Off, Len int64
	Flags    Flags
	Start    time.Time
	Took     time.Duration
	Err      error
}

// Option configures New.
type Option func(*Disk)

// WithTrace calls f after every operation of the Disk, on the caller's
// goroutine; operations through a Queue excepted.
func WithTrace(f func(Trace)) Option { return func(d *Disk) { d.trace = f } }

// New puts the contract's checks and emulations over drv. The name appears in
// errors; the Disk owns the driver from here on.
func New(drv Driver, name string, opts ...Option) *Disk {
	d := &Disk{drv: drv, name: name}
	d.locks.init()
	d.inline, _ = drv.(Inliner)
	d.vector, _ = drv.(Vectorer)
	d.ranger, _ = drv.(FileRanger)
	d.cacher, _ = drv.(Cacher)
	for _, o := range opts {
		o(d)
	}
	d.Refresh()
	return d
}

// As finds a management interface (Resizer, Inspector, or one of a driver's own)
// in d or, through filters that allow it, in what lies below.
func As[T any](d *Disk) (T, bool) {
	for d != nil {
		if v, ok := d.drv.(T); ok {
			return v, true
		}
		u, ok := d.drv.(Unwrapper)
		if !ok {
			break
		}
		d = u.Unwrap()
	}
	var none T
	return none, false
}

// Refresh reads the driver's Info again. Whoever changes a driver behind its
// Disk calls it.
func (d *Disk) Refresh() {
	d.refreshing.Lock() // an older Info must not replace a newer one
	defer d.refreshing.Unlock()
	in := d.drv.Info()
	l := &limits{Info: in, effective: in, trimAlign: max(in.TrimAlign, in.Min, 1)}
	if in.Min > 1 {
		l.mask = in.Min - 1
	}
	if in.Min&l.mask != 0 || in.Min > bounceSize {
		panic(fmt.Sprintf("disk: the driver of %s breaks the contract: Min %d is no power of two up to %d", d.name, in.Min, bounceSize))
	}
	l.plainWrite = l.mask == 0 && !in.ReadOnly
	l.maxIO = wholeUnits(in.MaxIO, l.mask+1)
	l.maxZero = wholeUnits(in.MaxZero, l.mask+1)
	l.maxTrim = wholeUnits(in.MaxTrim, l.trimAlign)
	for _, level := range []*Level{&l.effective.Zero, &l.effective.FUA, &l.effective.Cache} {
		if *level == None {
			*level = Emulated
		}
	}
	d.limits.Store(l)
}

// wholeUnits turns a limit (0: none) into one that is never 0 and a multiple of
// unit, so that what is split by it stays aligned.
func wholeUnits(limit, unit int64) int64 {
	if limit <= 0 {
		limit = 1 << 62
	}
	return max(limit-limit%unit, unit)
}

// Info describes the disk with the emulations of this layer counted in: Zero,
// FUA and Cache are at least Emulated. The limits are the driver's, as a hint;
// callers need not keep them. KnownZero is what the driver says now; the rest
// is as of the last Refresh.
func (d *Disk) Info() Info {
	in := d.limits.Load().effective
	in.KnownZero = in.KnownZero && d.drv.Info().KnownZero
	return in
}

// Size is the size of the disk in bytes.
func (d *Disk) Size() int64 { return d.limits.Load().Size }

// Name is the name given to New.
func (d *Disk) Name() string { return d.name }

// String returns the name.
func (d *Disk) String() string { return d.name }

// Resize changes the size of the disk. It fails with errors.ErrUnsupported
// where no layer can.
func (d *Disk) Resize(ctx context.Context, size int64) error {
	err := errNoResize
	if r, ok := As[Resizer](d); ok && size >= 0 {
		err = r.Resize(ctx, size)
	}
	d.refreshAll()
	return d.wrap("resize", -1, size, err)
}

// Grow makes the disk at least size bytes large, and notices a size that was changed
// behind its back; 0 does that alone. A disk whose size is fixed stays as it is: what
// lies beyond its end is refused as ever.
func (d *Disk) Grow(ctx context.Context, size int64) error {
	g, ok := As[Grower](d)
	if !ok {
		return nil
	}
	err := g.Grow(ctx, size)
	if d.drv.Info().Size != d.Size() {
		d.refreshAll()
	}
	return d.wrap("grow", -1, size, err)
}

// refreshAll takes over a new Info from the bottom of the stack up.
func (d *Disk) refreshAll() {
	if u, ok := d.drv.(Unwrapper); ok {
		u.Unwrap().refreshAll()
	}
	d.Refresh()
}

// Close releases the disk. It does not flush. A second Close answers fs.ErrClosed.
func (d *Disk) Close() error {
	if d.closed.Swap(true) {
		return d.wrap("close", -1, 0, fs.ErrClosed)
	}
	return d.wrap("close", -1, 0, d.drv.Close())
}

// check refuses what no driver should see; n == 0 is valid.
func (l *limits) check(off, n int64) error {
	if off < 0 || n < 0 || off > l.Size || n > l.Size-off {
		return ErrRange
	}
	return nil
}

// checkChange is check for operations that change the disk.
func (l *limits) checkChange(off, n int64, f, allowed Flags) error {
	if l.ReadOnly {
		return ErrReadOnly
	}
	if f&^allowed != 0 {
		return ErrFlags
	}
	return l.check(off, n)
}

// aligned reports whether a range is in whole blocks; the end of the disk ends
// a block.
func (l *limits) aligned(off, n int64) bool {
	return off&l.mask == 0 && (n&l.mask == 0 || off+n == l.Size)
}

// wholeTrim reports whether a range is in whole units of trimming.
func (l *limits) wholeTrim(off, n int64) bool { return off%l.trimAlign == 0 && n%l.trimAlign == 0 }

// blocks widens a range to whole blocks. No sum may overflow: a disk may have
// 2^63-1 bytes.
func (l *limits) blocks(off, n int64) (first, length int64) {
	first = off &^ l.mask
	end := off + n
	return first, end + min(-end&l.mask, l.Size-end) - first
}

// fua splits f into what the driver is told and whether a flush has to follow.
func (l *limits) fua(f Flags) (native Flags, flush bool) {
	if f&FUA == 0 || l.FUA == Native {
		return f, false
	}
	return f &^ FUA, l.Volatile || l.FUA == Emulated
}

func (d *Disk) traced(op string, off, n int64, f Flags, start time.Time, err error) error {
	d.trace(Trace{Op: op, Off: off, Len: n, Flags: f, Start: start, Took: time.Since(start), Err: err})
	return err
}
