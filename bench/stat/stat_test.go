package stat

import (
	"math"
	"testing"
)

func TestSummarize(t *testing.T) {
	t.Parallel()
	s := Summarize([]float64{10, 11, 9, 10, 12, 8, 10, 11})
	if s.Median != 10 || s.Lo > 10 || s.Hi < 10 || math.Abs(s.CV-12.3) > 0.5 {
		t.Errorf("%+v", s)
	}
	if s := Summarize(nil); s.N != 0 {
		t.Errorf("%+v", s)
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	a := []float64{100, 101, 99, 100, 102}
	if c := Compare(a, []float64{110, 111, 109, 112, 110}); !c.Differs || c.Delta < 9 || c.Delta > 11 || !c.Enough {
		t.Errorf("10 %% more: %+v", c)
	}
	if c := Compare(a, []float64{101, 100, 99, 102, 98}); c.Differs {
		t.Errorf("the same: %+v", c)
	}
	if c := Compare([]float64{100}, []float64{200}); c.Differs || c.Enough || c.Delta != 100 {
		t.Errorf("one run each: %+v", c)
	}
}

func TestSteadyFrom(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		v    []float64
		from int
		ok   bool
	}{
		{[]float64{100, 101, 99, 100, 100}, 0, true},
		{[]float64{500, 300, 150, 100, 101, 99, 100, 100}, 3, true},
		{[]float64{100, 90, 80, 70, 60, 50}, 0, false},
		{[]float64{100, 106, 112, 118, 124}, 0, false}, // within 20 %, but drifting
		{[]float64{100, 100}, 0, false},
		{[]float64{0, 0, 0, 0, 0}, 0, false},
	} {
		if from, ok := SteadyFrom(tt.v); from != tt.from || ok != tt.ok {
			t.Errorf("%v: %d, %v; want %d, %v", tt.v, from, ok, tt.from, tt.ok)
		}
	}
}
