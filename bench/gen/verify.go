package gen

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"

	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// The verify header that fio 3.x writes at the start of each verify_interval,
// little endian:
//
//	0 magic u16, 2 kind u16, 4 len u32, 8 seed u64, 16 offset u64, 24 seconds u32,
//	28 nanoseconds u32, 32 thread u16, 34 number of the I/O u16, 36 crc32c u32
//
// Newer releases (from 3.39) write a version byte 0x81 and the kind as bytes 2
// and 3, and the number of the I/O as 64 bits, which makes the header 48 bytes.
// The first is written here, both are read.
const (
	magic         = 0xacca
	headerSize    = 40
	newHeaderSize = 48
	newVersion    = 0x81
)

// kinds are fio's numbers of the verify= values; they are informative, since the
// job says how to verify.
var kinds = map[string]uint16{
	"meta": 1, "md5": 2, "crc64": 3, "crc32": 4, "crc32c": 5, "crc16": 7, "crc7": 8, "sha256": 9, "xxhash": 15,
	"pattern_hdr": 17, "null": 19,
}

// digestSizes are the bytes that follow the header.
var digestSizes = map[string]int{"md5": 16, "crc64": 8, "crc32": 4, "crc32c": 4, "crc16": 2, "crc7": 1, "sha256": 64, "xxhash": 4}

// VerifyError is a block that does not hold what was written to it.
type VerifyError struct {
	Off             int64 // of the block that failed
	Len             int
	What            string // which check failed
	Expected, Found []byte // the bytes compared
	Block           []byte // the whole block as read, for a dump; valid until the next call
}

func (e *VerifyError) Error() string {
	return fmt.Sprintf("verify: %s at offset %d, block of %d bytes: expected %s, found %s",
		e.What, e.Off, e.Len, hexShort(e.Expected), hexShort(e.Found))
}

func hexShort(b []byte) string {
	const most = 32
	if len(b) > most {
		return "0x" + hex.EncodeToString(b[:most]) + "…"
	}
	return "0x" + hex.EncodeToString(b)
}

// Verifier writes and checks verify blocks of one job.
// It is not safe for concurrent use.
type Verifier struct {
	job   *jobfile.Job
	kind  string
	want  []byte // scratch for digests
	md5   hash.Hash
	sha   hash.Hash
	state []byte
	tail  [128]byte // padding of sha256
}

// NewVerifier makes the verifier of job j, whose Verify is not "".
func NewVerifier(j *jobfile.Job) *Verifier {
	return &Verifier{job: j, kind: j.Verify, want: make([]byte, 64), md5: md5.New(), sha: sha256.New()}
}

// Stamp identifies one written block.
type Stamp struct {
	Seed    uint64
	Number  uint64
	Thread  uint16
	Sec     uint32
	Nanosec uint32
}

// Write turns buf, which holds the block's filling and is about to be written at
// off, into verify blocks.
func (v *Verifier) Write(buf []byte, off int64, st Stamp) {
	if v.kind == "null" {
		return
	}
	if v.job.VerifyPattern != nil {
		Pattern(buf, v.job.VerifyPattern)
	}
	if v.kind == "pattern" {
		return
	}
	step := int(v.job.VerifyInterval)
	for i := 0; i+step <= len(buf); i += step {
		v.writeBlock(buf[i:i+step], off+int64(i), st)
	}
}

func (v *Verifier) writeBlock(b []byte, off int64, st Stamp) {
	le := binary.LittleEndian
	h := b[:headerSize]
	le.PutUint16(h[0:], magic)
	le.PutUint16(h[2:], kinds[v.kind])
	le.PutUint32(h[4:], uint32(len(b)))
	le.PutUint64(h[8:], st.Seed)
	le.PutUint64(h[16:], uint64(off))
	le.PutUint32(h[24:], st.Sec)
	le.PutUint32(h[28:], st.Nanosec)
	le.PutUint16(h[32:], st.Thread)
	le.PutUint16(h[34:], uint16(st.Number))
	le.PutUint32(h[36:], headerSum(h[:36]))
	n := digestSizes[v.kind]
	v.digest(b[headerSize:headerSize+n], b[headerSize+n:])
	v.swap(b, headerSize+n)
}

// swap exchanges the header with the bytes at verify_offset.
func (v *Verifier) swap(b []byte, n int) {
	if o := int(v.job.VerifyOffset); o > 0 {
		for i := range n {
			b[i], b[o+i] = b[o+i], b[i]
		}
	}
}

// Check verifies a block read from off and returns a *VerifyError for the first
// part that is wrong. number is what the header must carry, -1 if that is not known.
func (v *Verifier) Check(buf []byte, off, number int64) error {
	if v.kind == "null" {
		return nil
	}
	if v.kind == "pattern" {
		return v.checkPattern(buf, buf, off, 0)
	}
	step := int(v.job.VerifyInterval)
	for i := 0; i+step <= len(buf); i += step {
		if err := v.checkBlock(buf[i:i+step], off+int64(i), number); err != nil {
			return err
		}
	}
	return nil
}

