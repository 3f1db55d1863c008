package disktest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

// broken is a disk over a good one with one fault in it, each found by the check
// that has its name in brokenDisks.
type broken struct {
	disk.Driver
	edit    func(*disk.Info)
	write   func(b *broken, ctx context.Context, p []byte, off int64, f disk.Flags) error
	zero    func(b *broken, ctx context.Context, off, n int64, f disk.Flags) error
	trim    func(b *broken, ctx context.Context, off, n int64) error
	read    func(b *broken, ctx context.Context, p []byte, off int64) error
	flush   func(b *broken, ctx context.Context) error
	late    []func(context.Context)
	extents func(b *broken, ctx context.Context, off, n int64, dst []disk.Extent) ([]disk.Extent, error)
}

func (b *broken) Info() disk.Info {
	in := b.Driver.Info()
	if b.edit != nil {
		b.edit(&in)
	}
	return in
}

func (b *broken) ReadAt(ctx context.Context, p []byte, off int64) error {
	if b.read != nil {
		return b.read(b, ctx, p, off)
	}
	return b.Driver.ReadAt(ctx, p, off)
}

func (b *broken) WriteAt(ctx context.Context, p []byte, off int64, f disk.Flags) error {
	if b.write != nil {
		return b.write(b, ctx, p, off, f)
	}
	return b.Driver.WriteAt(ctx, p, off, f)
}

func (b *broken) Zero(ctx context.Context, off, n int64, f disk.Flags) error {
	if b.zero != nil {
		return b.zero(b, ctx, off, n, f)
	}
	return b.Driver.Zero(ctx, off, n, f)
}

func (b *broken) Trim(ctx context.Context, off, n int64, f disk.Flags) error {
	if b.trim != nil {
		return b.trim(b, ctx, off, n)
	}
	return b.Driver.Trim(ctx, off, n, f)
}

func (b *broken) Flush(ctx context.Context) error {
	if b.flush != nil {
		return b.flush(b, ctx)
	}
	return b.Driver.Flush(ctx)
}

func (b *broken) Extents(ctx context.Context, m disk.MapName, off, n int64, dst []disk.Extent) ([]disk.Extent, error) {
	if b.extents != nil {
		return b.extents(b, ctx, off, n, dst)
	}
	return b.Driver.Extents(ctx, m, off, n, dst)
}

var errFlush = errors.New("flush failed")

