package hist

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestBuckets(t *testing.T) {
	t.Parallel()
	for v := int64(0); v < 1<<33; v += 1 + v/97 {
		i := Index(v)
		mid := Value(i)
		if Index(mid) != i {
			t.Fatalf("middle %d of bucket %d lies in bucket %d", mid, i, Index(mid))
		}
		if err := math.Abs(float64(mid-v)) / math.Max(1, float64(v)); err > 1.0/128 {
			t.Fatalf("%d is reported as %d, off by %.4f", v, mid, err)
		}
	}
	if i := Index(math.MaxInt64); i != Buckets-1 {
		t.Errorf("the longest duration falls in bucket %d", i)
	}
	if Index(-5) != 0 {
		t.Error("a negative duration is not bucket 0")
	}
}

// Values that fio 3.33 prints for these latencies.
func TestFioMidpoints(t *testing.T) {
	t.Parallel()
	for _, v := range []int64{19840, 20608, 25984, 95744, 1761280, 19584, 1768} {
		if got := Value(Index(v)); got != v {
			t.Errorf("fio's bin %d is %d here", v, got)
		}
	}
}

func TestStatistics(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	var a, b, all Histogram
	var values []int64
	for i := range 20000 {
		v := int64(math.Exp(r.NormFloat64()) * 10000)
		values = append(values, v)
		all.Add(v)
		if i%3 == 0 {
			a.Add(v)
		} else {
			b.Add(v)
		}
	}
	a.Merge(&b)
	if a.N() != all.N() || a.Min() != all.Min() || a.Max() != all.Max() || a.counts != all.counts || math.Abs(a.Mean()-all.Mean()) > 1e-6 {
		t.Error("merged histograms differ from one of all values")
	}
	slices.Sort(values)
	for _, p := range []float64{1, 50, 99, 99.9, 100} {
		want := float64(values[min(len(values)-1, int(math.Ceil(p/100*float64(len(values))))-1)])
		if got := float64(all.Percentile(p)); math.Abs(got-want) > want/128+1 {
			t.Errorf("percentile %v is %v, want %v", p, got, want)
		}
	}
	back, err := FromBins(all.Bins(), all.Min(), all.Max(), all.Mean(), all.Stddev())
	if err != nil || back.counts != all.counts || math.Abs(back.Stddev()-all.Stddev()) > 1 {
		t.Errorf("bins do not give the histogram back: %v", err)
	}
}

func TestDistribution(t *testing.T) {
	t.Parallel()
	var h Histogram
	for _, v := range []int64{1, 3, 3, 5000} {
		h.Add(v)
	}
	if got := h.Distribution([]int64{2, 4}); !slices.Equal(got, []float64{25, 50, 25}) {
		t.Errorf("got %v", got)
	}
}

func BenchmarkAdd(b *testing.B) {
	var h Histogram
	for i := range b.N {
		h.Add(int64(i&0xffff) * 37)
	}
	if n := testing.AllocsPerRun(100, func() { h.Add(12345) }); n != 0 {
		b.Errorf("%v allocations", n)
	}
}
