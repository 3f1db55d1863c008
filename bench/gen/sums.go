package gen

import (
	"encoding/binary"
	"math/bits"
)

// The checksums that fio's verify uses and Go's library does not have.

var (
	crc32Table [256]uint32
	crc16Table [256]uint16
	crc7Table  [256]uint8
)

func init() {
	for i := range 256 {
		c32, c16, c7 := uint32(i)<<24, uint16(i), uint8(i)
		for range 8 {
			c32 = c32<<1 ^ 0x04c11db7&-(c32>>31)
			c16 = c16>>1 ^ 0xa001&-(c16&1)
			c7 = c7<<1 ^ 0x12&-(c7>>7)
		}
		crc32Table[i], crc16Table[i], crc7Table[i] = c32, c16, c7>>1
	}
}

// crc32Forward is CRC-32 with the most significant bit first, started at 0 and
// not inverted.
func crc32Forward(b []byte) uint32 {
	var c uint32
	for _, x := range b {
		c = c<<8 ^ crc32Table[byte(c>>24)^x]
	}
	return c
}

// crc16 is CRC-16/ARC.
func crc16(b []byte) uint16 {
	var c uint16
	for _, x := range b {
		c = c>>8 ^ crc16Table[byte(c)^x]
	}
	return c
}

// crc7 is CRC-7/MMC (polynomial 0x09).
func crc7(b []byte) uint8 {
	var c uint8
	for _, x := range b {
		c = crc7Table[c<<1^x]
	}
	return c
}

// The constants of xxHash (Yann Collet), 32 bits.
const (
	xx1 = 2654435761
	xx2 = 2246822519
	xx3 = 3266489917
	xx4 = 668265263
	xx5 = 374761393
)

func xxh32(b []byte, seed uint32) uint32 {
	total := uint32(len(b))
	h := seed + xx5
	if len(b) >= 16 {
		one, two := uint32(xx1), uint32(xx2)
		v := [4]uint32{seed + one + two, seed + two, seed, seed - one}
		for ; len(b) >= 16; b = b[16:] {
			for i := range v {
				v[i] = bits.RotateLeft32(v[i]+binary.LittleEndian.Uint32(b[4*i:])*xx2, 13) * xx1
			}
		}
		h = bits.RotateLeft32(v[0], 1) + bits.RotateLeft32(v[1], 7) + bits.RotateLeft32(v[2], 12) + bits.RotateLeft32(v[3], 18)
	}
	h += total
	for ; len(b) >= 4; b = b[4:] {
		h = bits.RotateLeft32(h+binary.LittleEndian.Uint32(b)*xx3, 17) * xx4
	}
	for _, x := range b {
		h = bits.RotateLeft32(h+uint32(x)*xx5, 11) * xx1
	}
	h = (h ^ h>>15) * xx2
	h = (h ^ h>>13) * xx3
	return h ^ h>>16
}
