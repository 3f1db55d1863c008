package disktest

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
)

// MinSize is the smallest disk that Conformance accepts, in bytes. Some MiB are
// better; only the beginning and the end of a large disk are tried.
const MinSize = 512 << 10

// Opener returns a new disk with the same content each time. The suite closes
// it; what else has to go is for tb.Cleanup.
type Opener func(tb testing.TB) *disk.Disk

// Options describe the disks of an Opener where they are out of the ordinary.
type Options struct {
	// Content writes the initial content at off into p; nil means zeros.
	Content func(p []byte, off int64)
	// Discards: writes succeed and are forgotten.
	Discards bool
	// Fixed: writes need not succeed although the disk is not read-only.
	Fixed bool
	// Ops is the number of random operations of each worker (default 400).
	Ops int
	// Seed of the random operations (default: a new one each time, which is logged).
	Seed uint64
}

// Conformance runs every check, each on a disk of its own and in parallel.
func Conformance(t *testing.T, open Opener, opt Options) {
	t.Helper()
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := open(t)
			t.Cleanup(func() { d.Close() })
			s := &suite{T: t, d: d, opt: opt, ctx: t.Context(), writes: !d.Info().ReadOnly && !opt.Fixed}
			if d.Size() < MinSize {
				t.Fatalf("the disk has %d bytes, the suite needs %d", d.Size(), MinSize)
			}
			if c.writes && !s.writes {
				t.Skip("nothing can be written")
			}
			if c.stores && opt.Discards {
				t.Skip("writes are discarded")
			}
			c.run(s)
		})
	}
}

type check struct {
	name   string
	writes bool // needs a disk that can be written
	stores bool // needs a disk that keeps what is written
	run    func(*suite)
}

var checks = []check{
	{"info", false, false, (*suite).info},
	{"content", false, false, (*suite).content},
	{"bounds", false, false, (*suite).bounds},
	{"read-only", false, false, (*suite).readOnly},
	{"flags", true, false, (*suite).flags},
	{"write", true, true, (*suite).write},
	{"vectors", false, false, (*suite).vectors},
	{"zero", true, true, (*suite).zero},
	{"zero-all", true, true, (*suite).zeroAll},
	{"fast-zero", true, true, (*suite).fastZero},
	{"trim", true, true, (*suite).trim},
	{"flush", true, false, (*suite).flush},
	{"cache", false, false, (*suite).cache},
	{"extents", false, false, (*suite).extents},
	{"extents-changed", true, true, (*suite).extentsChanged},
	{"inline", false, false, (*suite).inline},
	{"file-range", false, false, (*suite).fileRange},
	{"cancelled", false, false, (*suite).cancelled},
	{"buffers", true, true, (*suite).buffers},
	{"queue", false, false, (*suite).queue},
	{"queue-limits", false, false, (*suite).queueLimits},
	{"queue-refusals", false, false, (*suite).queueRefusals},
	{"queue-watch", false, false, (*suite).queueWatch},
	{"queue-close", true, true, (*suite).queueClose},
	{"resize", true, true, (*suite).resize},
	{"overlap", true, true, (*suite).overlap},
	{"random", false, false, func(s *suite) { Random(s.T, s.d, s.opt) }},
	{"close", false, false, (*suite).close},
}

// suite is one check at work on one disk.
type suite struct {
	*testing.T
	d      *disk.Disk
	opt    Options
	ctx    context.Context
	writes bool
}

// initial is what a new disk holds in [off, off+n).
func (o *Options) initial(off, n int64) []byte {
	p := make([]byte, n)
	if o.Content != nil {
		o.Content(p, off)
	}
	return p
}

// places are the offsets near which things are tried: both ends of the disk and
// a spot that no block size divides.
func (s *suite) places(n int64) []int64 {
	return []int64{0, 1, 511, 4095, 65536, 131071, s.d.Size() - n - 1, s.d.Size() - n}
}

// bytesFor returns n bytes, none of them zero, that differ with key.
func bytesFor(key, n int64) []byte {
	p := make([]byte, n)
	x := uint64(key)*0x9e3779b97f4a7c15 + 1
	for i := range p {
		x = x*6364136223846793005 + 1442695040888963407
		p[i] = byte(x>>56) | 1
	}
	return p
}

func (s *suite) ok(what string, err error) {
	s.Helper()
	if err != nil {
		s.Fatalf("%s: %v", what, err)
	}
}

func (s *suite) is(what string, err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Errorf("%s: got %v, want %v", what, err, want)
	}
}

func (s *suite) put(p []byte, off int64) {
	s.Helper()
	s.ok("write", s.d.WriteAt(s.ctx, p, off, 0))
}

func (s *suite) get(off, n int64) []byte {
	s.Helper()
	p := bytesFor(off, n)
	s.ok("read", s.d.ReadAt(s.ctx, p, off))
	return p
}

// holds compares the disk with want.
func (s *suite) holds(what string, off int64, want []byte) {
	s.Helper()
	if i := firstDifference(s.get(off, int64(len(want))), want); i >= 0 {
		s.Fatalf("%s: the disk differs from what it should hold at offset %d", what, off+int64(i))
	}
}

