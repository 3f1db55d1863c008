package disktest

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/vmdisk/vmdisk/disk"
)

// Strict puts a layer over child whose Info edit may change at will (smaller
// limits, larger blocks, fewer capabilities; never more than child has) and
// which fails every request that its own Info does not allow. Of the optional
// interfaces it has disk.Cacher alone, so all else goes the plain way. The returned counter
// tells what reached the layer.
func Strict(child *disk.Disk, edit func(*disk.Info)) (*disk.Disk, *Counts) {
	s := &strict{child: child, in: child.Info()}
	s.in.ID, s.in.Cache = "", disk.Native
	edit(&s.in)
	return disk.New(s, "strict:"+child.Name()), &s.counts
}

// Counts is how many requests reached a layer.
type Counts struct{ Reads, Writes, Zeros, Trims, Flushes atomic.Int64 }

type strict struct {
	child  *disk.Disk
	in     disk.Info
	counts Counts
}

func (s *strict) Info() disk.Info {
	in := s.in
	in.KnownZero = in.KnownZero && s.child.Info().KnownZero
	return in
}

// allowed checks one request.
func (s *strict) allowed(op string, off, n, unit, limit int64, level disk.Level) error {
	unit = max(unit, 1)
	switch end := off + n; {
	case off < 0 || n <= 0 || end > s.in.Size:
	case limit > 0 && n > max(limit, unit):
	case off%unit != 0 || end%unit != 0 && end != s.in.Size:
	case level == disk.None:
	default:
		return nil
	}
	return fmt.Errorf("contract broken: %s of %d bytes at offset %d reached a driver with unit %d, limit %d, size %d, level %v",
		op, n, off, unit, limit, s.in.Size, level)
}

func (s *strict) allowedChange(op string, off, n, unit, limit int64, level disk.Level, f disk.Flags) error {
	if s.in.ReadOnly || f&disk.FUA != 0 && s.in.FUA != disk.Native || f&disk.FastOnly != 0 && s.in.FastZero != disk.Native {
		return fmt.Errorf("contract broken: %s with flags %b reached a driver that does not take it", op, f)
	}
	return s.allowed(op, off, n, unit, limit, level)
}

func (s *strict) ReadAt(ctx context.Context, p []byte, off int64) error {
	s.counts.Reads.Add(1)
	if err := s.allowed("read", off, int64(len(p)), s.in.Min, s.in.MaxIO, disk.Native); err != nil {
		return err
	}
	return s.child.ReadAt(ctx, p, off)
}

func (s *strict) WriteAt(ctx context.Context, p []byte, off int64, f disk.Flags) error {
	s.counts.Writes.Add(1)
	if err := s.allowedChange("write", off, int64(len(p)), s.in.Min, s.in.MaxIO, disk.Native, f); err != nil {
		return err
	}
	return s.child.WriteAt(ctx, p, off, f)
}

func (s *strict) Zero(ctx context.Context, off, n int64, f disk.Flags) error {
	s.counts.Zeros.Add(1)
	if err := s.allowedChange("zero", off, n, s.in.Min, s.in.MaxZero, s.in.Zero, f); err != nil {
		return err
	}
	return s.child.Zero(ctx, off, n, f)
}

func (s *strict) Trim(ctx context.Context, off, n int64, f disk.Flags) error {
	s.counts.Trims.Add(1)
	if err := s.allowedChange("trim", off, n, max(s.in.Min, s.in.TrimAlign), s.in.MaxTrim, s.in.Trim, f); err != nil {
		return err
	}
	return s.child.Trim(ctx, off, n, f)
}

func (s *strict) Flush(ctx context.Context) error {
	s.counts.Flushes.Add(1)
	return s.child.Flush(ctx)
}

func (s *strict) Extents(ctx context.Context, m disk.MapName, off, n int64, dst []disk.Extent) ([]disk.Extent, error) {
	if err := s.allowed("extents", off, n, s.in.Min, 0, disk.Native); err != nil {
		return dst, err
	}
	return s.child.Extents(ctx, m, off, n, dst)
}

func (s *strict) Cache(ctx context.Context, off, n int64) error {
	if err := s.allowed("cache", off, n, s.in.Min, 0, disk.Native); err != nil {
		return err
	}
	return s.child.Cache(ctx, off, n)
}

func (s *strict) Close() error { return s.child.Close() }
