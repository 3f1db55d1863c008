package outcome

import (
	"fmt"
	"slices"

	"github.com/vmdisk/vmdisk/bench"
	"github.com/vmdisk/vmdisk/bench/stat"
	"github.com/vmdisk/vmdisk/report"
)

// Difference is one metric of one cell in two results.
type Difference struct {
	Cell      string  `json:"cell"`
	Direction string  `json:"direction"`
	Metric    string  `json:"metric"`
	A         float64 `json:"a"` // medians
	B         float64 `json:"b"`
	RunsA     int     `json:"runs_a"`
	RunsB     int     `json:"runs_b"`
	Delta     float64 `json:"delta_percent"` // of A
	P         float64 `json:"p"`             // -1: too few runs for a test
	// Verdict is one of those of package bench: better, worse, no significant
	// difference, too few runs to tell, only in one.
	Verdict string `json:"verdict"`
}

// notCompared are metrics of which neither more nor less is better.
var notCompared = []string{"host_busy"}

// Compare compares the cells of b with those of a that have the same ID, metric by
// metric: better and worse are b's. Cells that ran in neither are left out.
func Compare(a, b *Results) []Difference {
	fa, fb := a.figures(), b.figures()
	var out []Difference
	for _, c := range a.Cells {
		other := fb[c.ID]
		if other == nil {
			other = &CellFigures{}
		}
		out = append(out, compareCells(c.ID, fa[c.ID], other)...)
	}
	for _, c := range b.Cells {
		if fa[c.ID] == nil {
			out = append(out, compareCells(c.ID, &CellFigures{}, fb[c.ID])...)
		}
	}
	return out
}

func compareCells(id string, a, b *CellFigures) []Difference {
	var out []Difference
	for i := range a.Metrics {
		m := &a.Metrics[i]
		out = appendDifference(out, id, m, b.Metric(m.Direction, m.Name))
	}
	for i := range b.Metrics {
		if m := &b.Metrics[i]; a.Metric(m.Direction, m.Name) == nil {
			out = appendDifference(out, id, nil, m)
		}
	}
	return out
}

func appendDifference(out []Difference, id string, a, b *Metric) []Difference {
	m := a
	if m == nil {
		m = b
	}
	if slices.Contains(notCompared, m.Name) {
		return out
	}
	d := Difference{Cell: id, Direction: m.Direction, Metric: m.Name, P: -1, Verdict: bench.VerdictMissing}
	if a != nil {
		d.A, d.RunsA = a.Median, len(a.Values)
	}
	if b != nil {
		d.B, d.RunsB = b.Median, len(b.Values)
	}
	if a != nil && b != nil {
		d.test(a, b)
	}
	return append(out, d)
}

func (d *Difference) test(a, b *Metric) {
	c := stat.Compare(a.Values, b.Values)
	d.Delta, d.Verdict = c.Delta, bench.VerdictTooFew
	if c.Enough {
		d.P, d.Verdict = c.P, bench.VerdictSame
	}
	if c.Differs {
		d.Verdict = bench.VerdictWorse
		if a.LowerIsBetter() == (d.B < d.A) {
			d.Verdict = bench.VerdictBetter
		}
	}
}

// Worse reports whether any difference is for the worse.
func Worse(list []Difference) bool {
	return slices.ContainsFunc(list, func(d Difference) bool { return d.Verdict == bench.VerdictWorse })
}

// CompareDocument shows the differences of two results: what changed first, then all.
func CompareDocument(nameA string, a *Results, nameB string, b *Results) *report.Document {
	list := Compare(a, b)
	changed := slices.DeleteFunc(slices.Clone(list), func(d Difference) bool {
		return d.Verdict != bench.VerdictBetter && d.Verdict != bench.VerdictWorse
	})
	counts := map[string]int{}
	for _, d := range list {
		counts[d.Verdict]++
	}
	tested := counts[bench.VerdictBetter] + counts[bench.VerdictWorse] + counts[bench.VerdictSame]
	s := report.Section{Title: "What changed", Text: []string{fmt.Sprintf("%d figures are better, %d worse, %d do not differ significantly, %d have too few runs to tell, %d are only in one.",
		counts[bench.VerdictBetter], counts[bench.VerdictWorse], counts[bench.VerdictSame], counts[bench.VerdictTooFew], counts[bench.VerdictMissing])}}
	if tested > 0 {
		s.Text = append(s.Text, fmt.Sprintf("Of %d tests about %.0f differ by chance alone.", tested, float64(tested)*stat.Alpha))
	}
	if len(changed) > 0 {
		s.Items = []report.Item{differenceTable(changed)}
	}
	return &report.Document{
		Title: "Comparison of experiments", Facts: append(side("A", nameA, a, b), side("B", nameB, b, a)...),
		Sections: []report.Section{s, {Title: "Every cell", Items: []report.Item{differenceTable(slices.DeleteFunc(slices.Clone(list), func(d Difference) bool { return !d.headline() }))}}},
	}
}

// headline reports whether a figure is one that is shown of every cell, changed or not.
func (d *Difference) headline() bool {
	return d.Metric == "lat_p99" || d.Direction == Total && (d.Metric == MetricIOPS || d.Metric == "cost") || d.Metric == "stalls" && d.A+d.B > 0
}

// side names one of two results, and what of its environment is not like the other's.
func side(letter, name string, r, other *Results) []report.Fact {
	facts := []report.Fact{{Name: letter, Value: fmt.Sprintf("%s (%s, %s)", name, r.Experiment, r.Started.Format("2006-01-02 15:04"))}}
	if r.Environment.Accel != other.Environment.Accel {
		facts = append(facts, report.Fact{Name: letter + " guests run by", Value: r.Environment.Accel})
	}
	for _, f := range r.Environment.Facts {
		if !slices.Contains(other.Environment.Facts, f) {
			facts = append(facts, report.Fact{Name: letter + " " + f.Name, Value: f.Value})
		}
	}
	return facts
}

func differenceTable(list []Difference) *report.Table {
	t := &report.Table{Columns: []report.Column{{Name: "cell"}, {Name: "figure"}, {Name: "A"}, {Name: "B"}, {Name: "change", Unit: "%", Digits: 1}, {Name: "p", Digits: 4}, {Name: "runs"}, {Name: "verdict"}},
		Notes: []string{"Medians; p of the Mann-Whitney U test, which needs 4 runs on each side."}}
	for _, d := range list {
		var delta, p any
		if d.P >= 0 {
			p = d.P
		}
		if d.RunsA > 0 && d.RunsB > 0 {
			delta = d.Delta
		}
		t.Add(d.Cell, d.Direction+" "+d.Metric, shown(d.Metric, d.A, d.RunsA), shown(d.Metric, d.B, d.RunsB), delta, p, fmt.Sprintf("%d/%d", d.RunsA, d.RunsB), d.Verdict)
	}
	return t
}

// shown writes a metric's value in its unit; nil if there was no run.
func shown(metric string, v float64, runs int) any {
	m := Metric{Name: metric}
	switch {
	case runs == 0:
		return nil
	case metric == MetricBW:
		return bandwidth(v)
	case metric == "stall_longest", m.LowerIsBetter() && len(metric) > 4 && metric[:4] == "lat_":
		return duration(v)
	}
	return figures(v)
}
