// Package sm3 is the hash of the Chinese standard GB/T 32905-2016 (ISO/IEC 10118-3),
// which OpenSSL and Python's hashlib have and Go's libraries do not.
package sm3

import (
	"encoding/binary"
	"hash"
	"math/bits"
)

// Size is the length of a sum, BlockSize that of what is compressed at once, in bytes.
const (
	Size      = 32
	BlockSize = 64
)

type digest struct {
	v    [8]uint32
	x    [BlockSize]byte // what does not fill a block yet
	nx   int
	size uint64 // bytes
}

// New returns a hash of nothing.
func New() hash.Hash {
	d := new(digest)
	d.Reset()
	return d
}

func (d *digest) Size() int      { return Size }
func (d *digest) BlockSize() int { return BlockSize }

func (d *digest) Reset() {
	*d = digest{v: [8]uint32{0x7380166f, 0x4914b2b9, 0x172442d7, 0xda8a0600, 0xa96f30bc, 0x163138aa, 0xe38dee4d, 0xb0fb0e4e}}
}

func (d *digest) Write(p []byte) (int, error) {
	n := len(p)
	d.size += uint64(n)
	if d.nx > 0 {
		took := copy(d.x[d.nx:], p)
		d.nx += took
		p = p[took:]
		if d.nx < BlockSize {
			return n, nil
		}
		d.compress(&d.x)
		d.nx = 0
	}
	for len(p) >= BlockSize {
		d.compress((*[BlockSize]byte)(p))
		p = p[BlockSize:]
	}
	d.nx = copy(d.x[:], p)
	return n, nil
}

// Sum leaves the digest as it is, so that more can be written.
func (d *digest) Sum(b []byte) []byte {
	end := *d
	pad := make([]byte, 1+(BlockSize+55-d.size%BlockSize)%BlockSize, BlockSize+16)
	pad[0] = 0x80
	end.Write(binary.BigEndian.AppendUint64(pad, d.size*8))
	for _, word := range end.v {
		b = binary.BigEndian.AppendUint32(b, word)
	}
	return b
}

func p0(x uint32) uint32 { return x ^ bits.RotateLeft32(x, 9) ^ bits.RotateLeft32(x, 17) }
func p1(x uint32) uint32 { return x ^ bits.RotateLeft32(x, 15) ^ bits.RotateLeft32(x, 23) }

// compress is section 5.3 of the standard: the expansion of the message, then 64 rounds.
func (d *digest) compress(block *[BlockSize]byte) {
	var w [68]uint32
	for i := range 16 {
		w[i] = binary.BigEndian.Uint32(block[4*i:])
	}
	for i := 16; i < 68; i++ {
		w[i] = p1(w[i-16]^w[i-9]^bits.RotateLeft32(w[i-3], 15)) ^ bits.RotateLeft32(w[i-13], 7) ^ w[i-6]
	}
	a, b, c, dd, e, f, g, h := d.v[0], d.v[1], d.v[2], d.v[3], d.v[4], d.v[5], d.v[6], d.v[7]
	for i := range 64 {
		t, ff, gg := uint32(0x79cc4519), a^b^c, e^f^g
		if i >= 16 {
			t, ff, gg = 0x7a879d8a, a&b|a&c|b&c, e&f|^e&g
		}
		top := bits.RotateLeft32(a, 12)
		ss1 := bits.RotateLeft32(top+e+bits.RotateLeft32(t, i%32), 7)
		tt1 := ff + dd + (ss1 ^ top) + (w[i] ^ w[i+4])
		tt2 := gg + h + ss1 + w[i]
		a, b, c, dd = tt1, a, bits.RotateLeft32(b, 9), c
		e, f, g, h = p0(tt2), e, bits.RotateLeft32(f, 19), g
	}
	for i, word := range [8]uint32{a, b, c, dd, e, f, g, h} {
		d.v[i] ^= word
	}
}
