package diskcopy

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
)

// mapped is a disk that has nothing but a map.
type mapped struct {
	remote
	ext   []disk.Extent
	batch int
	calls int
}

func (m *mapped) Extents(_ context.Context, _ disk.MapName, off, n int64, dst []disk.Extent) ([]disk.Extent, error) {
	m.calls++
	at, end := int64(0), off+n
	for _, e := range m.ext {
		if at+e.Len > off && at < end && len(dst) < min(cap(dst), m.batch) {
			dst = append(dst, disk.Extent{Len: at + e.Len - max(at, off), Flags: e.Flags})
		}
		at += e.Len
	}
	return dst, nil
}

// TestWalker cuts random maps: spans follow one another, no data is taken for
// zeros, zeros are in whole units, data spans end at the request's boundary, and
// what counts as data though it is zero is never a whole unit.
func TestWalker(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		unit := []int64{1, 512, 4096}[r.IntN(3)]
		const request = 64 << 10
		m := &mapped{batch: 1 + r.IntN(5)}
		var zero []bool // by 256 bytes
		size := int64(0)
		for range 1 + r.IntN(60) {
			n := (1 + r.Int64N([]int64{4, 40, 400, 4000}[r.IntN(4)])) * 256
			e := disk.Extent{Len: n}
			if r.IntN(2) == 0 {
				e.Flags = disk.ExtentZero
			}
			m.ext = append(m.ext, e)
			for range n / 256 {
				zero = append(zero, e.Flags != 0)
			}
			size += n
		}
		m.child = memDisk(t, size)
		d := disk.New(m, "mapped")
		start := min(r.Int64N(size)/unit*unit, size)
		w := newWalker(d, start, size, request, unit)
		for pos := start; ; {
			s, err := w.next(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if s.n == 0 {
				if pos != size {
					t.Fatalf("seed %d: ended at %d of %d", seed, pos, size)
				}
				break
			}
			if s.off != pos {
				t.Fatalf("seed %d: span at %d, want %d", seed, s.off, pos)
			}
			pos += s.n
			if s.zero && (s.off%unit != 0 || pos%unit != 0 && pos != size) {
				t.Fatalf("seed %d: zeros %+v are not in units of %d", seed, s, unit)
			}
			if !s.zero && pos > (s.off/request+1)*request {
				t.Fatalf("seed %d: data %+v passes a boundary", seed, s)
			}
			for at := s.off / 256; s.zero && at < pos/256; at++ {
				if !zero[at] {
					t.Fatalf("seed %d: data at %d in zeros %+v", seed, at*256, s)
				}
			}
		}
	}
}

// TestWalkerAsksOnce: the map is read once from end to end.
func TestWalkerAsksOnce(t *testing.T) {
	t.Parallel()
	m := &mapped{batch: disk.ExtentBatch}
	for i := range 100_000 {
		m.ext = append(m.ext, disk.Extent{Len: 4096, Flags: disk.ExtentFlags(i%2) * disk.ExtentZero})
	}
	m.child = memDisk(t, 4096*100_000)
	w := newWalker(disk.New(m, "mapped"), 0, 4096*100_000, mib, 4096)
	spans := 0
	for s, err := w.next(context.Background()); s.n > 0 || err != nil; s, err = w.next(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		spans++
	}
	if want := 100_000/disk.ExtentBatch + 1; spans != 100_000 || m.calls > want {
		t.Errorf("%d spans by %d queries, want 100000 by %d", spans, m.calls, want)
	}
}

// TestZeroRuns compares the search for zeros with the obvious one.
func TestZeroRuns(t *testing.T) {
	t.Parallel()
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 2))
		p := make([]byte, 1+r.IntN(300_000))
		for range r.IntN(30) {
			p[r.IntN(len(p))] = 1
		}
		off := int64(r.IntN(100)) * 512
		size := []int64{512, 4096, 65536}[r.IntN(3)]
		short := size * (1 + int64(r.IntN(4)))
		for pos := int64(0); pos < int64(len(p)); {
			n, zero := dataRun(p[pos:], off+pos, size, short)
			if n <= 0 || pos+n > int64(len(p)) {
				t.Fatalf("seed %d: run of %d at %d", seed, n, pos)
			}
			isz := bytes.Count(p[pos:pos+n], []byte{0}) == int(n)
			if zero && (!isz || n < short && pos+n < int64(len(p))) {
				t.Fatalf("seed %d: %d bytes at %d taken for zeros", seed, n, pos)
			}
			if !zero && longestZeros(p[pos:pos+n], off+pos, size) >= short && pos+n < int64(len(p)) && !isz {
				t.Fatalf("seed %d: zeros missed in %d bytes at %d", seed, n, pos)
			}
			pos += n
		}
	}
}

// longestZeros is the longest run of zero blocks in p.
func longestZeros(p []byte, off, size int64) (longest int64) {
	current := int64(0)
	for len(p) > 0 {
		n := min(size-off%size, int64(len(p)))
		if bytes.Count(p[:n], []byte{0}) == int(n) {
			current += n
		} else {
			current = 0
		}
		longest = max(longest, current)
		p, off = p[n:], off+n
	}
	return longest
}

func TestIsZero(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 7, 8, 9, 4095, 4096, 4097, 12345} {
		p := make([]byte, n)
		if !isZero(p) {
			t.Errorf("%d zeros are not", n)
		}
		for i := range p {
			p[i] = 1
			if isZero(p) {
				t.Fatalf("%d bytes with one at %d are zeros", n, i)
			}
			p[i] = 0
		}
	}
}

func BenchmarkIsZero(b *testing.B) {
	p := make([]byte, mib)
	b.SetBytes(mib)
	for b.Loop() {
		isZero(p)
	}
}
