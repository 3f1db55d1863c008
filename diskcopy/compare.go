package diskcopy

import (
	"bytes"
	"context"
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

// CompareOptions configures Compare; the zero value is the default.
type CompareOptions struct {
	// RequestSize and QueueDepth are as in Options; the depth counts pairs of requests.
	RequestSize int64
	QueueDepth  int
	// Strict: disks of different size differ, at the end of the shorter one.
	Strict bool
	// Length, if not 0, compares only the first Length bytes.
	Length int64
	// Progress and ProgressEvery are as in Options.
	Progress      func(Progress)
	ProgressEvery time.Duration

	phase string
}

// Comparison is the result of Compare.
type Comparison struct {
	Equal bool `json:"equal"`
	// Offset is the first byte that differs; -1 if none does.
	Offset int64 `json:"offset"`
}

// Compare finds the first difference of two disks. Where one is shorter, what
// the other has beyond its end has to read as zeros, unless Strict. Ranges that
// both disks know as zeros are not read. An error is a [*CopyError], in which a
// is the source and b the target.
func Compare(ctx context.Context, a, b *disk.Disk, o CompareOptions) (Comparison, error) {
	base, err := Options{RequestSize: o.RequestSize, QueueDepth: o.QueueDepth, Progress: o.Progress, ProgressEvery: o.ProgressEvery}.complete(a, b)
	if err != nil {
		return Comparison{}, err
	}
	sizeA, sizeB := a.Size(), b.Size()
	if o.Length > 0 {
		sizeA, sizeB = min(sizeA, o.Length), min(sizeB, o.Length)
	}
	end := max(sizeA, sizeB)
	if o.Strict {
		end = min(sizeA, sizeB)
	}
	c := newComparer(ctx, a, b, end, base.RequestSize)
	p := startProgress(base, orDefault(o.phase, "compare"), end, &c.done, a, b)
	err = c.run(base.QueueDepth, 2*base.RequestSize, c.work)
	p.stop()
	switch {
	case err != nil:
		return Comparison{}, err
	case c.first < end || o.Strict && sizeA != sizeB:
		return Comparison{Offset: c.first}, nil
	}
	return Comparison{Equal: true, Offset: -1}, nil
}

type comparer struct {
	readers
	ctx     context.Context
	side    [2]compareSide
	pos     int64
	end     int64
	request int64
	first   int64 // the first difference so far, else end; under mu
}

// newComparer compares the first end bytes of two disks.
func newComparer(ctx context.Context, a, b *disk.Disk, end, request int64) *comparer {
	c := &comparer{ctx: ctx, first: end, end: end, request: request}
	c.side[0].init(a, min(a.Size(), end), request)
	c.side[1].init(b, min(b.Size(), end), request)
	return c
}

// compareSide is one disk, followed by zeros without end.
type compareSide struct {
	d    *disk.Disk
	walk *walker
	cur  span
}

func (s *compareSide) init(d *disk.Disk, end, request int64) {
	s.d, s.walk = d, newWalker(d, 0, end, request, max(d.Info().Min, 512))
}

// at makes cur the span that holds pos.
func (s *compareSide) at(ctx context.Context, pos, end int64) (err error) {
	for err == nil && pos >= s.cur.end() {
		if s.walk.pos >= s.walk.end {
			s.cur = span{off: pos, n: end - pos, zero: true}
			return nil
		}
		s.cur, err = s.walk.next(ctx)
	}
	return err
}

// comparison is one range to look at; a side that is known to be zero is not read.
type comparison struct {
	off, n int64
	zero   [2]bool
}

func (c *comparer) next() (t comparison, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.err == nil && c.pos < c.first {
		if err := c.ctx.Err(); err != nil {
			return comparison{}, err
		}
		t = comparison{off: c.pos, n: c.end - c.pos}
		for i := range c.side {
			s := &c.side[i]
			if err := s.at(c.ctx, c.pos, c.end); err != nil {
				return comparison{}, sideErr(sideOf(i), err)
			}
			t.zero[i] = s.cur.zero
			t.n = min(t.n, s.cur.end()-c.pos)
		}
		if !t.zero[0] || !t.zero[1] {
			t.n = min(t.n, c.request-c.pos%c.request)
			c.pos += t.n
			return t, nil
		}
		c.pos += t.n
		c.done.Add(t.n)
	}
	return comparison{}, nil
}

func sideOf(i int) Side {
	if i == 0 {
		return Source
	}
	return Target
}

func (c *comparer) work(buf []byte) error {
	for {
		t, err := c.next()
		if err != nil || t.n == 0 {
			return err
		}
		at, err := c.compare(t, buf)
		if err != nil {
			return err
		}
		if at < t.n {
			c.mu.Lock()
			c.first = min(c.first, t.off+at)
			c.mu.Unlock()
		}
		c.done.Add(t.n)
	}
}

// compare returns where in the range the disks differ, t.n if nowhere.
func (c *comparer) compare(t comparison, buf []byte) (int64, error) {
	var p [2][]byte
	for i := range p {
		if t.zero[i] {
			continue
		}
		p[i] = buf[:t.n]
		buf = buf[c.request:]
		if err := c.side[i].d.ReadAt(c.ctx, p[i], t.off); err != nil {
			return 0, sideErr(sideOf(i), err)
		}
	}
	switch {
	case p[0] == nil:
		return firstNotZero(p[1]), nil
	case p[1] == nil:
		return firstNotZero(p[0]), nil
	}
	return firstDifference(p[0], p[1]), nil
}

// firstDifference returns the first index at which a and b, of one length, differ, or
// that length.
func firstDifference(a, b []byte) int64 {
	if bytes.Equal(a, b) {
		return int64(len(a))
	}
	i, end := 0, len(a)
	for half := (end - i) / 2; half > 0; half = (end - i) / 2 {
		if bytes.Equal(a[i:i+half], b[i:i+half]) {
			i += half
		} else {
			end = i + half
		}
	}
	return int64(i)
}

// firstNotZero returns the first index of p that is not zero, or its length.
func firstNotZero(p []byte) int64 {
	for i := 0; i < len(p); i += len(zeroBlock) {
		block := p[i:min(i+len(zeroBlock), len(p))]
		if at := firstDifference(block, zeroBlock[:len(block)]); at < int64(len(block)) {
			return int64(i) + at
		}
	}
	return int64(len(p))
}