func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// info checks that Info is one that a Disk may have.
func (s *suite) info() {
	in := s.d.Info()
	if in.Size != s.d.Size() {
		s.Errorf("Info has size %d, the disk %d", in.Size, s.d.Size())
	}
	if in.Zero == disk.None || in.FUA == disk.None || in.Cache == disk.None {
		s.Error("a Disk has at least emulated zero, FUA and cache")
	}
	for name, n := range map[string]int64{"Min": in.Min, "Preferred": in.Preferred, "Bulk": in.Bulk, "MaxIO": in.MaxIO,
		"MaxZero": in.MaxZero, "MaxTrim": in.MaxTrim, "TrimAlign": in.TrimAlign, "Atomic": in.Atomic} {
		if n < 0 {
			s.Errorf("%s is %d", name, n)
		}
	}
	if in.KnownZero && s.opt.Content != nil {
		s.Error("KnownZero on a disk that holds data")
	}
	if s.writes && !s.opt.Discards {
		s.put([]byte{1}, 0)
		if s.d.Info().KnownZero {
			s.Error("KnownZero although data has been written")
		}
	}
	if s.d.Name() == "" {
		s.Error("the disk has no name")
	}
}

func (s *suite) content() {
	for _, n := range []int64{1, 511, 4096, 100_001} {
		for _, off := range s.places(n) {
			s.holds("new disk", off, s.opt.initial(off, n))
		}
	}
}

// bounds: nothing outside [0, Size) is touched or answered, nothing of length
// 0 fails inside.
func (s *suite) bounds() {
	size := s.d.Size()
	tail := s.opt.initial(size-4096, 4096)
	for _, c := range []struct{ off, n int64 }{
		{-1, 1}, {-4096, 4096}, {size, 1}, {size - 1, 2}, {size - 4096, 8192}, {size + 4096, 4096},
		{1<<63 - 1, 1}, {1<<63 - 4096, 4096}, {-1 << 63, 4096}, {size + 1, 0}, {-1, 0},
	} {
		p := make([]byte, c.n)
		s.is("read", s.d.ReadAt(s.ctx, p, c.off), disk.ErrRange)
		s.is("cache", s.d.Cache(s.ctx, c.off, c.n), disk.ErrRange)
		_, err := s.d.Extents(s.ctx, disk.Allocation, c.off, c.n, nil)
		s.is("extents", err, disk.ErrRange)
		if s.writes {
			s.is("write", s.d.WriteAt(s.ctx, p, c.off, 0), disk.ErrRange)
			s.is("zero", s.d.Zero(s.ctx, c.off, c.n, 0), disk.ErrRange)
			s.is("trim", s.d.Trim(s.ctx, c.off, c.n, 0), disk.ErrRange)
		}
	}
	s.is("zero of a negative length", s.d.Zero(s.ctx, 4096, -4096, 0), s.changeError(disk.ErrRange))
	s.is("zero of an overflowing length", s.d.Zero(s.ctx, 4096, 1<<63-1, 0), s.changeError(disk.ErrRange))
	s.holds("after refused requests", size-4096, tail)
	for _, off := range []int64{0, 1, size - 1, size} {
		s.ok("read of nothing", s.d.ReadAt(s.ctx, nil, off))
		if s.writes {
			s.ok("write of nothing", s.d.WriteAt(s.ctx, nil, off, disk.FUA))
			s.ok("zero of nothing", s.d.Zero(s.ctx, off, 0, disk.MayTrim))
			s.ok("trim of nothing", s.d.Trim(s.ctx, off, 0, 0))
		}
	}
}

// changeError is the error of a change that also has the fault err.
func (s *suite) changeError(err error) error {
	if s.d.Info().ReadOnly {
		return disk.ErrReadOnly
	}
	return err
}

func (s *suite) readOnly() {
	if !s.d.Info().ReadOnly {
		s.Skip("the disk can be written")
	}
	before := s.get(0, 8192)
	p := bytesFor(1, 4096)
	s.is("write", s.d.WriteAt(s.ctx, p, 0, 0), disk.ErrReadOnly)
	s.is("zero", s.d.Zero(s.ctx, 0, 4096, 0), disk.ErrReadOnly)
	s.is("fast zero", s.d.Zero(s.ctx, 0, 4096, disk.FastOnly), disk.ErrReadOnly)
	s.is("trim", s.d.Trim(s.ctx, 0, 4096, 0), disk.ErrReadOnly)
	s.is("vector write", s.d.Writev(s.ctx, [][]byte{p}, 0, 0), disk.ErrReadOnly)
	if err := s.d.TryWrite(p, 0, 0); !errors.Is(err, disk.ErrReadOnly) && err != disk.ErrWouldBlock {
		s.Errorf("inline write: %v", err)
	}
	if r, ok := s.d.FileRange(0, 4096, true); ok {
		r.Release()
		s.Error("a writable file range of a read-only disk")
	}
	s.ok("flush", s.d.Flush(s.ctx))
	s.holds("after refused writes", 0, before)
}

func (s *suite) flags() {
	s.is("write, MayTrim", s.d.WriteAt(s.ctx, make([]byte, 512), 0, disk.MayTrim), disk.ErrFlags)
	s.is("trim, FastOnly", s.d.Trim(s.ctx, 0, 512, disk.FastOnly), disk.ErrFlags)
	s.is("zero, unknown", s.d.Zero(s.ctx, 0, 512, 1<<20), disk.ErrFlags)
	s.ok("trim, FUA", s.d.Trim(s.ctx, 0, 65536, disk.FUA))
}

func (s *suite) close() {
	s.ok("close", s.d.Close())
	s.is("second close", s.d.Close(), fs.ErrClosed)
}
