package disktest

import (
	"bytes"
	"errors"
	"syscall"

	"github.com/vmdisk/vmdisk/disk"
)

// walk goes through the Allocation map of [off, off+n) in batches of at most
// room extents, checks each answer's form, and calls f for each extent, cut to
// the range.
func walk(s *suite, off, n int64, room int, f func(off int64, e disk.Extent)) {
	s.Helper()
	prefix := disk.Extent{Len: -7}
	for end := off + n; off < end; {
		dst := append(make([]disk.Extent, 0, room+1), prefix)
		got, err := s.d.Extents(s.ctx, disk.Allocation, off, end-off, dst)
		s.ok("extents", err)
		if len(got) < 2 || len(got) > room+1 || got[0] != prefix {
			s.Fatalf("extents: %d answers to a request for 1 to %d, appended to one", len(got), room)
		}
		for i, e := range got[1:] {
			switch {
			case e.Len <= 0 || e.Len > s.d.Size()-off:
				s.Fatalf("extents: length %d at offset %d of %d", e.Len, off, s.d.Size())
			case off >= end:
				s.Fatalf("extents: extent %d of %d lies past the range", i, len(got)-1)
			case e.Value != 0:
				s.Errorf("extents: value %d in the allocation map", e.Value)
			}
			e.Len = min(e.Len, end-off)
			f(off, e)
			off += e.Len
		}
	}
}

// zerosAgree fails where the map promises zeros and the disk holds something else.
func (s *suite) zerosAgree(off, n int64, room int) {
	s.Helper()
	walk(s, off, n, room, func(at int64, e disk.Extent) {
		if e.Flags&disk.ExtentZero == 0 {
			return
		}
		for e.Len > 0 {
			n := min(e.Len, 1<<20)
			if i := firstDifference(s.get(at, n), make([]byte, n)); i >= 0 {
				s.Fatalf("the map says zero, the disk holds data at offset %d", at+int64(i))
			}
			at, e.Len = at+n, e.Len-n
		}
	})
}

func (s *suite) extents() {
	n := min(s.d.Size(), 2<<20)
	for _, room := range []int{1, 2, 64} {
		s.zerosAgree(0, n, room)
		s.zerosAgree(s.d.Size()-77_777, 77_777, room)
		s.zerosAgree(3, 1, room)
		s.zerosAgree(s.d.Size()-1, 1, room)
	}
	got, err := s.d.Extents(s.ctx, disk.Allocation, 0, n, nil)
	if err != nil || len(got) == 0 {
		s.Errorf("extents without room: %d, %v", len(got), err)
	}
	_, err = s.d.Extents(s.ctx, "no such map", 0, 4096, nil)
	s.is("unknown map", err, errors.ErrUnsupported)
	_, err = s.d.Extents(s.ctx, disk.Allocation, 0, 0, nil)
	s.is("empty range", err, disk.ErrRange)
}

// extentsChanged: the map follows what is written and zeroed.
func (s *suite) extentsChanged() {
	s.ok("zero", s.d.Zero(s.ctx, 0, MinSize, disk.MayTrim))
	for i := range int64(8) {
		s.put(bytesFor(i, 9000), i*50_000+i)
	}
	for _, room := range []int{1, 3, 100} {
		s.zerosAgree(0, MinSize, room)
	}
	s.ok("zero", s.d.Zero(s.ctx, 50_000, 120_001, disk.MayTrim))
	s.zerosAgree(0, MinSize, 100)
	s.ok("trim", s.d.Trim(s.ctx, 200_000, 150_000, 0))
	s.zerosAgree(0, MinSize, 100)
}

// inline: TryRead and TryWrite do all or nothing.
func (s *suite) inline() {
	const off, n = 8192, 4096
	want := s.opt.initial(off, n)
	if s.writes {
		p := bytesFor(5, n)
		switch err := s.d.TryWrite(p, off, 0); {
		case err == nil && !s.opt.Discards:
			want = p
		case err != nil && err != disk.ErrWouldBlock:
			s.Fatalf("inline write: %v", err)
		}
		if err := s.d.TryWrite(p, s.d.Size()-1, 0); !errors.Is(err, disk.ErrRange) && err != disk.ErrWouldBlock {
			s.Errorf("inline write past the end: %v", err)
		}
	}
	s.holds("after an inline write", off, want)
	got := make([]byte, n)
	switch err := s.d.TryRead(got, off); {
	case err == nil && !bytes.Equal(got, want):
		s.Error("an inline read differs")
	case err != nil && err != disk.ErrWouldBlock:
		s.Errorf("inline read: %v", err)
	}
	if err := s.d.TryRead(got, s.d.Size()-1); !errors.Is(err, disk.ErrRange) && err != disk.ErrWouldBlock {
		s.Errorf("inline read past the end: %v", err)
	}
}

// fileRange: the bytes behind the descriptor are the disk's.
func (s *suite) fileRange() {
	const off, n = 65536, 16384
	if s.writes {
		s.put(bytesFor(6, n), off)
	}
	if r, ok := s.d.FileRange(off, n, false); ok {
		if r.Len < 1 || r.Len > n {
			s.Fatalf("file range of %d bytes where %d were asked for", r.Len, n)
		}
		got := make([]byte, r.Len)
		if m, err := syscall.Pread(r.FD, got, r.Off); err != nil || int64(m) != r.Len {
			s.Fatalf("pread of a file range: %d bytes, %v", m, err)
		}
		r.Release()
		s.holds("file range", off, got)
	}
	if _, ok := s.d.FileRange(s.d.Size()-1, 2, false); ok {
		s.Error("a file range past the end")
	}
	if _, ok := s.d.FileRange(0, 0, false); ok {
		s.Error("an empty file range")
	}
	if s.writes && !s.opt.Discards {
		s.fileRangeWrite(off, n)
	}
}

func (s *suite) fileRangeWrite(off, n int64) {
	r, ok := s.d.FileRange(off, n, true)
	if !ok {
		return
	}
	p := bytesFor(8, r.Len)
	m, err := syscall.Pwrite(r.FD, p, r.Off)
	r.Release()
	if err == nil && int64(m) == r.Len {
		s.holds("after writing through a file range", off, p)
	}
}
