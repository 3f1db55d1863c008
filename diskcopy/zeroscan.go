package diskcopy

import (
	"bytes"
	"encoding/binary"
)

// zeroBlock is what isZero compares with: 4 KiB stays in the first-level cache,
// so that only p comes from memory.
var zeroBlock [4096]byte

// isZero reports whether p is all zeros. Its first words settle most data
// blocks; the rest is left to the vectorized bytes.Equal.
func isZero(p []byte) bool {
	if len(p) >= 8 && binary.LittleEndian.Uint64(p) != 0 {
		return false
	}
	for len(p) > len(zeroBlock) {
		if !bytes.Equal(p[:len(zeroBlock)], zeroBlock[:]) {
			return false
		}
		p = p[len(zeroBlock):]
	}
	return bytes.Equal(p, zeroBlock[:len(p)])
}

// run finds the length of the run at the head of p whose blocks are all zero
// or all not zero, in blocks of size bytes; the last may be shorter. p holds
// the disk's bytes from off, which decides where blocks begin.
func run(p []byte, off, size int64) (n int64, zero bool) {
	end := int64(len(p))
	n = min(size-off%size, end)
	zero = isZero(p[:n])
	for n < end {
		next := min(n+size, end)
		if isZero(p[n:next]) != zero {
			break
		}
		n = next
	}
	return n, zero
}

// dataRun is run, except that zero runs shorter than short, and within p, count
// as data.
func dataRun(p []byte, off, size, short int64) (n int64, zero bool) {
	n, zero = run(p, off, size)
	if zero && n >= short {
		return n, true
	}
	for n < int64(len(p)) {
		more, z := run(p[n:], off+n, size)
		if z && more >= short {
			break
		}
		n += more
	}
	return n, zero && n == int64(len(p)) && isZero(p)
}