var brokenDisks = map[string]broken{
	"content": {read: func(b *broken, ctx context.Context, p []byte, off int64) error {
		err := b.Driver.ReadAt(ctx, p, off)
		p[len(p)-1] ^= 1
		return err
	}},
	"info": {edit: func(in *disk.Info) { in.KnownZero = true }},
	"write": {write: func(b *broken, ctx context.Context, p []byte, off int64, f disk.Flags) error {
		return b.Driver.WriteAt(ctx, p[:len(p)-len(p)/600], off, f)
	}},
	"zero": {zero: func(b *broken, ctx context.Context, off, n int64, f disk.Flags) error {
		return b.Driver.Zero(ctx, off, n&^511, f)
	}},
	"zero-all": {edit: func(in *disk.Info) { in.MaxZero = 1 << 20 }, zero: func(b *broken, ctx context.Context, off, n int64, f disk.Flags) error {
		return b.Driver.Zero(ctx, off%(1<<20), n, f)
	}},
	"fast-zero": {zero: func(b *broken, ctx context.Context, off, n int64, f disk.Flags) error {
		err := b.Driver.Zero(ctx, off, n, f)
		if f&disk.FastOnly != 0 {
			return disk.ErrNotFast
		}
		return err
	}},
	"trim": {trim: func(b *broken, ctx context.Context, off, n int64) error {
		return b.Driver.Zero(ctx, off&^4095, n, 0)
	}},
	"flush": {flush: func(*broken, context.Context) error { return errFlush }},
	"extents": {extents: func(_ *broken, _ context.Context, off, _ int64, dst []disk.Extent) ([]disk.Extent, error) {
		return append(dst, disk.Extent{Len: off % 512}), nil
	}},
	"extents-changed": {extents: func(_ *broken, _ context.Context, _, n int64, dst []disk.Extent) ([]disk.Extent, error) {
		return append(dst, disk.Extent{Len: n, Flags: disk.ExtentZero}), nil
	}},
	"cancelled": {flush: func(_ *broken, ctx context.Context) error {
		if ctx.Err() != nil {
			return errFlush
		}
		return nil
	}},
	// Writes at the next flush, from the caller's buffers.
	"buffers": {write: func(b *broken, _ context.Context, p []byte, off int64, f disk.Flags) error {
		b.late = append(b.late, func(ctx context.Context) { _ = b.Driver.WriteAt(ctx, p, off, f) })
		return nil
	}, flush: func(b *broken, ctx context.Context) error {
		for _, write := range b.late {
			write(ctx)
		}
		return nil
	}},
	"random": {write: func(b *broken, ctx context.Context, p []byte, off int64, f disk.Flags) error {
		if len(p) > 1000 && off%8 == 1 {
			return nil
		}
		return b.Driver.WriteAt(ctx, p, off, f)
	}},
	// Read-modify-write without a lock.
	"overlap": {write: func(b *broken, ctx context.Context, p []byte, off int64, f disk.Flags) error {
		first := off &^ 65535
		block := make([]byte, min(b.Driver.Info().Size, (off+int64(len(p))+65535)&^65535)-first)
		if err := b.Driver.ReadAt(ctx, block, first); err != nil {
			return err
		}
		time.Sleep(200 * time.Microsecond)
		copy(block[off-first:], p)
		return b.Driver.WriteAt(ctx, block, first, f)
	}},
}

const brokenName = "VMDISK_BROKEN_DISK"

// TestBrokenDisk is run by TestSuiteFindsFaults, in a process of its own.
func TestBrokenDisk(t *testing.T) {
	name := os.Getenv(brokenName)
	if name == "" {
		t.Skip("run by TestSuiteFindsFaults")
	}
	Conformance(t, func(testing.TB) *disk.Disk {
		b := brokenDisks[name]
		b.Driver = NewCrash(CrashConfig{Size: 2 << 20}).Open()
		edit := b.edit
		b.edit = func(in *disk.Info) {
			in.Min = 0
			if edit != nil {
				edit(in)
			}
		}
		return disk.New(&b, "broken")
	}, Options{Seed: 1})
}

// A suite that cannot fail proves nothing: every check has to find the disk that
// is broken in its way.
func TestSuiteFindsFaults(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts a process for each fault")
	}
	for name := range brokenDisks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBrokenDisk$/^"+name+"$", "-test.timeout=60s")
			cmd.Env = append(os.Environ(), brokenName+"="+name)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestBrokenDisk/"+name) {
				t.Errorf("the check passes a broken disk: %v\n%s", err, out)
			}
		})
	}
}

// Durable finds a layer that does not pass flushes on, and one that drops FUA.
func TestDurableFindsFaults(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]broken{
		"flush": {flush: func(*broken, context.Context) error { return nil }},
		"fua": {write: func(b *broken, ctx context.Context, p []byte, off int64, _ disk.Flags) error {
			return b.Driver.WriteAt(ctx, p, off, 0)
		}},
	} {
		var found error
		for round := range uint64(20) {
			err := durableRound(t, func(_ testing.TB, d *disk.Disk) *disk.Disk {
				layer := b
				layer.Driver = d
				return disk.New(&layer, "broken")
			}, Options{Ops: 100, Seed: 1}, round)
			found = errors.Join(found, err)
		}
		if found == nil {
			t.Errorf("%s: a layer that loses acknowledged data passes", name)
		}
	}
}
