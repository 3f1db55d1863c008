package gen

import (
	"math"
	"sort"

	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// distribution picks blocks in [0, n).
type distribution interface{ pick(r *Random) uint64 }

type uniform struct{ n uint64 }

func (u uniform) pick(r *Random) uint64 { return r.Below(u.n) }

// maxZeta bounds the terms of zipf's sum that are added one by one; the rest is
// integrated (fio stops there without the rest).
const maxZeta = 10_000_000

// zipf follows Gray et al., "Quickly Generating Billion-Record Synthetic
// Databases" (1994). Popular blocks are scattered over the disk by a hash, as fio
// does, unless a center is given.
type zipf struct {
	n                   uint64
	theta, zetan, zeta2 float64
	alpha, eta          float64
	place               place
}

func newZipf(n uint64, theta float64, p place) *zipf {
	z := &zipf{n: n, theta: theta, place: p}
	terms := min(n, maxZeta)
	for i := uint64(1); i <= terms; i++ {
		z.zetan += math.Pow(1/float64(i), theta)
	}
	if n > terms {
		a, b := float64(terms)+0.5, float64(n)+0.5
		z.zetan += (math.Pow(b, 1-theta) - math.Pow(a, 1-theta)) / (1 - theta)
	}
	z.zeta2 = 1 + math.Pow(0.5, theta)
	z.alpha = 1 / (1 - theta)
	z.eta = (1 - math.Pow(2/float64(n), 1-theta)) / (1 - z.zeta2/z.zetan)
	return z
}

func (z *zipf) pick(r *Random) uint64 {
	u := r.Float()
	uz := u * z.zetan
	var rank uint64
	switch {
	case uz < 1 || z.n == 1:
	case uz < z.zeta2:
		rank = 1
	default:
		rank = uint64(float64(z.n) * math.Pow(z.eta*u-z.eta+1, z.alpha))
	}
	return z.place.block(min(rank, z.n-1), z.n)
}

// pareto: a share h of the blocks takes 1-h of the accesses (80/20 is h = 0.2).
type pareto struct {
	n     uint64
	power float64
	place place
}

func (p *pareto) pick(r *Random) uint64 {
	rank := uint64(float64(p.n-1) * math.Pow(r.Float(), p.power))
	return p.place.block(rank, p.n)
}

// place maps a rank (0 is the most popular) to a block.
type place struct {
	center float64 // 0..1; < 0: scatter
	seed   uint64
}

func (p place) block(rank, n uint64) uint64 {
	if p.center >= 0 {
		return (rank + uint64(p.center*float64(n))) % n
	}
	return (mix64(rank+p.seed) + p.seed) % n
}

// normal has its deviation in percent of the range, around the center.
type normal struct {
	n           uint64
	dev, center float64
}

func (g normal) pick(r *Random) uint64 {
	// The sum of 12 uniform numbers is near enough to normal and needs no logarithm.
	v := -6.0
	for range 12 {
		v += r.Float()
	}
	b := math.Mod(g.center*float64(g.n)+v*g.dev*float64(g.n), float64(g.n))
	if b < 0 {
		b += float64(g.n)
	}
	return min(uint64(b), g.n-1)
}

// zoned picks a zone by its share of the accesses, then a block evenly in it.
type zoned struct {
	access     []int    // cumulative percent
	start, len []uint64 // blocks
}

func newZoned(n uint64, zones []jobfile.Zone, block int64) *zoned {
	z := &zoned{}
	var pos uint64
	sum := 0
	for _, zone := range zones {
		size := n * uint64(zone.Percent) / 100
		if zone.Size > 0 {
			size = uint64(zone.Size / block)
		}
		size = min(max(size, 1), n)
		if pos+size > n {
			pos = n - size
		}
		sum += zone.Access
		z.access = append(z.access, sum)
		z.start = append(z.start, pos)
		z.len = append(z.len, size)
		pos += size
	}
	return z
}

func (z *zoned) pick(r *Random) uint64 {
	i := sort.SearchInts(z.access, r.Percent())
	i = min(i, len(z.access)-1)
	return z.start[i] + r.Below(z.len[i])
}

// sequence repeats a list of block indices, optionally moving on by its length.
type sequence struct {
	n      uint64
	order  []int64
	stride bool
	i      int
	base   uint64
}

func (s *sequence) pick(*Random) uint64 {
	b := (s.base + uint64(s.order[s.i])) % s.n
	if s.i++; s.i == len(s.order) {
		s.i = 0
		if s.stride {
			s.base += uint64(len(s.order))
		}
	}
	return b
}

// newDistribution makes the job's distribution over n blocks of one direction.
func newDistribution(j *jobfile.Job, dir int, n uint64, block int64, seed uint64) distribution {
	d := &j.Distribution
	p := place{center: d.Center, seed: seed}
	switch d.Kind {
	case "zipf":
		return newZipf(n, d.Param, p)
	case "pareto":
		return &pareto{n: n, power: math.Log(d.Param) / math.Log(1-d.Param), place: p}
	case "normal":
		center := d.Center
		if center < 0 {
			center = 0.5
		}
		return normal{n: n, dev: d.Param / 100, center: center}
	case "zoned", "zoned_abs":
		return newZoned(n, d.Zones[dir], block)
	case "sequence":
		return &sequence{n: n, order: d.Order, stride: j.SequenceStride}
	}
	return uniform{n}
}
