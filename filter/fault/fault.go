package fault

import (
	"context"
	"fmt"

	"github.com/vmdisk/vmdisk/disk"
)

// Fault fails calls that When matches with Err.
type Fault struct {
	When Rule
	Err  error
}

type filter struct {
	child  *disk.Disk
	faults []Fault
}

// New puts faults over child, which the filter owns from here on. For each
// operation the faults are asked in order, up to the first that matches.
func New(child *disk.Disk, faults ...Fault) *disk.Disk {
	return disk.New(&filter{child: child, faults: faults}, child.Name())
}

// Hook turns faults into a function that others ask before an operation, such as
// disktest.CrashConfig.Fail. Flags are not known to it.
func Hook(faults ...Fault) func(op disk.Kind, off, n int64) error {
	f := &filter{faults: faults}
	return func(op disk.Kind, off, n int64) error { return f.check(1<<op, off, n, 0) }
}

func (f *filter) check(op Op, off, n int64, flags disk.Flags) error {
	c := Call{Op: op, Off: off, Len: n, Flags: flags}
	for _, x := range f.faults {
		if x.When(c) {
			return fmt.Errorf("injected fault: %w", x.Err)
		}
	}
	return nil
}

// Info implements disk.Driver. What the Disk above would otherwise answer by
// itself has to come here to be able to fail.
func (f *filter) Info() disk.Info {
	in := f.child.Info()
	in.Cache = disk.Native
	if len(in.Maps) == 0 {
		in.Maps = []disk.MapName{disk.Allocation}
	}
	return in
}

// ReadAt implements disk.Driver.
func (f *filter) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := f.check(Read, off, int64(len(p)), 0); err != nil {
		return err
	}
	return f.child.ReadAt(ctx, p, off)
}

// WriteAt implements disk.Driver.
func (f *filter) WriteAt(ctx context.Context, p []byte, off int64, flags disk.Flags) error {
	if err := f.check(Write, off, int64(len(p)), flags); err != nil {
		return err
	}
	return f.child.WriteAt(ctx, p, off, flags)
}

// Zero implements disk.Driver.
func (f *filter) Zero(ctx context.Context, off, n int64, flags disk.Flags) error {
	if err := f.check(Zero, off, n, flags); err != nil {
		return err
	}
	return f.child.Zero(ctx, off, n, flags)
}

// Trim implements disk.Driver.
func (f *filter) Trim(ctx context.Context, off, n int64, flags disk.Flags) error {
	if err := f.check(Trim, off, n, flags); err != nil {
		return err
	}
	return f.child.Trim(ctx, off, n, flags)
}

// Flush implements disk.Driver.
func (f *filter) Flush(ctx context.Context) error {
	if err := f.check(Flush, -1, 0, 0); err != nil {
		return err
	}
	return f.child.Flush(ctx)
}

// Extents implements disk.Driver.
func (f *filter) Extents(ctx context.Context, m disk.MapName, off, n int64, dst []disk.Extent) ([]disk.Extent, error) {
	if err := f.check(Extents, off, n, 0); err != nil {
		return dst, err
	}
	return f.child.Extents(ctx, m, off, n, dst)
}

// Cache implements disk.Cacher.
func (f *filter) Cache(ctx context.Context, off, n int64) error {
	if err := f.check(Cache, off, n, 0); err != nil {
		return err
	}
	return f.child.Cache(ctx, off, n)
}

// Close implements disk.Driver.
func (f *filter) Close() error { return f.child.Close() }

// Unwrap implements disk.Unwrapper.
func (f *filter) Unwrap() *disk.Disk { return f.child }
