package gen

import (
	"encoding/binary"

	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// Filler gives buffers of writes their content: random, zero, a pattern, of a
// given compressibility, with a share of duplicates. Like fio it fills buffers
// once and only scrambles a few bytes per I/O, unless refill_buffers is set.
// It is not safe for concurrent use.
type Filler struct {
	job   *jobfile.Job
	rand  Random
	seeds [64]uint64 // of recent blocks, for duplicates
	n     uint64     // blocks filled
}

// NewFiller makes the filler of job j.
func NewFiller(j *jobfile.Job, seed uint64) *Filler {
	f := &Filler{job: j}
	f.rand.Seed(seed)
	return f
}

// Init fills a new buffer.
func (f *Filler) Init(buf []byte) {
	if f.job.ZeroBuffers {
		clear(buf)
		return
	}
	f.fill(buf, f.rand.Uint64())
}

// Next prepares a buffer for a write of it at off; now is any clock.
func (f *Filler) Next(buf []byte, off, now int64) {
	switch {
	case f.job.ZeroBuffers:
	case f.job.RefillBuffers:
		f.fill(buf, f.seed())
	case f.job.BufferPattern == nil && f.job.Scramble:
		scramble(buf, off, now)
	}
}

// seed returns the seed of the next block: a recent one for the share of
// duplicates.
func (f *Filler) seed() uint64 {
	s := f.rand.Uint64()
	if f.job.Dedupe > 0 && f.n > 0 && f.rand.Percent() <= f.job.Dedupe {
		return f.seeds[f.rand.Below(min(f.n, uint64(len(f.seeds))))]
	}
	f.seeds[f.n%uint64(len(f.seeds))] = s
	f.n++
	return s
}

// fill writes the content that belongs to seed.
func (f *Filler) fill(buf []byte, seed uint64) {
	if f.job.Compress == 0 {
		if f.job.BufferPattern != nil {
			Pattern(buf, f.job.BufferPattern)
			return
		}
		randomize(buf, seed)
		return
	}
	chunk := int(min(f.job.CompressChunk, int64(len(buf))))
	for len(buf) > 0 {
		part := buf[:min(chunk, len(buf))]
		noise := len(part) * (100 - f.job.Compress) / 100
		randomize(part[:noise], seed)
		if f.job.BufferPattern != nil {
			Pattern(part[noise:], f.job.BufferPattern)
		} else {
			clear(part[noise:])
		}
		seed = mix64(seed)
		buf = buf[len(part):]
	}
}

// randomize fills buf with noise that depends on seed alone.
func randomize(buf []byte, seed uint64) {
	var r Random
	r.Seed(seed)
	for len(buf) >= 8 {
		binary.LittleEndian.PutUint64(buf, r.Uint64())
		buf = buf[8:]
	}
	if len(buf) > 0 {
		var tail [8]byte
		binary.LittleEndian.PutUint64(tail[:], r.Uint64())
		copy(buf, tail[:])
	}
}

// scrambleUnit is the span of which 16 bytes change per I/O, enough that storage
// that finds duplicates finds none.
const scrambleUnit = 512

func scramble(buf []byte, off, now int64) {
	for len(buf) >= 16 {
		binary.LittleEndian.PutUint64(buf, uint64(off))
		binary.LittleEndian.PutUint64(buf[8:], uint64(now))
		off += scrambleUnit
		buf = buf[min(scrambleUnit, len(buf)):]
	}
}

// Pattern repeats pat over buf.
func Pattern(buf, pat []byte) {
	if len(pat) == 0 {
		return
	}
	for n := copy(buf, pat); n < len(buf); n *= 2 {
		copy(buf[n:], buf[:n])
	}
}
