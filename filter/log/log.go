package log

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/outfile"
)

// Config is the filter's parameters.
type Config struct {
	File   string // logfile; needed
	Append bool   // logappend
}

type filter struct {
	child *disk.Disk
	ids   atomic.Uint64

	mu   sync.Mutex
	file *os.File
	line []byte
	err  error // the first failure to write
}

// New puts the filter over child, which it owns from here on unless it fails.
func New(child *disk.Disk, cfg Config) (*disk.Disk, error) {
	if cfg.File == "" {
		return nil, errors.New("logfile is missing: name a file, such as /dev/stderr")
	}
	file, err := outfile.Open(child, cfg.File, cfg.Append)
	if err != nil {
		return nil, fmt.Errorf("logfile: %w", err)
	}
	return disk.New(&filter{child: child, file: file}, child.Name()), nil
}

// write makes one line of what add appends to the time.
func (f *filter) write(add func([]byte) []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.line = time.Now().UTC().AppendFormat(f.line[:0], "2006-01-02T15:04:05.000000Z ")
	f.line = append(add(f.line), '\n')
	if _, err := f.file.Write(f.line); err != nil && f.err == nil {
		f.err = fmt.Errorf("logfile: %w", err)
	}
}

// logged runs one operation between its two lines. A range of off -1 is none.
func (f *filter) logged(op string, off, n int64, flags disk.Flags, run func() error) error {
	id := f.ids.Add(1)
	f.write(func(b []byte) []byte {
		b = appendID(append(b, op...), id)
		if off >= 0 {
			b = strconv.AppendInt(append(b, " offset=0x"...), off, 16)
			b = strconv.AppendInt(append(b, " count=0x"...), n, 16)
		}
		return appendFlags(b, flags)
	})
	start := time.Now()
	err := run()
	took := time.Since(start)
	f.write(func(b []byte) []byte {
		b = appendID(append(append(b, "..."...), op...), id)
		b = strconv.AppendInt(append(b, " took="...), took.Microseconds(), 10)
		b = append(b, "us"...)
		if err != nil {
			b = strconv.AppendQuote(append(b, " error="...), err.Error())
		}
		return b
	})
	return err
}

func appendID(b []byte, id uint64) []byte { return strconv.AppendUint(append(b, " id="...), id, 10) }

func appendFlags(b []byte, flags disk.Flags) []byte {
	for _, f := range []struct {
		flag disk.Flags
		name string
	}{{disk.FUA, " fua"}, {disk.MayTrim, " maytrim"}, {disk.FastOnly, " fast"}} {
		if flags&f.flag != 0 {
			b = append(b, f.name...)
		}
	}
	return b
}

// Info implements disk.Driver.
func (f *filter) Info() disk.Info { return f.child.Info() }

// ReadAt implements disk.Driver.
func (f *filter) ReadAt(ctx context.Context, p []byte, off int64) error {
	return f.logged("read", off, int64(len(p)), 0, func() error { return f.child.ReadAt(ctx, p, off) })
}

// WriteAt implements disk.Driver.
func (f *filter) WriteAt(ctx context.Context, p []byte, off int64, flags disk.Flags) error {
	return f.logged("write", off, int64(len(p)), flags, func() error { return f.child.WriteAt(ctx, p, off, flags) })
}

// Zero implements disk.Driver.
func (f *filter) Zero(ctx context.Context, off, n int64, flags disk.Flags) error {
	return f.logged("zero", off, n, flags, func() error { return f.child.Zero(ctx, off, n, flags) })
}

// Trim implements disk.Driver.
func (f *filter) Trim(ctx context.Context, off, n int64, flags disk.Flags) error {
	return f.logged("trim", off, n, flags, func() error { return f.child.Trim(ctx, off, n, flags) })
}

// Flush implements disk.Driver.
func (f *filter) Flush(ctx context.Context) error {
	return f.logged("flush", -1, 0, 0, func() error { return f.child.Flush(ctx) })
}

// Extents implements disk.Driver.
func (f *filter) Extents(ctx context.Context, m disk.MapName, off, n int64, dst []disk.Extent) ([]disk.Extent, error) {
	err := f.logged("extents", off, n, 0, func() (err error) {
		dst, err = f.child.Extents(ctx, m, off, n, dst)
		return err
	})
	return dst, err
}

// Cache implements disk.Cacher.
func (f *filter) Cache(ctx context.Context, off, n int64) error {
	return f.logged("cache", off, n, 0, func() error { return f.child.Cache(ctx, off, n) })
}

// Unwrap implements disk.Unwrapper.
func (f *filter) Unwrap() *disk.Disk { return f.child }

// Close implements disk.Driver.
func (f *filter) Close() error {
	err := f.logged("close", -1, 0, 0, f.child.Close)
	return errors.Join(err, f.err, f.file.Close())
}
