package nozero

import (
	"context"
	"fmt"

	"github.com/vmdisk/vmdisk/disk"
)

// ZeroMode says what becomes of a zero.
type ZeroMode string

// The zero modes; "" means ZeroNone.
const (
	ZeroNone    ZeroMode = "none"
	ZeroEmulate ZeroMode = "emulate"
	ZeroNoTrim  ZeroMode = "notrim"
	ZeroPlugin  ZeroMode = "plugin"
)

// FastZeroMode says what becomes of a fast zero.
type FastZeroMode string

// The fast-zero modes; "" means FastDefault.
const (
	FastNone    FastZeroMode = "none"
	FastSlow    FastZeroMode = "slow"
	FastIgnore  FastZeroMode = "ignore"
	FastDefault FastZeroMode = "default"
)

// Config is the filter's parameters, zeromode and fastzeromode.
type Config struct {
	ZeroMode     ZeroMode
	FastZeroMode FastZeroMode
}

// writeSize is how much one write of an emulated zero covers: the size of the
// study's requests, so that one zero costs what one write costs.
const writeSize = 1 << 20

var zeros [writeSize]byte

type filter struct {
	disk.Driver
	child *disk.Disk
	cfg   Config
}

// New puts the filter over child, which it owns from here on unless it fails.
func New(child *disk.Disk, cfg Config) (*disk.Disk, error) {
	switch cfg.ZeroMode {
	case "":
		cfg.ZeroMode = ZeroNone
	case ZeroNone, ZeroEmulate, ZeroNoTrim, ZeroPlugin:
	default:
		return nil, fmt.Errorf("zeromode %q is none of none, emulate, notrim, plugin", cfg.ZeroMode)
	}
	switch cfg.FastZeroMode {
	case "":
		cfg.FastZeroMode = FastDefault
	case FastNone, FastSlow, FastIgnore, FastDefault:
	default:
		return nil, fmt.Errorf("fastzeromode %q is none of none, slow, ignore, default", cfg.FastZeroMode)
	}
	return disk.New(&filter{Driver: child, child: child, cfg: cfg}, child.Name()), nil
}

// Info implements disk.Driver.
func (f *filter) Info() disk.Info {
	in := f.child.Info()
	switch f.cfg.ZeroMode {
	case ZeroNone:
		in.Zero, in.FastZero, in.HideZero = disk.None, disk.None, true
		return in
	case ZeroEmulate:
		in.Zero, in.MaxZero = disk.Emulated, 0
	}
	switch f.cfg.FastZeroMode {
	case FastNone:
		in.FastZero = disk.None
	case FastSlow:
		in.FastZero = disk.Emulated // offered; the Disk above refuses
	case FastIgnore:
		in.FastZero = disk.Native
	case FastDefault:
		if f.cfg.ZeroMode == ZeroEmulate {
			in.FastZero = disk.Emulated
		}
	}
	return in
}

// Zero implements disk.Driver.
func (f *filter) Zero(ctx context.Context, off, n int64, flags disk.Flags) error {
	if f.cfg.FastZeroMode == FastIgnore {
		flags &^= disk.FastOnly
	}
	switch f.cfg.ZeroMode {
	case ZeroEmulate:
		return f.writeZeros(ctx, off, n, flags&disk.FUA)
	case ZeroNoTrim:
		flags &^= disk.MayTrim
	}
	return f.child.Zero(ctx, off, n, flags)
}

func (f *filter) writeZeros(ctx context.Context, off, n int64, flags disk.Flags) error {
	for n > 0 {
		part := min(n, writeSize)
		if err := f.child.WriteAt(ctx, zeros[:part], off, flags); err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return nil
}

// Unwrap implements disk.Unwrapper.
func (f *filter) Unwrap() *disk.Disk { return f.child }

// TryRead implements disk.Inliner.
func (f *filter) TryRead(p []byte, off int64) error { return f.child.TryRead(p, off) }

// TryWrite implements disk.Inliner.
func (f *filter) TryWrite(p []byte, off int64, flags disk.Flags) error {
	return f.child.TryWrite(p, off, flags)
}

// Readv implements disk.Vectorer.
func (f *filter) Readv(ctx context.Context, vec [][]byte, off int64) error {
	return f.child.Readv(ctx, vec, off)
}

// Writev implements disk.Vectorer.
func (f *filter) Writev(ctx context.Context, vec [][]byte, off int64, flags disk.Flags) error {
	return f.child.Writev(ctx, vec, off, flags)
}

// Cache implements disk.Cacher.
func (f *filter) Cache(ctx context.Context, off, n int64) error { return f.child.Cache(ctx, off, n) }

// FileRange implements disk.FileRanger.
func (f *filter) FileRange(off, n int64, write bool) (disk.FileRange, bool) {
	return f.child.FileRange(off, n, write)
}
