package stats

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/outfile"
)

// Config is the filter's parameters.
type Config struct {
	File   string // statsfile; "" means none
	Append bool   // statsappend
}

// Filter counts; see the package comment. It is reached by disk.As.
type Filter struct {
	child *disk.Disk
	file  *os.File
	json  bool
	start time.Time

	read, write, zero, trim, flush, extents, cache counter
}

// New puts the filter over child, which it owns from here on unless it fails.
// The file is made at once, so that a wrong name shows before work begins.
func New(child *disk.Disk, cfg Config) (*disk.Disk, error) {
	f := &Filter{child: child, start: time.Now(), json: isJSON(cfg.File)}
	if cfg.File != "" {
		var err error
		if f.file, err = outfile.Open(child, cfg.File, cfg.Append); err != nil {
			return nil, fmt.Errorf("statsfile: %w", err)
		}
	}
	return disk.New(f, child.Name()), nil
}

// Info implements disk.Driver.
func (f *Filter) Info() disk.Info { return f.child.Info() }

// ReadAt implements disk.Driver.
func (f *Filter) ReadAt(ctx context.Context, p []byte, off int64) error {
	start := time.Now()
	err := f.child.ReadAt(ctx, p, off)
	f.read.add(int64(len(p)), start, err)
	return err
}

// WriteAt implements disk.Driver.
func (f *Filter) WriteAt(ctx context.Context, p []byte, off int64, flags disk.Flags) error {
	start := time.Now()
	err := f.child.WriteAt(ctx, p, off, flags)
	f.write.add(int64(len(p)), start, err)
	return err
}

// Zero implements disk.Driver.
func (f *Filter) Zero(ctx context.Context, off, n int64, flags disk.Flags) error {
	start := time.Now()
	err := f.child.Zero(ctx, off, n, flags)
	f.zero.add(n, start, err)
	return err
}

// Trim implements disk.Driver.
func (f *Filter) Trim(ctx context.Context, off, n int64, flags disk.Flags) error {
	start := time.Now()
	err := f.child.Trim(ctx, off, n, flags)
	f.trim.add(n, start, err)
	return err
}

// Flush implements disk.Driver.
func (f *Filter) Flush(ctx context.Context) error {
	start := time.Now()
	err := f.child.Flush(ctx)
	f.flush.add(0, start, err)
	return err
}

// Extents implements disk.Driver.
func (f *Filter) Extents(ctx context.Context, m disk.MapName, off, n int64, dst []disk.Extent) ([]disk.Extent, error) {
	start := time.Now()
	got, err := f.child.Extents(ctx, m, off, n, dst)
	f.extents.add(n, start, err)
	return got, err
}

// Cache implements disk.Cacher.
func (f *Filter) Cache(ctx context.Context, off, n int64) error {
	start := time.Now()
	err := f.child.Cache(ctx, off, n)
	f.cache.add(n, start, err)
	return err
}

// TryRead implements disk.Inliner.
func (f *Filter) TryRead(p []byte, off int64) error {
	start := time.Now()
	err := f.child.TryRead(p, off)
	if err != disk.ErrWouldBlock {
		f.read.add(int64(len(p)), start, err)
	}
	return err
}

// TryWrite implements disk.Inliner.
func (f *Filter) TryWrite(p []byte, off int64, flags disk.Flags) error {
	start := time.Now()
	err := f.child.TryWrite(p, off, flags)
	if err != disk.ErrWouldBlock {
		f.write.add(int64(len(p)), start, err)
	}
	return err
}

// Readv implements disk.Vectorer.
func (f *Filter) Readv(ctx context.Context, vec [][]byte, off int64) error {
	start := time.Now()
	err := f.child.Readv(ctx, vec, off)
	f.read.add(length(vec), start, err)
	return err
}

// Writev implements disk.Vectorer.
func (f *Filter) Writev(ctx context.Context, vec [][]byte, off int64, flags disk.Flags) error {
	start := time.Now()
	err := f.child.Writev(ctx, vec, off, flags)
	f.write.add(length(vec), start, err)
	return err
}

func length(vec [][]byte) (n int64) {
	for _, p := range vec {
		n += int64(len(p))
	}
	return n
}

// Unwrap implements disk.Unwrapper.
func (f *Filter) Unwrap() *disk.Disk { return f.child }

// Close implements disk.Driver. It writes the file.
func (f *Filter) Close() error {
	err := f.child.Close()
	if f.file == nil {
		return err
	}
	return errors.Join(err, f.save())
}

func (f *Filter) save() error {
	text := f.Snapshot().text()
	if f.json {
		text = f.Snapshot().encode()
	}
	_, err := f.file.WriteString(text)
	if err = errors.Join(err, f.file.Close()); err != nil {
		return fmt.Errorf("statsfile: %w", err)
	}
	return nil
}
