package gen

import (
	"slices"

	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// Stream generates the offsets and lengths of one job on one file.
// It is not safe for concurrent use.
type Stream struct {
	job         *jobfile.Job
	start, size int64 // the region
	unit        int64 // smallest block size over the directions in use
	draws       *Draws

	window int64 // where the zone in use begins, from start
	zones  zones

	pos  [jobfile.Dirs]int64 // next sequential position, from the window
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
	split    []jobfile.BlockShare // by percent, the percent cumulative
}

// NewStream makes the stream of job j over [start, start+size) of the file that the
// job calls name, with draws from d.
func NewStream(j *jobfile.Job, start, size int64, d *Draws, name string) *Stream {
	s := &Stream{job: j, start: start, size: size, draws: d, seq: 1}
	for dir := range jobfile.Dirs {
		s.shares[dir] = newSizes(j, dir)
		if s.uses(dir) && (s.unit == 0 || j.MinBS[dir] < s.unit) {
			s.unit = j.MinBS[dir]
		}
	}
	if j.Mode.Random {
		s.initRandom(name)
	}
	s.Restart()
	return s
}

// uses reports whether I/O of the job has the sizes of direction dir.
func (s *Stream) uses(dir int) bool {
	return s.job.Mode.Has(dir) || s.job.BSIsSeqRand && dir != jobfile.Trim
}

func newSizes(j *jobfile.Job, d int) sizes {
	s := sizes{min: j.MinBS[d], max: j.MaxBS[d], split: slices.Clone(j.Splits[d])}
	// fio sorts by percent, and so must whoever wants its draws.
	slices.SortStableFunc(s.split, func(a, b jobfile.BlockShare) int { return a.Percent - b.Percent })
	s.split = slices.DeleteFunc(s.split, func(b jobfile.BlockShare) bool { return b.Percent == 0 })
	for i := 1; i < len(s.split); i++ {
		s.split[i].Percent += s.split[i-1].Percent
	}
	return s
}

func (s *Stream) initRandom(name string) {
	j := s.job
	units := uint64(max(s.size/s.unit, 1))
	seed := s.draws.distributionSeed(name)
	switch {
	case !j.NoRandomMap && j.Generator == "lfsr":
		s.lfsr = NewLFSR(units, s.draws.seeds[seedBlock])
	case !j.NoRandomMap:
		s.all = NewMap(units)
	}
	if units > 1<<32 {
		s.draws.widen()
	}
	for d := range jobfile.Dirs {
		switch {
		case !j.Mode.Has(d):
		case s.all != nil:
			s.dist[d] = uniform{units}
		case d == jobfile.Write && s.dist[jobfile.Read] != nil && s.blocks(d) == s.blocks(jobfile.Read) && j.Distribution.Zones[d] == nil:
			s.dist[d] = s.dist[jobfile.Read] // one source of random numbers for both
		default:
			s.dist[d] = newDistribution(j, d, s.blocks(d), j.Align[d], seed)
		}
	}
}

// blocks is the number of places where I/O of direction d may begin.
func (s *Stream) blocks(d int) uint64 {
	align, least := s.job.Align[d], s.shares[d].min
	n := (s.size - max(least-align, 0)) / align
	if k := s.job.Distribution.Kind; k == "zipf" || k == "pareto" || k == "normal" {
		n = (s.size + align - 1) / align
	}
	return uint64(max(n, 1))
}

// Restart begins a new pass: positions go back and every block is uncovered again.
func (s *Stream) Restart() {
	if s.zones.amount > 0 {
		s.window, s.zones.done, s.size = 0, 0, s.zones.span
	}
	s.reset()
}

// begin is where sequential I/O begins.
func (s *Stream) begin(d int) int64 {
	if s.job.Mode.Skip < 0 {
		return s.size - s.shares[d].min
	}
	return 0
}

func (s *Stream) reset() {
	for d := range s.pos {
		s.pos[d] = s.begin(d)
	}
	if s.all != nil {
		s.all.Reset()
	}
	if s.lfsr != nil {
		s.lfsr.Reset()
	}
}

// Next returns the offset and the length of the next I/O in direction dir; false
// when the pass is over.
func (s *Stream) Next(dir int) (off, n int64, ok bool) {
	if s.zones.amount > 0 {
		s.enter()
	}
	random := s.random(dir)
	class := dir
	if s.job.BSIsSeqRand {
		class = jobfile.Read
		if random {
			class = jobfile.Write
		}
	}
	if random {
		off, ok = s.randomPlace(dir, class)
	} else {
		off, ok = s.nextInLine(dir, class)
		if !ok && s.job.Mode.Random {
			off, ok = s.randomPlace(dir, class)
		}
	}
	if !ok {
		return 0, 0, false
	}
	if n, ok = s.length(class, off); !ok {
		return 0, 0, false
	}
	if s.all != nil {
		n = s.take(off, n)
	}
	s.last[dir] = off
	if s.job.Sequencer != "identical" {
		s.pos[dir] = off + n + s.job.Mode.Skip
	}
	s.zones.done += n
	return s.start + s.window + off, n, true
}

// random decides between a random place and the next in line.
func (s *Stream) random(dir int) bool {
	m := &s.job.Mode
	if !m.Random {
		return false
	}
	if s.seq--; s.seq > 0 {
		return false
	}
	s.seq = m.Sequence
	p := s.job.PercentRandom[dir]
	return p >= 100 || s.draws.place[dir].percent() <= p
}

// maxDraws bounds the search for a block that fits before the end of the region.
const maxDraws = 1000

// length draws the size of the I/O at off, over again until it ends inside the
// region; false if not even the smallest would.
func (s *Stream) length(class int, off int64) (int64, bool) {
	z := &s.shares[class]
	if z.min == z.max {
		return s.fit(class, off, z.min), true
	}
	left := s.size - off
	if z.min > left {
		return 0, false
	}
	for range maxDraws {
		if n := s.draw(class, left); n <= left {
			return n, true
		}
	}
	return z.min, true
}

// draw draws a block size. Of bssplit it takes the first share that is large enough
// and fits into what is left.
func (s *Stream) draw(class int, left int64) int64 {
	z, r := &s.shares[class], &s.draws.sizes[class]
	var n int64
	if z.split == nil {
		n = z.min + int64(float64(z.max)*r.fraction())
	} else {
		v := r.next()
		for _, share := range z.split {
			n = share.Size
			if v/uint64(share.Percent) <= r.max()/100 && n <= left {
				break
			}
		}
	}
	if !s.job.BSUnaligned {
		n -= n % z.min
	}
	return min(n, z.max)
}

func (s *Stream) nextInLine(dir, class int) (int64, bool) {
	least := s.shares[class].min
	off := s.pos[dir]
	if s.job.Sequencer == "identical" && s.job.Mode.Random {
		off = s.last[dir]
	}
	if off < 0 || off+least > s.size {
		if s.job.Mode.Skip >= 0 { // with gaps, too, the end of the region ends the pass
			return 0, false
		}
		off = max(s.size-least, 0) // backwards I/O goes round; the job's size ends it
	}
	if s.all == nil {
		return off, true
	}
	b, ok := s.all.Free(uint64(off / s.unit))
	return int64(b) * s.unit, ok
}

// fit shortens an I/O that would cross the end of the region to whole units.
func (s *Stream) fit(class int, off, n int64) int64 {
	if off+n <= s.size {
		return n
	}
	n = s.size - off
	return max(n-n%s.shares[class].min, s.shares[class].min)
}

func (s *Stream) randomPlace(dir, class int) (int64, bool) {
	switch {
	case s.lfsr != nil:
		b, ok := s.lfsr.Next()
		return int64(b) * s.unit, ok
	case s.all != nil:
		b, ok := s.all.Free(s.dist[dir].pick(s.draws))
		return int64(b) * s.unit, ok
	}
	align, least := s.job.Align[dir], s.shares[class].min
	off := int64(s.dist[dir].pick(s.draws)) * align
	if off+least > s.size {
		off = max(s.size-least, 0) / align * align
	}
	return off, true
}

// take covers the units of an I/O. Like fio it shortens one that would run into
// units already covered.
func (s *Stream) take(off, n int64) int64 {
	units := s.all.Take(uint64(off/s.unit), uint64((n+s.unit-1)/s.unit))
	return min(n, int64(units)*s.unit)
}
