package lab

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
)

// The disk that the pattern imitates: 100 GiB of which 33 % are data, in 10,590
// segments from 4 KiB to 1.5 GB with a mean of 3,254,189 bytes, and as many of
// zeros. Lengths are distributed log-normally; sigma makes the largest of 10,590 as
// large as it was.
const (
	wholePattern  = 100 << 30
	wholeSegments = 10590
	lengthSigma   = 2.5
	segmentUnit   = 4096
)

// layout is the lengths of alternating segments, data first.
type layout []int64

func (l layout) data() (sum int64) {
	for i := 0; i < len(l); i += 2 {
		sum += l[i]
	}
	return sum
}

// segments scales the pattern to a disk of size bytes with percent of data. It is
// the same for the same arguments.
func segments(size int64, percent int) layout {
	pairs := max(int(size/(wholePattern/wholeSegments)), 4)
	r := rand.New(rand.NewPCG(uint64(size), uint64(percent)))
	units := size / segmentUnit
	data := max(units*int64(percent)/100, int64(pairs))
	a, b := divide(r, data, pairs), divide(r, units-data, pairs)
	l := make(layout, 0, 2*pairs)
	for i := range pairs {
		l = append(l, a[i]*segmentUnit, b[i]*segmentUnit)
	}
	return l
}

// divide splits total into n log-normally distributed parts of at least 1.
func divide(r *rand.Rand, total int64, n int) []int64 {
	weights, sum := make([]float64, n), 0.0
	for i := range weights {
		weights[i] = math.Exp(lengthSigma * r.NormFloat64())
		sum += weights[i]
	}
	parts, largest := make([]int64, n), 0
	left := total
	for i, w := range weights {
		parts[i] = max(int64(w/sum*float64(total)), 1)
		left -= parts[i]
		if parts[i] > parts[largest] {
			largest = i
		}
	}
	parts[largest] += left // what rounding made
	return parts
}

// makePattern writes an image: random data that nothing can compress, and holes.
func makePattern(ctx context.Context, path string, l layout) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	r := rand.NewChaCha8([32]byte{1})
	off := int64(0)
	for i, n := range l {
		for end := off + n; i%2 == 0 && off < end && err == nil; {
			part := block[:min(int64(len(block)), end-off)]
			_, _ = r.Read(part) // never fails
			_, err = f.WriteAt(part, off)
			off += int64(len(part))
			err = errors.Join(err, ctx.Err())
		}
		if i%2 == 1 {
			off += n
		}
	}
	return errors.Join(err, f.Truncate(off), f.Sync(), f.Close())
}
