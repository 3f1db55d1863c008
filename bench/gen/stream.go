package gen

import (
	"sort"

	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// Stream generates the offsets and lengths of one job on one file.
// It is not safe for concurrent use.
type Stream struct {
	job         *jobfile.Job
	start, size int64 // the region
	unit        int64 // smallest block size over the directions in use
	rand        Random

	pos  [jobfile.Dirs]int64 // next sequential position, from start
	last [jobfile.Dirs]int64 // last offset, from start
	seq  int64               // I/Os left before the next random place
	dist [jobfile.Dirs]distribution
	all  *Map
	lfsr *LFSR

	shares [jobfile.Dirs]sizes
}

// sizes picks block sizes of one direction.
type sizes struct {
	min, max int64
	cum      []int // cumulative percent of bssplit
	size     []int64
}

// NewStream makes the stream of job j over [start, start+size) of a file. Streams
// with equal seeds are equal.
func NewStream(j *jobfile.Job, start, size int64, seed uint64) *Stream {
	s := &Stream{job: j, start: start, size: size, seq: 1}
	s.rand.Seed(seed)
	s.unit = 0
	for d := range jobfile.Dirs {
		if j.Mode.Has(d) && (s.unit == 0 || j.MinBS[d] < s.unit) {
			s.unit = j.MinBS[d]
		}
		s.shares[d] = newSizes(j, d)
	}
	if j.Mode.Random {
		s.initRandom(seed)
	}
	s.Restart()
	return s
}

func newSizes(j *jobfile.Job, d int) sizes {
	s := sizes{min: j.MinBS[d], max: j.MaxBS[d]}
	sum := 0
	for _, share := range j.Splits[d] {
		sum += share.Percent
		s.cum = append(s.cum, sum)
		s.size = append(s.size, share.Size)
	}
	return s
}

func (s *Stream) initRandom(seed uint64) {
	j := s.job
	units := uint64(max(s.size/s.unit, 1))
	switch {
	case !j.NoRandomMap && j.Generator == "lfsr":
		s.lfsr = NewLFSR(units, seed)
	case !j.NoRandomMap:
		s.all = NewMap(units)
	}
	for d := range jobfile.Dirs {
		if j.Mode.Has(d) {
			s.dist[d] = newDistribution(j, d, uint64(max(s.size/j.Align[d], 1)), j.Align[d], seed)
		}
	}
	if s.all != nil {
		for d := range jobfile.Dirs {
			s.dist[d] = uniform{units}
		}
	}
}

// Restart begins a new pass: positions go back and every block is uncovered again.
func (s *Stream) Restart() {
	for d := range s.pos {
		s.pos[d] = 0
		if s.job.Mode.Skip < 0 {
			s.pos[d] = s.size - s.shares[d].min
		}
	}
	if s.all != nil {
		s.all.Reset()
	}
	if s.lfsr != nil {
		s.lfsr.Reset()
	}
}

// Dir draws the direction of the next I/O.
func (s *Stream) Dir() int {
	m := &s.job.Mode
	switch {
	case m.Read && m.Write:
		if s.rand.Percent() <= s.job.MixRead {
			return jobfile.Read
		}
		return jobfile.Write
	case m.Trim:
		return jobfile.Trim // trimwrite: the engine writes what it trimmed
	case m.Write:
		return jobfile.Write
	}
	return jobfile.Read
}

// Next returns the offset and the length of the next I/O in direction dir; false
// when the pass is over.
func (s *Stream) Next(dir int) (off, n int64, ok bool) {
	n = s.length(dir)
	if s.random(dir) {
		off, n, ok = s.randomPlace(dir, n)
	} else {
		off, n, ok = s.nextInLine(dir, n)
	}
	if !ok {
		return 0, 0, false
	}
	s.last[dir] = off
	if s.job.Sequencer != "identical" {
		s.pos[dir] = off + n + s.job.Mode.Skip
	}
	return s.start + off, n, true
}

// random decides between a random place and the next in line.
func (s *Stream) random(dir int) bool {
	m := &s.job.Mode
	if !m.Random {
		return false
	}
	if p := s.job.PercentRandom[dir]; p < 100 && s.rand.Percent() > p {
		return false
	}
	if s.seq--; s.seq > 0 {
		return false
	}
	s.seq = m.Sequence
	return true
}

func (s *Stream) length(dir int) int64 {
	z := &s.shares[dir]
	if z.min == z.max {
		return z.min
	}
	if z.cum != nil {
		i := sort.SearchInts(z.cum, s.rand.Percent())
		return z.size[min(i, len(z.size)-1)]
	}
	n := z.min + int64(s.rand.Below(uint64(z.max-z.min+1)))
	if !s.job.BSUnaligned {
		n -= n % z.min
	}
	return n
}

func (s *Stream) nextInLine(dir int, n int64) (int64, int64, bool) {
	off := s.pos[dir]
	if s.job.Sequencer == "identical" && s.job.Mode.Random {
		off = s.last[dir]
	}
	if off < 0 || off+s.shares[dir].min > s.size {
		switch {
		case s.job.Mode.Skip < 0: // backwards I/O goes round; the job's size ends it
			off = max(s.size-s.shares[dir].min, 0)
		case s.job.Mode.Random || s.job.Mode.Skip > 0:
			off = 0
		default:
			return 0, 0, false
		}
	}
	n = s.fit(dir, off, n)
	if s.all != nil {
		return s.cover(uint64(off/s.unit), n)
	}
	return off, n, true
}

// fit shortens an I/O that would cross the end of the region to whole units.
func (s *Stream) fit(dir int, off, n int64) int64 {
	if off+n <= s.size {
		return n
	}
	n = s.size - off
	return max(n-n%s.shares[dir].min, s.shares[dir].min)
}

func (s *Stream) randomPlace(dir int, n int64) (int64, int64, bool) {
	switch {
	case s.lfsr != nil:
		b, ok := s.lfsr.Next()
		off := int64(b) * s.unit
		return off, min(n, s.size-off), ok
	case s.all != nil:
		return s.cover(s.dist[dir].pick(&s.rand), n)
	}
	off := int64(s.dist[dir].pick(&s.rand)) * s.job.Align[dir]
	if off+n > s.size {
		if off+s.shares[dir].min > s.size {
			off = max(s.size-s.shares[dir].min, 0) / s.job.Align[dir] * s.job.Align[dir]
		}
		n = s.fit(dir, off, n)
	}
	return off, n, true
}

// cover takes the first uncovered units at or after b. Like fio it shortens an
// I/O that would run into covered ones.
func (s *Stream) cover(b uint64, n int64) (int64, int64, bool) {
	b, ok := s.all.Free(b)
	if !ok {
		return 0, 0, false
	}
	units := s.all.Take(b, uint64((n+s.unit-1)/s.unit))
	return int64(b) * s.unit, min(n, int64(units)*s.unit), true
}