func (v *Verifier) checkBlock(b []byte, off, number int64) error {
	le := binary.LittleEndian
	size, numAt, sumAt := headerSize, 34, 36
	n := digestSizes[v.kind]
	v.swap(b, headerSize+n)
	if b[2] == newVersion {
		v.swap(b, headerSize+n)
		size, numAt, sumAt = newHeaderSize, 32, 44
		v.swap(b, size+n)
	}
	fail := func(what string, want, got []byte) error {
		return &VerifyError{Off: off, Len: len(b), What: what, Expected: bytes.Clone(want), Found: bytes.Clone(got), Block: b}
	}
	if le.Uint16(b) != magic {
		return fail("no verify header", []byte{0xca, 0xac}, b[:2])
	}
	if got := le.Uint32(b[4:]); got != uint32(len(b)) {
		return fail("header of another block length", le.AppendUint32(nil, uint32(len(b))), b[4:8])
	}
	if got := le.Uint64(b[16:]); got != uint64(off) {
		return fail("header of another offset", le.AppendUint64(nil, uint64(off)), b[16:24])
	}
	if sum := headerSum(b[:sumAt]); sum != le.Uint32(b[sumAt:]) {
		return fail("header checksum", le.AppendUint32(nil, sum), b[sumAt:sumAt+4])
	}
	if number >= 0 && size == headerSize && le.Uint16(b[numAt:]) != uint16(number) {
		return fail("header of another write (stale data)", le.AppendUint16(nil, uint16(number)), b[numAt:numAt+2])
	}
	want := v.want[:n]
	v.digest(want, b[size+n:])
	if !bytes.Equal(want, b[size:size+n]) {
		return fail(v.kind+" checksum", want, b[size:size+n])
	}
	if v.job.VerifyPattern != nil && (v.kind == "meta" || v.kind == "pattern_hdr") {
		return v.checkPattern(b, b[size:], off, size)
	}
	return nil
}

// checkPattern compares part, which begins at byte `at` of block b, with the pattern.
func (v *Verifier) checkPattern(block, part []byte, off int64, at int) error {
	pat := v.job.VerifyPattern
	if v.job.VerifyOffset > 0 {
		return nil // the swap displaced pattern bytes; the header alone is checked
	}
	for i, c := range part {
		if want := pat[(at+i)%len(pat)]; c != want {
			end := min(i+16, len(part))
			exp := make([]byte, 0, 16)
			for k := i; k < end; k++ {
				exp = append(exp, pat[(at+k)%len(pat)])
			}
			return &VerifyError{Off: off + int64(at+i), Len: len(block), What: "pattern", Expected: exp,
				Found: bytes.Clone(part[i:end]), Block: block}
		}
	}
	return nil
}

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	jones      = crc64.MakeTable(0x95ac9329ac4bc9b5)
)

// headerSum is crc32c as fio computes it: initialised with ones, not inverted at
// the end.
func headerSum(b []byte) uint32 { return ^crc32.Update(0, castagnoli, b) }

// digest writes the checksum of data into dst, in fio's variant of each kind.
func (v *Verifier) digest(dst, data []byte) {
	le := binary.LittleEndian
	switch v.kind {
	case "crc32c":
		le.PutUint32(dst, headerSum(data))
	case "crc32":
		le.PutUint32(dst, crc32Forward(data))
	case "crc64":
		le.PutUint64(dst, ^crc64.Update(^uint64(0), jones, data))
	case "crc16":
		le.PutUint16(dst, crc16(data))
	case "crc7":
		dst[0] = crc7(data)
	case "xxhash":
		le.PutUint32(dst, xxh32(data, 1))
	case "md5":
		v.md5.Reset()
		v.md5.Write(data)
		v.md5.Sum(dst[:0])
	case "sha256":
		v.sha256(dst, data)
	}
}

// sha256 reproduces a peculiarity of fio that its headers depend on: the length
// is appended little endian, and the 64-byte field holds the last padded block,
// of which the first 8 bytes are the low bytes of the 8 state words.
func (v *Verifier) sha256(dst, data []byte) {
	var last [64]byte
	v.sha.Reset()
	v.sha.Write(data)
	pad := 56 - len(data)%64
	if pad <= 0 {
		pad += 64
	}
	tail := v.tail[:]
	clear(tail)
	tail[0] = 0x80
	binary.LittleEndian.PutUint64(tail[pad:], uint64(len(data))*8)
	v.sha.Write(tail[:pad+8])
	if pad+8 >= 64 {
		copy(last[:], tail[pad+8-64:pad+8])
	} else {
		rest := 64 - (pad + 8)
		copy(last[:], data[len(data)-rest:])
		copy(last[rest:], tail[:pad+8])
	}
	copy(dst, last[:])
	// The marshalled state is "sha\x03", then the eight words, big endian.
	v.state, _ = v.sha.(encoding.BinaryAppender).AppendBinary(v.state[:0])
	for i := range 8 {
		dst[i] = v.state[4+4*i+3]
	}
}
