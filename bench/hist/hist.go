// Package hist is the latency histogram of fio: 1856 buckets whose relative
// error is at most 1/128, with minimum, maximum, mean and deviation kept exactly.
// Buckets have fio's indices and midpoints, so "bins" of fio's JSON+ output and
// of ours are interchangeable and merge.
package hist

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
)

const (
	bucketBits = 6  // buckets per group: 1<<bucketBits
	groups     = 29 // group 0 and 1 are exact
	// Buckets is the number of buckets.
	Buckets = groups << bucketBits
)

// Index returns the bucket of v nanoseconds; negative values count as 0 and what
// is too long for the last group falls in the last bucket.
func Index(v int64) int {
	if v < 1<<(bucketBits+1) {
		return int(max(v, 0))
	}
	shift := bits.Len64(uint64(v)) - 1 - bucketBits
	return min((shift+1)<<bucketBits+int(v>>shift)&(1<<bucketBits-1), Buckets-1)
}

// Value returns the middle of bucket i in nanoseconds.
func Value(i int) int64 {
	if i < 1<<(bucketBits+1) {
		return int64(i)
	}
	shift := i>>bucketBits - 1
	base := int64(1) << (shift + bucketBits)
	low := base + int64(i&(1<<bucketBits-1))<<shift
	return low + int64(1)<<shift/2
}

// Histogram counts durations in nanoseconds. The zero value is empty and ready.
// It is not safe for concurrent use.
type Histogram struct {
	n        uint64
	min, max int64
	sum      float64
	squares  float64
	counts   [Buckets]uint64
}

// Add counts one duration.
func (h *Histogram) Add(ns int64) {
	if ns < 0 {
		ns = 0
	}
	if h.n == 0 || ns < h.min {
		h.min = ns
	}
	if ns > h.max {
		h.max = ns
	}
	h.n++
	f := float64(ns)
	h.sum += f
	h.squares += f * f
	h.counts[Index(ns)]++
}

// Merge adds the counts of o.
func (h *Histogram) Merge(o *Histogram) {
	if o.n == 0 {
		return
	}
	if h.n == 0 || o.min < h.min {
		h.min = o.min
	}
	h.max = max(h.max, o.max)
	h.n += o.n
	h.sum += o.sum
	h.squares += o.squares
	for i, c := range &o.counts {
		h.counts[i] += c
	}
}

// Reset empties the histogram.
func (h *Histogram) Reset() { *h = Histogram{} }

// N is the number of durations counted.
func (h *Histogram) N() uint64 { return h.n }

// Min is the shortest duration, 0 if there is none.
func (h *Histogram) Min() int64 { return h.min }

// Max is the longest duration.
func (h *Histogram) Max() int64 { return h.max }

// Mean is the average in nanoseconds, 0 if there is none.
func (h *Histogram) Mean() float64 {
	if h.n == 0 {
		return 0
	}
	return h.sum / float64(h.n)
}

// Stddev is the sample standard deviation in nanoseconds.
func (h *Histogram) Stddev() float64 {
	if h.n < 2 {
		return 0
	}
	n := float64(h.n)
	return math.Sqrt(max(0, (h.squares-h.sum*h.sum/n)/(n-1)))
}

// Percentiles returns for each p (0 < p <= 100, ascending) the middle of the
// first bucket at which p percent of the durations are reached, as fio does; all
// are 0 if the histogram is empty.
func (h *Histogram) Percentiles(ps []float64) []int64 {
	out := make([]int64, len(ps))
	if h.n == 0 {
		return out
	}
	var sum uint64
	j := 0
	for i, c := range &h.counts {
		sum += c
		for c > 0 && j < len(ps) && float64(sum) >= ps[j]/100*float64(h.n) {
			out[j] = Value(i)
			j++
		}
	}
	for ; j < len(ps); j++ {
		out[j] = h.max
	}
	return out
}

// Percentile returns one percentile.
func (h *Histogram) Percentile(p float64) int64 { return h.Percentiles([]float64{p})[0] }

// Bin is one bucket that is not empty.
type Bin struct {
	Value int64 // nanoseconds, the bucket's middle
	Count uint64
}

// Bins returns the buckets that are not empty, ascending.
func (h *Histogram) Bins() []Bin {
	var out []Bin
	for i, c := range &h.counts {
		if c > 0 {
			out = append(out, Bin{Value(i), c})
		}
	}
	return out
}

// Counts returns the bucket counts.
func (h *Histogram) Counts() *[Buckets]uint64 { return &h.counts }

// FromBins rebuilds a histogram from bins and the exact figures beside them.
func FromBins(bins []Bin, minimum, maximum int64, mean, stddev float64) (*Histogram, error) {
	h := &Histogram{min: minimum, max: maximum}
	for _, b := range bins {
		if b.Value < 0 {
			return nil, fmt.Errorf("histogram bin %d is negative", b.Value)
		}
		h.counts[Index(b.Value)] += b.Count
		h.n += b.Count
	}
	n := float64(h.n)
	h.sum = mean * n
	h.squares = stddev*stddev*max(0, n-1) + mean*mean*n
	return h, nil
}

// Distribution returns the share in percent of the durations that are below each
// of limits (ascending, nanoseconds) and not below the one before; what is above
// the last limit is appended. Like fio's, a share that is not zero is at least
// 0.01.
func (h *Histogram) Distribution(limits []int64) []float64 {
	out := make([]float64, len(limits)+1)
	if h.n == 0 {
		return out
	}
	for i, c := range &h.counts {
		if c == 0 {
			continue
		}
		j, _ := slices.BinarySearch(limits, Value(i)+1)
		out[j] += float64(c)
	}
	for j := range out {
		if out[j] > 0 {
			out[j] = max(0.01, out[j]*100/float64(h.n))
		}
	}
	return out
}
