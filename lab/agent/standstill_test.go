package agent

import (
	"slices"
	"testing"
)

func TestStandstills(t *testing.T) {
	t.Parallel()
	job := func(begin, end int64, stalls ...Stall) activity { return activity{begin, end, stalls} }
	for _, c := range []struct {
		name string
		jobs []activity
		want []Stall
	}{
		{"none", nil, nil},
		{"the only job", []activity{job(0, 100, Stall{10, 20})}, []Stall{{10, 20}}},
		{"another goes on", []activity{job(0, 100, Stall{10, 20}), job(0, 100)}, nil},
		{"all, in part", []activity{job(0, 100, Stall{10, 20}), job(0, 100, Stall{15, 40})}, []Stall{{15, 15}}},
		{"the other is done", []activity{job(0, 100, Stall{10, 20}), job(0, 5)}, []Stall{{10, 20}}},
		{"the other has not begun", []activity{job(0, 100, Stall{10, 20}), job(50, 80)}, []Stall{{10, 20}}},
		{"the other ends in between", []activity{job(0, 100, Stall{10, 20}), job(0, 20)}, []Stall{{20, 10}}},
		{"too short together", []activity{job(0, 100, Stall{10, 20}), job(0, 100, Stall{27, 20})}, nil},
		{"one after the other without a pause", []activity{job(0, 100, Stall{10, 10}, Stall{20, 10})}, []Stall{{10, 20}}},
		{"two", []activity{job(0, 100, Stall{10, 10}, Stall{50, 10})}, []Stall{{10, 10}, {50, 10}}},
		{"beyond the end", []activity{job(0, 100, Stall{90, 50})}, []Stall{{90, 10}}},
	} {
		if got := standstills(c.jobs, 5); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
