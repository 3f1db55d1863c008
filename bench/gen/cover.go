package gen

import "math/bits"

// Map is the set of blocks that random I/O has not covered yet: a bitmap of
// taken blocks with summary levels above it, each bit of which says that all 64
// bits below are taken. Finding the next free block looks at a few words however
// full the map is.
type Map struct {
	n      uint64
	left   uint64
	levels [][]uint64 // levels[0] has a bit per block
}

// NewMap makes a map of n blocks, all free.
func NewMap(n uint64) *Map {
	m := &Map{n: n}
	for words := (n + 63) / 64; ; words = (words + 63) / 64 {
		m.levels = append(m.levels, make([]uint64, max(words, 1)))
		if words <= 1 {
			break
		}
	}
	m.Reset()
	return m
}

// Reset frees all blocks.
func (m *Map) Reset() {
	m.left = m.n
	bits := m.n
	for _, level := range m.levels {
		clear(level)
		// What lies beyond the end counts as taken.
		if rest := bits % 64; rest != 0 || bits == 0 {
			level[len(level)-1] = ^uint64(0) << rest
		}
		bits = uint64(len(level))
	}
}

// Left is the number of free blocks.
func (m *Map) Left() uint64 { return m.left }

func (m *Map) taken(b uint64) bool { return m.levels[0][b/64]>>(b%64)&1 != 0 }

// Take marks blocks [b, b+n) as taken, as far as they are free and inside, and
// returns how many were. b must be free.
func (m *Map) Take(b, n uint64) uint64 {
	var got uint64
	for got < n && b+got < m.n && !m.taken(b+got) {
		m.set(b + got)
		got++
	}
	m.left -= got
	return got
}

func (m *Map) set(b uint64) {
	for _, level := range m.levels {
		w := &level[b/64]
		*w |= 1 << (b % 64)
		if *w != ^uint64(0) {
			return
		}
		b /= 64
	}
}

// Free returns the first free block at or after b, wrapping around; false if none is left.
func (m *Map) Free(b uint64) (uint64, bool) {
	if m.left == 0 {
		return 0, false
	}
	if f, ok := m.from(b); ok {
		return f, true
	}
	return m.from(0)
}

// from finds the first free block at or after b: up the levels until a word has a
// zero bit at or after the position, then down along the lowest zero bits.
func (m *Map) from(b uint64) (uint64, bool) {
	for l := 0; l < len(m.levels); l++ {
		if b/64 >= uint64(len(m.levels[l])) {
			return 0, false
		}
		free := ^m.levels[l][b/64] >> (b % 64) << (b % 64)
		if free == 0 {
			b = b/64 + 1
			continue
		}
		b = b/64*64 + uint64(bits.TrailingZeros64(free))
		for l--; l >= 0; l-- {
			b = b*64 + uint64(bits.TrailingZeros64(^m.levels[l][b]))
		}
		return b, b < m.n
	}
	return 0, false
}

// taps are the feedback positions of maximal-length shift registers by width
// (Xilinx application note 052, table 3).
var taps = [...][]uint{
	2: {2, 1}, 3: {3, 2}, 4: {4, 3}, 5: {5, 3}, 6: {6, 5}, 7: {7, 6}, 8: {8, 6, 5, 4}, 9: {9, 5}, 10: {10, 7},
	11: {11, 9}, 12: {12, 6, 4, 1}, 13: {13, 4, 3, 1}, 14: {14, 5, 3, 1}, 15: {15, 14}, 16: {16, 15, 13, 4},
	17: {17, 14}, 18: {18, 11}, 19: {19, 6, 2, 1}, 20: {20, 17}, 21: {21, 19}, 22: {22, 21}, 23: {23, 18},
	24: {24, 23, 22, 17}, 25: {25, 22}, 26: {26, 6, 2, 1}, 27: {27, 5, 2, 1}, 28: {28, 25}, 29: {29, 27},
	30: {30, 6, 4, 1}, 31: {31, 28}, 32: {32, 22, 2, 1}, 33: {33, 20}, 34: {34, 27, 2, 1}, 35: {35, 33},
	36: {36, 25}, 37: {37, 5, 4, 3, 2, 1}, 38: {38, 6, 5, 1}, 39: {39, 35}, 40: {40, 38, 21, 19},
	41: {41, 38}, 42: {42, 41, 20, 19}, 43: {43, 42, 38, 37}, 44: {44, 43, 18, 17}, 45: {45, 44, 42, 41},
	46: {46, 45, 26, 25}, 47: {47, 42}, 48: {48, 47, 21, 20},
}

// LFSR visits each of n blocks once in a scattered order without a map: a
// shift register of maximal length, whose values beyond n are skipped.
type LFSR struct {
	n, state, start uint64
	mask            uint64
	started         bool
}

// NewLFSR makes a register over n blocks (n < 2^48) that begins where seed says.
func NewLFSR(n, seed uint64) *LFSR {
	width := max(2, bits.Len64(n))
	l := &LFSR{n: n}
	for _, t := range taps[width] {
		l.mask |= 1 << (t - 1)
	}
	l.state = mix64(seed)%(1<<width-1) + 1
	l.start = l.state
	return l
}

// Next returns the next block; false when every block was visited.
func (l *LFSR) Next() (uint64, bool) {
	for !l.started || l.state != l.start {
		l.started = true
		v := l.state - 1
		lsb := l.state & 1
		l.state >>= 1
		l.state ^= -lsb & l.mask
		if v < l.n {
			return v, true
		}
	}
	return 0, false
}

// Reset begins a new round.
func (l *LFSR) Reset() { l.started = false }
