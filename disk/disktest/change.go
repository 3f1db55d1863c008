package disktest

import (
	"bytes"
	"errors"
	"sync"

	"github.com/vmdisk/vmdisk/disk"
)

// write: what is written is read, at every alignment, and nothing beside it changes.
func (s *suite) write() {
	for _, flags := range []disk.Flags{0, disk.FUA} {
		for i, n := range []int64{1, 512, 513, 4096, 70_001} {
			for j, off := range s.places(n) {
				lo, hi := max(off-5000, 0), min(off+n+5000, s.d.Size())
				want := s.get(lo, hi-lo)
				p := bytesFor(int64(i*10+j)+1, n)
				copy(want[off-lo:], p)
				s.ok("write", s.d.WriteAt(s.ctx, p, off, flags))
				s.holds("after a write", lo, want)
			}
		}
	}
}

func (s *suite) vectors() {
	const off, n = 4000, 9000
	want := s.opt.initial(off, n)
	split := func(p []byte) [][]byte { return [][]byte{p[:1], nil, p[1:4097], p[4097:8192], p[8192:]} }
	if s.writes {
		p := bytesFor(3, n)
		s.ok("vector write", s.d.Writev(s.ctx, split(p), off, disk.FUA))
		if !s.opt.Discards {
			want = p
		}
	}
	got := bytesFor(4, n)
	s.ok("vector read", s.d.Readv(s.ctx, split(got), off))
	if i := firstDifference(got, want); i >= 0 {
		s.Errorf("vector read differs at offset %d", off+i)
	}
	s.holds("after a vector write", off, want)
	s.ok("empty vector", s.d.Readv(s.ctx, nil, 0))
	s.is("vector past the end", s.d.Readv(s.ctx, [][]byte{make([]byte, 1), make([]byte, 4096)}, s.d.Size()-1), disk.ErrRange)
}

// zero: zeros, all of them, and nothing beside them.
func (s *suite) zero() {
	for _, flags := range []disk.Flags{0, disk.MayTrim, disk.FUA, disk.MayTrim | disk.FUA} {
		for i, n := range []int64{1, 4096, 10_000, 65536, 200_000} {
			for j, off := range s.places(n) {
				lo, hi := max(off-5000, 0), min(off+n+5000, s.d.Size())
				want := bytesFor(int64(i*10+j)+1, hi-lo)
				s.put(want, lo)
				clear(want[off-lo : off-lo+n])
				s.ok("zero", s.d.Zero(s.ctx, off, n, flags))
				s.holds("after a zero", lo, want)
			}
		}
	}
}

// zeroAll zeroes as much as a driver may have to split.
func (s *suite) zeroAll() {
	n := min(s.d.Size(), 8<<20)
	for off := int64(0); off < n; off += 100_000 {
		s.put([]byte{1, 2, 3}, min(off, n-3))
	}
	s.ok("zero", s.d.Zero(s.ctx, 0, n, disk.MayTrim))
	s.holds("after a large zero", 0, make([]byte, n))
}

// fastZero: a zero that is refused has touched nothing.
func (s *suite) fastZero() {
	for _, n := range []int64{1, 4096, 65536, 150_000} {
		for j, off := range s.places(n) {
			for _, flags := range []disk.Flags{disk.FastOnly, disk.FastOnly | disk.MayTrim, disk.FastOnly | disk.FUA} {
				lo, hi := max(off-5000, 0), min(off+n+5000, s.d.Size())
				want := bytesFor(int64(j)+n, hi-lo)
				s.put(want, lo)
				err := s.d.Zero(s.ctx, off, n, flags)
				if err == nil {
					clear(want[off-lo : off-lo+n])
				} else if !errors.Is(err, disk.ErrNotFast) || !errors.Is(err, errors.ErrUnsupported) {
					s.Fatalf("fast zero: %v, want nil or ErrNotFast", err)
				}
				s.holds("after a fast zero", lo, want)
			}
		}
	}
	if s.d.Info().FastZero != disk.Native {
		s.is("fast zero where there is none", s.d.Zero(s.ctx, 0, 65536, disk.FastOnly), disk.ErrNotFast)
	}
}

