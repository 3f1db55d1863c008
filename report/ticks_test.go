package report

import (
	"math"
	"slices"
	"testing"

	"gonum.org/v1/plot"
)

func labels(ticks []plot.Tick) []string {
	var out []string
	for _, t := range ticks {
		if t.Label != "" {
			out = append(out, t.Label)
		}
	}
	return out
}

func TestTickLabels(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ticker plot.Ticker
		lo, hi float64
		want   []string
	}{
		{linearTicks{numberLabel}, 0, 25000, []string{"0", "5k", "10k", "15k", "20k", "25k"}},
		{linearTicks{numberLabel}, 0, 1, []string{"0", "0.2", "0.4", "0.6", "0.8", "1.0"}},
		{linearTicks{numberLabel}, 0.301, 0.352, []string{"0.31", "0.32", "0.33", "0.34", "0.35"}},
		{linearTicks{numberLabel}, -3, 3, []string{"-3", "-2", "-1", "0", "1", "2", "3"}},
		{linearTicks{numberLabel}, 1, 1, nil},
		{logTicks{numberLabel}, 30, 700, []string{"50", "100", "200", "500"}},
		{logTicks{numberLabel}, 1, 1e5, []string{"1", "10", "100", "1000", "10k", "100k"}},
		{logTicks{numberLabel}, 0.01, 1, []string{"0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1"}},
		{logTicks{numberLabel}, 0, 10, nil},
		{linearTicks{numberLabel}, 0, 3e6, []string{"0", "0.5M", "1.0M", "1.5M", "2.0M", "2.5M", "3.0M"}},
		{linearTicks{durationLabel}, 0, 2500, []string{"0", "0.5 ms", "1.0 ms", "1.5 ms", "2.0 ms", "2.5 ms"}},
		{logTicks{durationLabel}, 1, 1e7, []string{"1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s"}},
		{percentileTicks{}, 50, 99.99, []string{"50 %", "75 %", "90 %", "95 %", "99 %", "99.9 %", "99.99 %"}},
		{decadeTicks{10}, 0, 3, []string{"10", "100", "1000", "10k"}},
	} {
		if got := labels(c.ticker.Ticks(c.lo, c.hi)); !slices.Equal(got, c.want) {
			t.Errorf("%T %v..%v: %q, want %q", c.ticker, c.lo, c.hi, got, c.want)
		}
	}
}

// TestTicksEnd: numbers at which adding one changes nothing must not loop for ever.
func TestTicksEnd(t *testing.T) {
	t.Parallel()
	for _, r := range [][2]float64{{1e17, 1e17 + 16}, {math.MaxFloat64 / 2, math.MaxFloat64}, {5e-324, 1e-323}, {-math.MaxFloat64, math.MaxFloat64}} {
		if n := len(linearTicks{numberLabel}.Ticks(r[0], r[1])); n > 10 {
			t.Errorf("%v: %d ticks", r, n)
		}
		if n := len(logTicks{numberLabel}.Ticks(max(r[0], 5e-324), r[1])); n > 6000 {
			t.Errorf("%v: %d ticks on a logarithmic axis", r, n)
		}
	}
}
