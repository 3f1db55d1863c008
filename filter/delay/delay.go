package delay

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
)

// Config says how much longer each operation takes; none may be negative.
type Config struct {
	Read, Write, Zero, Trim, Flush, Extents, Cache, Open, Close time.Duration
	// RefuseFastZero fails fast zeroes at once (delay-fast-zero=off).
	RefuseFastZero bool
}

// filter delays operations; see the package comment.
type filter struct {
	child *disk.Disk
	cfg   Config
	ready time.Time // when opening is over
}

// New puts the filter over child, which it owns from here on unless it fails.
func New(child *disk.Disk, cfg Config) (*disk.Disk, error) {
	for _, d := range []time.Duration{cfg.Read, cfg.Write, cfg.Zero, cfg.Trim, cfg.Flush, cfg.Extents, cfg.Cache, cfg.Open, cfg.Close} {
		if d < 0 {
			return nil, fmt.Errorf("delay %v is negative", d)
		}
	}
	f := &filter{child: child, cfg: cfg}
	if cfg.Open > 0 {
		f.ready = time.Now().Add(cfg.Open)
	}
	return disk.New(f, child.Name()), nil
}

// wait returns after d, or with the context's error as soon as that is done.
func (f *filter) wait(ctx context.Context, d time.Duration) error {
	if !f.ready.IsZero() {
		d += max(time.Until(f.ready), 0)
	}
	if d <= 0 {
		return ctx.Err()
	}
	if d < precise {
		if err := ctx.Err(); err != nil {
			return err
		}
		sleep(d)
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// precise: shorter delays are slept by the thread itself, since the runtime
// wakes an idle process at whole milliseconds (a timer of 100 us took 1.1 ms).
const precise = 2 * time.Millisecond

func sleep(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	for unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &ts, &ts) == unix.EINTR {
	}
}

// Info implements disk.Driver.
func (f *filter) Info() disk.Info {
	in := f.child.Info()
	if f.cfg.RefuseFastZero && in.FastZero == disk.Native {
		in.FastZero = disk.Emulated // offered; the Disk above refuses
	}
	if f.cfg.Cache > 0 {
		in.Cache = disk.Native // else the Disk above reads, past Cache
	}
	if f.cfg.Extents > 0 && len(in.Maps) == 0 {
		in.Maps = []disk.MapName{disk.Allocation} // else it answers itself, past Extents
	}
	return in
}

// ReadAt implements disk.Driver.
func (f *filter) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := f.wait(ctx, f.cfg.Read); err != nil {
		return err
	}
	return f.child.ReadAt(ctx, p, off)
}

// WriteAt implements disk.Driver.
func (f *filter) WriteAt(ctx context.Context, p []byte, off int64, flags disk.Flags) error {
	if err := f.wait(ctx, f.cfg.Write); err != nil {
		return err
	}
	return f.child.WriteAt(ctx, p, off, flags)
}

// Zero implements disk.Driver.
func (f *filter) Zero(ctx context.Context, off, n int64, flags disk.Flags) error {
	if err := f.wait(ctx, f.cfg.Zero); err != nil {
		return err
	}
	return f.child.Zero(ctx, off, n, flags)
}

// Trim implements disk.Driver.
func (f *filter) Trim(ctx context.Context, off, n int64, flags disk.Flags) error {
	if err := f.wait(ctx, f.cfg.Trim); err != nil {
		return err
	}
	return f.child.Trim(ctx, off, n, flags)
}

// Flush implements disk.Driver.
func (f *filter) Flush(ctx context.Context) error {
	if err := f.wait(ctx, f.cfg.Flush); err != nil {
		return err
	}
	return f.child.Flush(ctx)
}

// Extents implements disk.Driver.
func (f *filter) Extents(ctx context.Context, m disk.MapName, off, n int64, dst []disk.Extent) ([]disk.Extent, error) {
	if err := f.wait(ctx, f.cfg.Extents); err != nil {
		return dst, err
	}
	return f.child.Extents(ctx, m, off, n, dst)
}

// Cache implements disk.Cacher.
func (f *filter) Cache(ctx context.Context, off, n int64) error {
	if err := f.wait(ctx, f.cfg.Cache); err != nil {
		return err
	}
	return f.child.Cache(ctx, off, n)
}

// Close implements disk.Driver.
func (f *filter) Close() error {
	time.Sleep(f.cfg.Close)
	return f.child.Close()
}

// Unwrap implements disk.Unwrapper.
func (f *filter) Unwrap() *disk.Disk { return f.child }
