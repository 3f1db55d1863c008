package stats

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"strings"
	"sync/atomic"
	"time"
)

// counter gathers one kind of operation without a lock.
type counter struct {
	ops, bytes, failed, nanos, most atomic.Int64
	sizes                           [64]atomic.Int64 // by bit length of the size, less 1
	times                           [timeBuckets]atomic.Int64
}

// Times are sorted into buckets an eighth of an octave wide: percentiles are
// right to 13 %.
const (
	subBits     = 3
	timeBuckets = 64 << subBits
)

func timeBucket(nanos int64) int {
	n := uint64(max(nanos, 1))
	octave := bits.Len64(n) - 1
	if octave <= subBits {
		return int(n)
	}
	return octave<<subBits + int(n>>(octave-subBits)&(1<<subBits-1))
}

// bucketEnd is the largest time in a bucket, in nanoseconds.
func bucketEnd(i int) int64 {
	octave := i >> subBits
	if octave <= subBits {
		return int64(i)
	}
	step := int64(1) << (octave - subBits)
	return int64(1)<<octave + int64(i&(1<<subBits-1)+1)*step - 1
}

func (c *counter) add(n int64, start time.Time, err error) {
	took := int64(time.Since(start))
	c.ops.Add(1)
	c.nanos.Add(took)
	c.times[timeBucket(took)].Add(1)
	for most := c.most.Load(); took > most && !c.most.CompareAndSwap(most, took); {
		most = c.most.Load()
	}
	if err != nil {
		c.failed.Add(1)
		return
	}
	c.bytes.Add(n)
	if n > 0 {
		c.sizes[bits.Len64(uint64(n))-1].Add(1)
	}
}

// Op is the numbers of one kind of operation.
type Op struct {
	Ops    int64 `json:"ops"`    // finished, failed ones included
	Failed int64 `json:"failed"` // of these
	Bytes  int64 `json:"bytes"`  // of those that succeeded
	// Total, Mean, Max and the percentiles are times in nanoseconds; Total sums
	// operations that ran side by side.
	Total time.Duration `json:"total_ns"`
	Mean  time.Duration `json:"mean_ns"`
	P50   time.Duration `json:"p50_ns"`
	P99   time.Duration `json:"p99_ns"`
	Max   time.Duration `json:"max_ns"`
	Sizes []Size        `json:"sizes,omitempty"`
}

// Size counts the successful operations of From bytes or more, below 2*From.
type Size struct {
	From int64 `json:"from"`
	Ops  int64 `json:"ops"`
}

// Snapshot is all numbers at one moment.
type Snapshot struct {
	Elapsed time.Duration `json:"elapsed_ns"` // since the filter was opened
	Read    Op            `json:"read"`
	Write   Op            `json:"write"`
	Zero    Op            `json:"zero"`
	Trim    Op            `json:"trim"`
	Flush   Op            `json:"flush"`
	Extents Op            `json:"extents"`
	Cache   Op            `json:"cache"`
}

// Snapshot returns the numbers so far. It may be called while operations run;
// then counts that belong together can differ by those.
func (f *Filter) Snapshot() Snapshot {
	return Snapshot{
		Elapsed: time.Since(f.start),
		Read:    f.read.snapshot(), Write: f.write.snapshot(), Zero: f.zero.snapshot(), Trim: f.trim.snapshot(),
		Flush: f.flush.snapshot(), Extents: f.extents.snapshot(), Cache: f.cache.snapshot(),
	}
}

func (c *counter) snapshot() Op {
	op := Op{Ops: c.ops.Load(), Failed: c.failed.Load(), Bytes: c.bytes.Load(),
		Total: time.Duration(c.nanos.Load()), Max: time.Duration(c.most.Load())}
	if op.Ops == 0 {
		return op
	}
	op.Mean = op.Total / time.Duration(op.Ops)
	op.P50, op.P99 = c.percentile(50, op.Max), c.percentile(99, op.Max)
	for i := range c.sizes {
		if n := c.sizes[i].Load(); n > 0 {
			op.Sizes = append(op.Sizes, Size{From: 1 << i, Ops: n})
		}
	}
	return op
}

func (c *counter) percentile(p int64, most time.Duration) time.Duration {
	var total, seen int64
	for i := range c.times {
		total += c.times[i].Load()
	}
	for i := range c.times {
		seen += c.times[i].Load()
		if seen*100 >= total*p {
			return min(time.Duration(bucketEnd(i)), most)
		}
	}
	return most
}

func isJSON(name string) bool { return strings.HasSuffix(name, ".json") }

func (s Snapshot) encode() string {
	text, _ := json.Marshal(s) // plain numbers: it cannot fail
	return string(text) + "\n"
}

func (s Snapshot) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "elapsed %.6f s\n", s.Elapsed.Seconds())
	for _, k := range []struct {
		name string
		op   Op
	}{{"read", s.Read}, {"write", s.Write}, {"zero", s.Zero}, {"trim", s.Trim}, {"flush", s.Flush}, {"extents", s.Extents}, {"cache", s.Cache}} {
		k.op.text(&b, k.name, s.Elapsed)
	}
	return b.String()
}

func (o Op) text(b *strings.Builder, name string, elapsed time.Duration) {
	if o.Ops == 0 {
		return
	}
	rate := float64(o.Bytes) / (1 << 20) / max(elapsed.Seconds(), 1e-9)
	fmt.Fprintf(b, "%s: %d ops, %d failed, %d bytes, %.2f MiB/s; mean %v, p50 %v, p99 %v, max %v\n",
		name, o.Ops, o.Failed, o.Bytes, rate, o.Mean, o.P50, o.P99, o.Max)
	for _, s := range o.Sizes {
		fmt.Fprintf(b, "  from %d bytes: %d ops\n", s.From, s.Ops)
	}
}
