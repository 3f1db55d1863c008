package report

import (
	"math"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
)

// labeller writes the value of a tick; the unit is chosen by top, and digits is how
// many decimals tell the ticks apart.
type labeller func(v, top, step float64) string

// numberLabel writes large numbers with k, M, G or T behind them.
func numberLabel(v, top, step float64) string {
	unit, name := 1.0, ""
	for _, u := range []struct {
		from, unit float64
		name       string
	}{{1e4, 1e3, "k"}, {1e6, 1e6, "M"}, {1e9, 1e9, "G"}, {1e12, 1e12, "T"}} {
		if math.Abs(top) >= u.from {
			unit, name = u.unit, u.name
		}
	}
	if v == 0 {
		return "0"
	}
	return strconv.FormatFloat(v/unit, 'f', decimals(step/unit), 64) + name
}

// durationLabel writes microseconds in the unit that suits.
func durationLabel(v, top, step float64) string {
	unit, name := 1.0, " µs"
	switch {
	case math.Abs(top) >= 1e6:
		unit, name = 1e6, " s"
	case math.Abs(top) >= 1e3:
		unit, name = 1e3, " ms"
	case math.Abs(top) < 1:
		unit, name = 1e-3, " ns"
	}
	if v == 0 {
		return "0"
	}
	return strconv.FormatFloat(v/unit, 'f', decimals(step/unit), 64) + name
}

// decimals are how many tell steps of this size apart.
func decimals(step float64) int {
	return max(0, -int(math.Floor(math.Log10(step)+1e-9)))
}

// withSeparators writes a number with a separator between thousands.
func withSeparators(v float64, digits int) string {
	s := strconv.FormatFloat(v, 'f', digits, 64)
	whole, rest, _ := strings.Cut(s, ".")
	sign := ""
	if strings.HasPrefix(whole, "-") {
		sign, whole = "-", whole[1:]
	}
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if rest != "" {
		rest = "." + rest
	}
	return sign + whole + rest
}

// linearTicks labels round numbers, about six of them; the plotting library labels
// three.
type linearTicks struct{ label labeller }

// Ticks implements plot.Ticker.
func (t linearTicks) Ticks(lo, hi float64) []plot.Tick {
	if !(hi > lo) || math.IsInf(hi-lo, 0) {
		return nil
	}
	step := roundStep((hi - lo) / 6)
	var out []plot.Tick
	first := math.Ceil(lo / step)
	top := max(math.Abs(lo), math.Abs(hi))
	// Counted from 0: where lo is so large that first+1 is first, the loop must end.
	for i := range 10 {
		v := (first + float64(i)) * step
		if v > hi+step*1e-9 {
			break
		}
		out = append(out, plot.Tick{Value: v, Label: t.label(v+0, top, step)})
	}
	return out
}

// roundStep is the next of 1, 2 and 5 times a power of ten.
func roundStep(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5} {
		if v <= m*power*(1+1e-9) {
			return m * power
		}
	}
	return 10 * power
}

// logTicks labels powers of ten, and where there are few of them also 2 and 5 times
// them.
type logTicks struct{ label labeller }

// Ticks implements plot.Ticker.
func (t logTicks) Ticks(lo, hi float64) []plot.Tick {
	if lo <= 0 || !(hi > lo) || math.IsInf(hi, 0) {
		return nil
	}
	few := math.Log10(hi/lo) < 2.5
	var out []plot.Tick
	for e := math.Floor(math.Log10(lo)); e <= math.Log10(hi)+1e-9; e++ {
		for m := 1.0; m < 10; m++ {
			v := m * math.Pow(10, e)
			if v < lo*(1-1e-9) || v > hi*(1+1e-9) {
				continue
			}
			tick := plot.Tick{Value: v}
			if m == 1 || few && (m == 2 || m == 5) {
				tick.Label = t.label(v, v*(1+1e-9), v)
			}
			out = append(out, tick)
		}
	}
	return out
}

// decadeTicks label an axis that counts powers of ten above a base.
type decadeTicks struct{ base float64 }

// Ticks implements plot.Ticker.
func (t decadeTicks) Ticks(lo, hi float64) []plot.Tick {
	var out []plot.Tick
	for e := math.Ceil(lo); e <= hi && len(out) < 20; e++ {
		v := t.base * math.Pow(10, e)
		out = append(out, plot.Tick{Value: e, Label: numberLabel(v, v*(1+1e-9), v)})
	}
	return out
}

// percentileScale gives each step to a tenth of what is above the same length.
type percentileScale struct{}

// Normalize implements plot.Normalizer.
func (percentileScale) Normalize(lo, hi, x float64) float64 {
	from, to := rareness(lo), rareness(hi)
	return (rareness(x) - from) / (to - from)
}

// rareness is 0 for the 0th percentile, 1 for the 90th, 2 for the 99th.
func rareness(p float64) float64 { return -math.Log10(1 - min(p, 99.9999999)/100) }

type percentileTicks struct{}

// Ticks implements plot.Ticker.
func (percentileTicks) Ticks(lo, hi float64) []plot.Tick {
	var out []plot.Tick
	for _, v := range []float64{0, 50, 75, 90, 95, 99, 99.9, 99.99, 99.999, 99.9999} {
		if v >= lo && v <= hi {
			out = append(out, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'f', -1, 64) + " %"})
		}
	}
	return out
}
