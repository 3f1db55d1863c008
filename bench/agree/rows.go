package main

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/vmdisk/vmdisk/bench/result"
	"github.com/vmdisk/vmdisk/bench/stat"
	"github.com/vmdisk/vmdisk/report"
)

// What counts as equal even where fio happens not to vary. A disk of fixed delay
// leaves less room than a disk of its own mind.
const (
	defaultTolerance = 0.02
	fileTolerance    = 0.05
)

// Row is one figure of one job.
type Row struct {
	Job, Dir, Metric string
	Fio, Ours        []float64
	// Noise is the largest distance of a round of fio's from their median, as a
	// share of it; Off is that of our median.
	Noise, Off float64
	P          float64 // of the Mann-Whitney test; -1: too few rounds
	Agree      bool
	timed      bool
}

func add(rows []*Row, j *job, cells []result.Cell, fio bool) []*Row {
	for _, c := range cells {
		i := slices.IndexFunc(rows, func(r *Row) bool { return r.Job == j.name && r.Dir == c.Dir && r.Metric == c.Metric })
		if i < 0 {
			i = len(rows)
			rows = append(rows, &Row{Job: j.name, Dir: c.Dir, Metric: c.Metric, timed: j.timed})
		}
		if fio {
			rows[i].Fio = append(rows[i].Fio, c.Values...)
		} else {
			rows[i].Ours = append(rows[i].Ours, c.Values...)
		}
	}
	return rows
}

// count reports whether the figure is one of I/Os or bytes, exact whether it must
// be the same each time.
func (r *Row) count() bool { return r.Metric == "bytes" || r.Metric == "I/Os" }
func (r *Row) exact() bool { return r.count() && !r.timed }

// magnitude is how far apart two longest latencies may lie: they are single events.
const magnitude = 10

func (r *Row) judge(tolerance float64) {
	c := stat.Compare(r.Fio, r.Ours)
	r.P = -1
	if c.Enough {
		r.P = c.P
	}
	for _, v := range r.Fio {
		r.Noise = max(r.Noise, math.Abs(v-c.A.Median)/c.A.Median)
	}
	r.Off = (c.B.Median - c.A.Median) / c.A.Median
	switch {
	case r.exact():
		r.Agree = slices.Min(r.Fio) == slices.Max(r.Fio) && slices.Equal(r.Fio, r.Ours)
	case r.Metric == "lat_max":
		r.Agree = c.B.Median <= magnitude*slices.Max(r.Fio) && c.B.Median >= slices.Min(r.Fio)/magnitude
	default:
		r.Agree = math.Abs(r.Off) <= max(r.Noise, tolerance) || c.Enough && !c.Differs
	}
}

func show(rows []*Row, title string) error {
	t := &report.Table{Title: "vmdisk bench against fio, " + title, Columns: []report.Column{{Name: "job"}, {Name: "direction"}, {Name: "figure"}, {Name: "fio", Digits: 2}, {Name: "vmdisk", Digits: 2},
		{Name: "off", Unit: "%", Digits: 2}, {Name: "fio's noise", Unit: "%", Digits: 2}, {Name: "p", Digits: 3}, {Name: "agree"}},
		Notes: []string{"medians; latencies in µs, bw in MiB/s; they agree if vmdisk's median is no further from fio's than a round of fio's own, or " +
			fmt.Sprintf("%.0f %% (%.0f %% through the page cache), or the Mann-Whitney test sees no difference; the longest latency by its order of magnitude; counts must be equal", defaultTolerance*100, fileTolerance*100)}}
	for _, r := range rows {
		div := 1.0
		switch {
		case r.Metric == "bw":
			div = 1 << 20
		case strings.HasPrefix(r.Metric, "lat"):
			div = 1e3
		}
		word := "NO"
		if r.Agree {
			word = "yes"
		}
		var p any
		if r.P >= 0 {
			p = r.P
		}
		t.Add(r.Job, r.Dir, r.Metric, stat.Summarize(r.Fio).Median/div, stat.Summarize(r.Ours).Median/div, r.Off*100, r.Noise*100, p, word)
	}
	if err := report.TextItem(os.Stdout, t); err != nil {
		return err
	}
	_, err := fmt.Println(verdict(rows))
	return err
}
