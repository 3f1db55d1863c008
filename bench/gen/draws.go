package gen

import (
	"math/bits"

	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// Draws are the random decisions of one job, shared by the streams of its files.
// They are fio's own, number for number: the same generators (L'Ecuyer's combined
// Tausworthe generators), one for each kind of decision, seeded from the job's
// number and randseed= as fio seeds them. So a job does the same I/O here as in
// fio, and the shares of a mix, which differ by several percent from draw to draw
// in a short job, are equal and not merely alike.
// It is not safe for concurrent use.
type Draws struct {
	job    *jobfile.Job
	number uint64 // of the job, from 1
	seeds  [seedCount]uint64
	reseed bool // each pass does the same
	large  bool // more blocks than 32 bits count

	sizes [jobfile.Dirs]tausworthe
	mix   tausworthe
	block tausworthe
	zone  tausworthe
	place [jobfile.Dirs]tausworthe // random or in line, of percentage_random
	file  tausworthe

	// The direction of a mix is drawn anew only when `issued` of the present one has
	// come up to `until`.
	dir, drawn int // drawn is -1 when nothing is drawn and not yet issued
	issued     [jobfile.Dirs]uint64
	until      uint64
}

// The decisions that have a seed of their own, in fio's numbering.
const (
	seedSize  = 0 // 0, 1 and 2 by direction
	seedMix   = 4
	seedFile  = 5
	seedBlock = 6
	seedPlace = 10
	seedZone  = 16
	seedCount = 22
)

const (
	seedStep   = 0x9e370001
	blockBasis = 0xb1899bed
)

// NewDraws makes the draws of job j. entropy takes the place of randseed= where
// the job says randrepeat=0.
func NewDraws(j *jobfile.Job, entropy uint64) *Draws {
	d := &Draws{job: j, number: uint64(j.Number), reseed: j.RandRepeat && !j.RandSeedGiven, drawn: -1}
	seed := j.RandSeed
	if !j.RandRepeat && !j.RandSeedGiven {
		seed = entropy | 1
	}
	for range 4 {
		seed *= seedStep
	}
	for i := range d.seeds {
		d.seeds[i] = seed*d.number + uint64(i)
		seed *= seedStep
	}
	if j.RandRepeat && j.Mode.Random { // whatever randseed= says
		d.seeds[seedBlock] = blockBasis * d.number
	}
	d.restart()
	return d
}

// Restart begins a new pass over the job's files.
func (d *Draws) Restart() {
	d.until, d.drawn = 0, -1
	if d.reseed {
		d.restart()
	}
}

func (d *Draws) restart() {
	wide := d.job.Generator == "tausworthe64"
	for dir := range d.sizes {
		seed := d.seeds[seedSize+dir]
		if dir == jobfile.Write && d.job.Verify != "" {
			seed = d.seeds[seedSize] // reads must find what was written
		}
		d.sizes[dir].seed(seed, wide)
		d.place[dir].seed(d.seeds[seedPlace], false)
	}
	d.mix.seed(d.seeds[seedMix], false)
	d.file.seed(d.seeds[seedFile], wide)
	d.block.seed(d.seeds[seedBlock], wide || d.large)
	d.zone.seed(d.seeds[seedZone], false)
}

// distributionSeed is the seed of the generator that a distribution other than the
// even one has for each file: of the file's name, unless randseed= was given.
func (d *Draws) distributionSeed(name string) uint64 {
	if d.reseed {
		return uint64(jenkins([]byte(name))) * d.number
	}
	return d.seeds[seedBlock]
}

// Dir returns the direction of the next I/O. It stays until Issued or Drop.
func (d *Draws) Dir() int {
	m := &d.job.Mode
	switch {
	case m.Read && m.Write:
		if d.drawn < 0 {
			d.drawn = d.drawMix()
		}
		return d.drawn
	case m.Trim:
		return jobfile.Trim // trimwrite: the engine writes what it trimmed
	case m.Write:
		return jobfile.Write
	}
	return jobfile.Read
}

// drawMix draws by rwmixread. After a change of direction it draws no more until as
// many I/Os went that way as the share of those before asks for.
func (d *Draws) drawMix() int {
	if d.issued[d.dir] < d.until {
		return d.dir
	}
	dir := jobfile.Write
	if d.mix.percent() <= d.job.MixRead {
		dir = jobfile.Read
	}
	if dir != d.dir {
		share := d.job.MixRead
		if dir == jobfile.Write {
			share = 100 - share
		}
		d.until = d.issued[d.dir] * uint64(share) / 100
	}
	d.dir = dir
	return dir
}

// Issued counts an I/O in direction dir, which may be another one than was drawn if
// a rate said so.
func (d *Draws) Issued(dir int) {
	d.issued[dir]++
	if dir != jobfile.Trim {
		d.dir = dir
	}
	d.drawn = -1
}

// Drop forgets a direction that was drawn for a file without anything left.
func (d *Draws) Drop() { d.drawn = -1 }

// widen makes the places of I/O 64-bit draws: 32 bits reach no further than 2^32 blocks.
func (d *Draws) widen() {
	if !d.large {
		d.large = true
		d.block.seed(d.seeds[seedBlock], true)
	}
}

// File returns the index of one of n files, for file_service_type=random.
func (d *Draws) File(n int) int { return int(d.file.below(uint64(n))) }

// tausworthe is L'Ecuyer's taus88 or, if wide, taus258 ("Maximally Equidistributed
// Combined Tausworthe Generators", 1996; "Tables of ...", 1999).
type tausworthe struct {
	s    [5]uint64
	wide bool
}

// component describes one of the registers that are combined: shifts and the mask
// of the bits that count.
type component struct {
	q, r, l uint
	mask    uint64
	least   uint64 // of the seed
}

var (
	narrow = [...]component{{13, 19, 12, 0xfffffffe, 1}, {2, 25, 4, 0xfffffff8, 7}, {3, 11, 17, 0xfffffff0, 15}}
	wider  = [...]component{{1, 53, 10, ^uint64(1), 1}, {24, 50, 5, ^uint64(0x1ff), 7}, {3, 23, 29, ^uint64(0xfff), 15},
		{5, 24, 23, ^uint64(0x1ffff), 33}, {3, 33, 8, ^uint64(0x7fffff), 49}}
)

// seed starts the sequence. Each register is a linear congruential step from the
// one before; the first values are thrown away.
func (t *tausworthe) seed(seed uint64, wide bool) {
	const first, warmUp = 53, 6
	t.wide = wide
	x := uint64(first)
	if wide {
		for i, c := range wider {
			x = atLeast(x*6906969069^seed, c.least)
			t.s[i] = x
		}
	} else {
		for i, c := range narrow {
			x = atLeast(uint64(uint32(x)*69069^uint32(seed)), c.least)
			t.s[i] = x
		}
	}
	for range warmUp {
		t.next()
	}
}

func atLeast(x, least uint64) uint64 {
	if x < least {
		return x + least
	}
	return x
}

// next returns the next 32 bits, 64 if wide.
func (t *tausworthe) next() uint64 {
	if !t.wide {
		return uint64(t.next32())
	}
	var out uint64
	for i := range wider {
		c := &wider[i]
		s := t.s[i]
		s = s&c.mask<<c.l ^ (s<<c.q^s)>>c.r
		t.s[i] = s
		out ^= s
	}
	return out
}

// next32 is taus88, written out: it is drawn from for each I/O.
func (t *tausworthe) next32() uint32 {
	a, b, c := uint32(t.s[0]), uint32(t.s[1]), uint32(t.s[2])
	a = a&0xfffffffe<<12 ^ (a<<13^a)>>19
	b = b&0xfffffff8<<4 ^ (b<<2^b)>>25
	c = c&0xfffffff0<<17 ^ (c<<3^c)>>11
	t.s[0], t.s[1], t.s[2] = uint64(a), uint64(b), uint64(c)
	return a ^ b ^ c
}

// fraction returns a number in [0, 1).
func (t *tausworthe) fraction() float64 {
	if t.wide {
		return float64(t.next()) / (1 << 64)
	}
	return float64(t.next32()) / (1 << 32)
}

// below returns a number in [0, n).
func (t *tausworthe) below(n uint64) uint64 { return uint64(float64(n) * t.fraction()) }

// percent returns a number in [1, 100].
func (t *tausworthe) percent() int { return 1 + int(t.below(100)) }

// max is the largest number that next returns.
func (t *tausworthe) max() uint64 {
	if t.wide {
		return ^uint64(0)
	}
	return 1<<32 - 1
}

// jenkins is Bob Jenkins's hash of 2006 with the golden ratio as its start, and of
// each block of twelve bytes but the last only the bytes 0, 4 and 8: fio seeds
// distributions by this hash of a file's name.
func jenkins(key []byte) uint32 {
	start := uint32(0x61c88647) + uint32(len(key))
	a, b, c := start, start, start
	for len(key) > 12 {
		a, b, c = jenkinsMix(a+uint32(key[0]), b+uint32(key[4]), c+uint32(key[8]))
		key = key[12:]
	}
	if len(key) == 0 {
		return c
	}
	var last [12]byte
	copy(last[:], key)
	word := func(i int) uint32 {
		return uint32(last[i]) | uint32(last[i+1])<<8 | uint32(last[i+2])<<16 | uint32(last[i+3])<<24
	}
	return jenkinsFinal(a+word(0), b+word(4), c+word(8))
}

func jenkinsMix(a, b, c uint32) (_, _, _ uint32) {
	for _, n := range [...]int{4, 6, 8, 16, 19, 4} {
		a -= c
		a ^= bits.RotateLeft32(c, n)
		c += b
		a, b, c = b, c, a
	}
	return a, b, c
}

func jenkinsFinal(a, b, c uint32) uint32 {
	for _, n := range [...]int{14, 11, 25, 16, 4, 14, 24} {
		c ^= b
		c -= bits.RotateLeft32(b, n)
		a, b, c = b, c, a
	}
	// Seven steps of a rotation by three: the last one's result is in b.
	return b
}
