package gen

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
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
	"meta": 1, "md5": 2, "crc64": 3, "crc32": 4, "crc32c": 5, "crc16": 7, "crc7": 8, "sha256": 9, "sha512": 10,
	"sha3-224": 11, "sha3-256": 12, "sha3-384": 13, "sha3-512": 14, "xxhash": 15, "sha1": 16, "pattern_hdr": 17, "null": 19,
}

// digestSizes are the bytes that follow the header.
var digestSizes = map[string]int{"md5": 16, "crc64": 8, "crc32": 4, "crc32c": 4, "crc16": 2, "crc7": 1, "sha256": 64, "xxhash": 4,
	"sha1": 20, "sha512": 128, "sha3-224": 28, "sha3-256": 32, "sha3-384": 48, "sha3-512": 64}

// maxDigest is the largest of them.
const maxDigest = 128

// hashes make the digests that the standard library computes.
var hashes = map[string]func() hash.Hash{
	"md5": md5.New, "sha1": sha1.New, "sha256": sha256.New, "sha512": sha512.New,
	"sha3-224": func() hash.Hash { return sha3.New224() }, "sha3-256": func() hash.Hash { return sha3.New256() },
	"sha3-384": func() hash.Hash { return sha3.New384() }, "sha3-512": func() hash.Hash { return sha3.New512() },
}

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
	hash  hash.Hash
	state []byte
	tail  [128]byte // padding of sha256
}

// NewVerifier makes the verifier of job j, whose Verify is not "".
func NewVerifier(j *jobfile.Job) *Verifier {
	v := &Verifier{job: j, kind: j.Verify, want: make([]byte, maxDigest)}
	if f := hashes[v.kind]; f != nil {
		v.hash = f()
	}
	return v
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
	if found := b[size : size+n]; !bytes.Equal(want, found) && !(v.kind == "sha512" && fioSHA512(found, b[size+n:])) {
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
	case "sha256":
		v.sha256(dst, data)
	case "sha1":
		v.sum(dst, data)
		for i := 0; i+4 <= len(dst); i += 4 { // the words are the processor's
			le.PutUint32(dst[i:], binary.BigEndian.Uint32(dst[i:]))
		}
	default:
		v.sum(dst, data)
	}
}

// sum writes the digest and clears what is left of dst.
func (v *Verifier) sum(dst, data []byte) {
	if v.hash == nil {
		return // meta, pattern_hdr: the header alone
	}
	v.hash.Reset()
	v.hash.Write(data)
	clear(dst[len(v.hash.Sum(dst[:0])):])
}

// fioSHA512 reports whether found is what fio stores for verify=sha512: not the
// digest, but its buffer of 128 bytes, which holds the beginning of the data and
// over it the part that fills no block of 128 bytes. A block that fio wrote must
// verify, so this is accepted; what is written here is the digest, since fio's way
// sees no damage in between.
func fioSHA512(found, data []byte) bool {
	rest := len(data) % maxDigest
	if len(data) < maxDigest {
		return false
	}
	return bytes.Equal(found[:rest], data[len(data)-rest:]) && bytes.Equal(found[rest:], data[rest:maxDigest])
}

// sha256 reproduces a peculiarity of fio that its headers depend on: the length
// is appended little endian, and the 64-byte field holds the last padded block,
// of which the first 8 bytes are the low bytes of the 8 state words.
func (v *Verifier) sha256(dst, data []byte) {
	var last [64]byte
	v.hash.Reset()
	v.hash.Write(data)
	pad := 56 - len(data)%64
	if pad <= 0 {
		pad += 64
	}
	tail := v.tail[:]
	clear(tail)
	tail[0] = 0x80
	binary.LittleEndian.PutUint64(tail[pad:], uint64(len(data))*8)
	v.hash.Write(tail[:pad+8])
	if pad+8 >= 64 {
		copy(last[:], tail[pad+8-64:pad+8])
	} else {
		rest := 64 - (pad + 8)
		copy(last[:], data[len(data)-rest:])
		copy(last[rest:], tail[:pad+8])
	}
	copy(dst, last[:])
	// The marshalled state is "sha\x03", then the eight words, big endian.
	v.state, _ = v.hash.(encoding.BinaryAppender).AppendBinary(v.state[:0])
	for i := range 8 {
		dst[i] = v.state[4+4*i+3]
	}
}
