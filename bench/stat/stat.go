// Package stat has the statistics of repeated runs: median with confidence
// interval, coefficient of variation, steady state, and whether two sets of runs
// differ by more than chance.
package stat

import (
	"math"
	"sort"

	"golang.org/x/perf/benchmath"
)

// Confidence is the level of intervals; Alpha the level of tests.
const (
	Confidence = 0.95
	Alpha      = 0.05
)

// Summary describes a sample.
type Summary struct {
	N      int
	Median float64
	// Lo and Hi bound the median with 95 % confidence; ±Inf if there are too few
	// values for that (fewer than 6).
	Lo, Hi float64
	// CV is the standard deviation in percent of the mean.
	CV float64
}

// Summarize describes values.
func Summarize(values []float64) Summary {
	if len(values) == 0 {
		return Summary{}
	}
	s := benchmath.AssumeNothing.Summary(benchmath.NewSample(append([]float64(nil), values...), &benchmath.DefaultThresholds), Confidence)
	return Summary{N: len(values), Median: s.Center, Lo: s.Lo, Hi: s.Hi, CV: cv(values)}
}

func cv(values []float64) float64 {
	n := float64(len(values))
	if n < 2 {
		return 0
	}
	var mean, sq float64
	for _, v := range values {
		mean += v / n
	}
	for _, v := range values {
		sq += (v - mean) * (v - mean)
	}
	if mean == 0 {
		return 0
	}
	return math.Sqrt(sq/(n-1)) / math.Abs(mean) * 100
}

// Comparison is the outcome of a test.
type Comparison struct {
	A, B Summary
	// Delta is the change of the median from A to B in percent.
	Delta float64
	// P is the probability of such a difference by chance (Mann-Whitney U); NaN if
	// there are too few values.
	P float64
	// Differs: P is below Alpha.
	Differs bool
	// Enough: a test was possible at all (4 values on each side can reach Alpha).
	Enough bool
}

// minValues on each side can reach p < 0.05: with 4 and 4 the smallest p is 2/70.
const minValues = 4

// Compare tests whether b differs from a.
func Compare(a, b []float64) Comparison {
	c := Comparison{A: Summarize(a), B: Summarize(b), P: math.NaN()}
	if c.A.Median != 0 {
		c.Delta = (c.B.Median - c.A.Median) / c.A.Median * 100
	}
	if len(a) < minValues || len(b) < minValues {
		return c
	}
	thresholds := benchmath.DefaultThresholds
	r := benchmath.AssumeNothing.Compare(benchmath.NewSample(append([]float64(nil), a...), &thresholds), benchmath.NewSample(append([]float64(nil), b...), &thresholds))
	c.P, c.Enough = r.P, true
	c.Differs = r.P < Alpha
	return c
}

// The steady state of SNIA's Solid State Storage Performance Test Specification:
// in the window no value is further from the others than 20 % of the mean, and
// the least-squares line drifts by at most 10 % of the mean over the window.
const (
	steadyWindow = 5
	steadyRange  = 0.20
	steadyDrift  = 0.10
)

// SteadyFrom returns the index from which on every window of five values is
// steady; false if the last window is not.
func SteadyFrom(values []float64) (int, bool) {
	from, ok := 0, false
	for i := len(values) - steadyWindow; i >= 0; i-- {
		if !steady(values[i : i+steadyWindow]) {
			break
		}
		from, ok = i, true
	}
	return from, ok
}

func steady(w []float64) bool {
	n := float64(len(w))
	var mean, sxx, sxy float64
	for _, v := range w {
		mean += v / n
	}
	sorted := append([]float64(nil), w...)
	sort.Float64s(sorted)
	if mean <= 0 || sorted[len(w)-1]-sorted[0] > steadyRange*mean {
		return false
	}
	mid := (n - 1) / 2
	for i, v := range w {
		sxx += (float64(i) - mid) * (float64(i) - mid)
		sxy += (float64(i) - mid) * v
	}
	return math.Abs(sxy/sxx)*(n-1) <= steadyDrift*mean
}