// trim succeeds, and changes nothing beside the range.
func (s *suite) trim() {
	for _, n := range []int64{1, 5000, 65536, 200_000} {
		for _, off := range s.places(n) {
			lo, hi := max(off-5000, 0), min(off+n+5000, s.d.Size())
			want := bytesFor(n, hi-lo)
			s.put(want, lo)
			s.ok("trim", s.d.Trim(s.ctx, off, n, 0))
			s.holds("before a trim", lo, want[:off-lo])
			s.holds("after a trim", off+n, want[off+n-lo:])
			s.put(want, lo)
			s.holds("writing what was trimmed", lo, want)
		}
	}
}

func (s *suite) flush() {
	s.ok("flush of a new disk", s.d.Flush(s.ctx))
	s.put(bytesFor(1, 100_000), 77)
	s.ok("flush", s.d.Flush(s.ctx))
	if !s.opt.Discards {
		s.holds("after a flush", 77, bytesFor(1, 100_000))
	}
}

func (s *suite) cache() {
	s.ok("cache", s.d.Cache(s.ctx, 0, min(s.d.Size(), 300_000)))
	s.ok("cache", s.d.Cache(s.ctx, s.d.Size()-77, 77))
	s.holds("after caching", 0, s.opt.initial(0, 8192))
}

func (s *suite) resize() {
	old := s.d.Size()
	gen := s.d.Info().Gen
	s.put([]byte{1, 2, 3, 4}, old-4)
	err := s.d.Resize(s.ctx, old+1<<20)
	if errors.Is(err, errors.ErrUnsupported) {
		if s.d.Size() != old {
			s.Errorf("a refused resize changed the size to %d", s.d.Size())
		}
		s.Skip("the disk cannot be resized")
	}
	s.ok("grow", err)
	if s.d.Size() != old+1<<20 || s.d.Info().Gen == gen {
		s.Errorf("after growing: size %d, generation %d (was %d)", s.d.Size(), s.d.Info().Gen, gen)
	}
	s.holds("grown", old-4, append([]byte{1, 2, 3, 4}, make([]byte, 1<<20)...))
	s.put([]byte{5}, old+1<<20-1)
	s.ok("shrink", s.d.Resize(s.ctx, old))
	s.is("read of what was cut off", s.d.ReadAt(s.ctx, make([]byte, 1), old), disk.ErrRange)
	s.ok("grow again", s.d.Resize(s.ctx, old+1<<20))
	s.holds("grown again", old-4, append([]byte{1, 2, 3, 4}, make([]byte, 1<<20)...))
}

// overlap: of writes to overlapping ranges at one time, each byte is one
// writer's; bytes of none are as before. A read-modify-write cycle that does
// not keep others out fails here.
func (s *suite) overlap() {
	const writers, span = 8, 24_000
	for round := range int64(10) {
		before := bytesFor(100+round, span)
		s.put(before, 0)
		var starts, ends [writers]int64
		var group sync.WaitGroup
		errs := make([]error, writers)
		for w := range writers {
			starts[w] = (int64(w)*2311 + round*997) % (span - 6000)
			ends[w] = starts[w] + 100 + (int64(w)*1543+round*389)%5000
			p := bytes.Repeat([]byte{byte(2 * (w + 1))}, int(ends[w]-starts[w]))
			group.Go(func() {
				if w%4 == 3 {
					errs[w] = s.d.Zero(s.ctx, starts[w], ends[w]-starts[w], disk.MayTrim)
				} else {
					errs[w] = s.d.WriteAt(s.ctx, p, starts[w], 0)
				}
			})
		}
		group.Wait()
		s.ok("concurrent changes", errors.Join(errs...))
		for i, got := range s.get(0, span) {
			allowed, covered := false, false
			for w := range writers {
				if starts[w] <= int64(i) && int64(i) < ends[w] {
					covered = true
					value := byte(2 * (w + 1))
					if w%4 == 3 {
						value = 0
					}
					allowed = allowed || got == value
				}
			}
			if covered && !allowed || !covered && got != before[i] {
				s.Fatalf("round %d, offset %d: byte %#x is no writer's", round, i, got)
			}
		}
	}
}
