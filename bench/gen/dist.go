package gen

import (
	"math"
	"sort"

	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// distribution picks blocks in [0, n).
type distribution interface{ pick(d *Draws) uint64 }

type uniform struct{ n uint64 }

func (u uniform) pick(d *Draws) uint64 { return d.block.below(u.n) }

// maxZeta bounds the terms of zipf's sum, as in fio: more would take seconds.
const maxZeta = 10_000_000

// zipf follows Gray et al., "Quickly Generating Billion-Record Synthetic
// Databases" (1994).
type zipf struct {
	n                   uint64
	theta, zetan, zeta2 float64
	alpha, eta          float64
	source              *source
}

func newZipf(n uint64, theta float64, s *source) *zipf {
	z := &zipf{n: n, theta: theta, source: s}
	for i := range min(n, maxZeta) {
		z.zetan += math.Pow(1/float64(i+1), theta)
	}
	z.zeta2 = 1 + math.Pow(0.5, theta)
	z.alpha = 1 / (1 - theta)
	z.eta = (1 - math.Pow(2/float64(n), 1-theta)) / (1 - z.zeta2/z.zetan)
	return z
}

func (z *zipf) pick(*Draws) uint64 {
	u := z.source.share()
	uz := u * z.zetan
	var rank uint64
	switch {
	case uz < 1 || z.n == 1:
	case uz < z.zeta2:
		rank = 1
	default:
		rank = uint64(float64(z.n) * math.Pow(z.eta*u-z.eta+1, z.alpha))
	}
	return z.source.block(rank, z.n)
}

// pareto: a share h of the blocks takes 1-h of the accesses (80/20 is h = 0.2).
type pareto struct {
	n      uint64
	power  float64
	source *source
}

func (p *pareto) pick(*Draws) uint64 {
	return p.source.block(uint64(float64(p.n-1)*math.Pow(p.source.share(), p.power)), p.n)
}

// source has the random numbers of one file's distribution and maps a rank (0 is the
// most popular) to a block. Popular blocks are scattered over the disk by a hash, as
// fio does, unless a center is given.
type source struct {
	random tausworthe
	shift  uint64
	hashed bool
}

func newSource(seed, n uint64, center float64) *source {
	s := &source{hashed: center < 0}
	s.random.seed(seed, false)
	s.shift = uint64(s.random.next32())
	if center >= 0 {
		s.shift = uint64(center * float64(n))
	}
	return s
}

// share returns a number in [0, 1].
func (s *source) share() float64 { return float64(s.random.next32()) / math.MaxUint32 }

// golden is 2^64 times the golden section, the multiplier of fio's hash.
const golden = 0x61c8864680b583eb

func (s *source) block(rank, n uint64) uint64 {
	if s.hashed {
		rank *= golden
	}
	return (rank + s.shift) % n
}

// normal is a sum of 12 even draws, to which up to half of dev, in blocks, is added
// or taken away.
type normal struct {
	n, dev uint64
	source *source
}

func newNormal(n uint64, percent, center float64, seed uint64) *normal {
	g := &normal{n: n, source: &source{hashed: center < 0}}
	g.source.random.seed(seed, false)
	if center >= 0 {
		g.source.shift = uint64(float64(n) * math.Mod(center+0.5, 1))
	}
	g.dev = min(uint64(math.Ceil(float64(n)*percent/100)), n/2)
	return g
}

func (g *normal) pick(*Draws) uint64 {
	const draws = 12
	var sum uint64
	for range draws {
		sum += uint64(g.source.random.next32()) % (g.n + 1)
	}
	sum = (sum + draws - 1) / draws
	if g.dev > 0 {
		off := int64(g.source.random.below(g.dev)) - int64(g.dev/2)
		for off != 0 && uint64(int64(sum)+off) >= g.n {
			off /= 2
		}
		sum = uint64(int64(sum) + off)
	}
	return g.source.block(sum, g.n)
}

// zoned picks a zone by its share of the accesses, then a block evenly in it.
type zoned struct {
	access     []int    // cumulative percent
	start, len []uint64 // blocks
}

func newZoned(n uint64, zones []jobfile.Zone, block int64) *zoned {
	z := &zoned{}
	var percent, bytes, access uint64
	for _, zone := range zones {
		access += uint64(zone.Access)
		start, size := percent*n/100, n*uint64(zone.Percent)/100
		if zone.Size > 0 {
			start = bytes / uint64(block)
			size = (bytes+uint64(zone.Size))/uint64(block) - start
		}
		percent += uint64(zone.Percent)
		bytes += uint64(zone.Size)
		size = min(max(size, 1), n)
		z.access = append(z.access, int(access))
		z.start = append(z.start, min(start, n-size))
		z.len = append(z.len, size)
	}
	return z
}

func (z *zoned) pick(d *Draws) uint64 {
	i := sort.SearchInts(z.access, d.zone.percent())
	i = min(i, len(z.access)-1)
	return z.start[i] + d.block.below(z.len[i])
}

// sequence repeats a list of block indices, optionally moving on by its length.
type sequence struct {
	n      uint64
	order  []int64
	stride bool
	i      int
	base   uint64
}

func (s *sequence) pick(*Draws) uint64 {
	b := (s.base + uint64(s.order[s.i])) % s.n
	if s.i++; s.i == len(s.order) {
		s.i = 0
		if s.stride {
			s.base += uint64(len(s.order))
		}
	}
	return b
}

// newDistribution makes the job's distribution over n blocks of direction dir.
func newDistribution(j *jobfile.Job, dir int, n uint64, block int64, seed uint64) distribution {
	d := &j.Distribution
	switch d.Kind {
	case "zipf":
		return newZipf(n, d.Param, newSource(seed, n, d.Center))
	case "pareto":
		return &pareto{n: n, power: math.Log(d.Param) / math.Log(1-d.Param), source: newSource(seed, n, d.Center)}
	case "normal":
		return newNormal(n, d.Param, d.Center, seed)
	case "zoned", "zoned_abs":
		return newZoned(n, d.Zones[dir], block)
	case "sequence":
		return &sequence{n: n, order: d.Order, stride: j.SequenceStride}
	}
	return uniform{n}
}
