package gen

import "math/bits"

// Random is xoshiro256** (Blackman and Vigna, 2018): small, 1 ns, and repeatable
// over versions of Go, which a benchmark's seed promises. It makes contents; what
// decides where and how large I/O is comes from Draws.
type Random struct{ s [4]uint64 }

// NewRandom seeds a generator; equal seeds give equal sequences.
func NewRandom(seed uint64) *Random {
	r := new(Random)
	r.Seed(seed)
	return r
}

// Seed restarts the sequence. The four words come from splitmix64, as the
// authors of xoshiro advise.
func (r *Random) Seed(seed uint64) {
	for i := range r.s {
		seed += 0x9e3779b97f4a7c15
		r.s[i] = mix64(seed)
	}
}

// mix64 is the output function of splitmix64: a bijection that scatters bits.
func mix64(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Uint64 returns the next 64 random bits.
func (r *Random) Uint64() uint64 {
	s := &r.s
	out := bits.RotateLeft64(s[1]*5, 7) * 9
	t := s[1] << 17
	s[2] ^= s[0]
	s[3] ^= s[1]
	s[1] ^= s[2]
	s[0] ^= s[3]
	s[2] ^= t
	s[3] = bits.RotateLeft64(s[3], 45)
	return out
}

// Below returns a number in [0, n); n must not be 0. The bias is below n/2^64.
func (r *Random) Below(n uint64) uint64 {
	hi, _ := bits.Mul64(r.Uint64(), n)
	return hi
}

// Float returns a number in [0, 1).
func (r *Random) Float() float64 { return float64(r.Uint64()>>11) / (1 << 53) }

// Percent returns a number in [1, 100].
func (r *Random) Percent() int { return 1 + int(r.Below(100)) }
