package outcome

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/lab/monitor"
	"github.com/vmdisk/vmdisk/lab/spec"
	"github.com/vmdisk/vmdisk/report"
)

// chartName is the name of a chart's files.
func chartName(id, what string) string { return spec.Cell{ID: id}.FileName() + "-" + what }

// workloadCharts compare the cells of a sweep under a workload.
func (a *analysis) workloadCharts(s *Sweep, w *Workload, cells []*Cell) []NamedChart {
	id, head := s.Name+"/"+w.Name, heading(a.Results, s, w)
	metric, unit, scale := MetricIOPS, "IOPS", 1.0
	if v := a.verdicts(s, w); len(v) > 0 && v[0].Metric == MetricBW {
		metric, unit, scale = MetricBW, "MiB/s", 1<<20
	}
	bars := &report.Bars{Title: head + ": " + unit + ", all nodes together", Y: report.Axis{Label: unit}, Digits: digits(a.median(cells, metric) / scale)}
	boxes := &report.Boxes{Title: head + ": " + unit + " of each run", Y: report.Axis{Label: unit}, Digits: bars.Digits}
	var values []float64
	repeats := 0
	for _, c := range cells {
		m := a.cells[c.ID].Metric(Total, metric)
		bars.Groups = append(bars.Groups, c.Label())
		values = append(values, m.Median/scale)
		sample := report.Sample{Name: c.Label()}
		for _, v := range m.Values {
			sample.Values = append(sample.Values, v/scale)
		}
		repeats = max(repeats, len(m.Values))
		boxes.Groups = append(boxes.Groups, sample)
	}
	bars.Series = []report.BarSeries{{Values: values}}
	out := []NamedChart{{chartName(id, metric), bars}}
	if repeats > 1 {
		out = append(out, NamedChart{chartName(id, "spread"), boxes})
	}
	return append(out, a.latencyCharts(id, head, cells)...)
}

// median of the cells' medians.
func (a *analysis) median(cells []*Cell, metric string) float64 {
	var all []float64
	for _, c := range cells {
		all = append(all, a.cells[c.ID].median(Total, metric))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// digits that numbers of this size are shown with.
func digits(v float64) int {
	switch {
	case v >= 100:
		return 0
	case v >= 10:
		return 1
	}
	return 2
}

// percentiles that charts show.
var percentiles = []float64{50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99}

// manyLines is how many lines of a chart can be told apart.
const manyLines = 8

// latencyCharts show for each direction how the latencies are distributed, of the
// histograms of all nodes and runs together.
func (a *analysis) latencyCharts(id, head string, cells []*Cell) []NamedChart {
	cells, which := a.extremes(cells)
	var out []NamedChart
	for d, dir := range jobfile.DirNames {
		l := &report.Lines{Title: fmt.Sprintf("%s: latency of %ss%s", head, dir, which), X: report.Axis{Label: "percentile", Scale: report.Percentiles}, Y: report.Axis{Label: "µs", Log: true, Scale: report.Microseconds}, Digits: 2}
		for _, c := range cells {
			h := a.cells[c.ID].merged(d)
			if h == nil {
				continue
			}
			s := report.Series{Name: c.Label()}
			for i, v := range h.Percentiles(percentiles) {
				// A percentile that fewer than one I/O is above is the maximum, again.
				if left := 1 - percentiles[i]/100; left*float64(h.N()) >= 1 {
					s.Points = append(s.Points, report.Point{X: percentiles[i], Y: float64(v) / 1e3})
				}
			}
			l.Series = append(l.Series, s)
		}
		if len(l.Series) > 0 {
			out = append(out, NamedChart{chartName(id, "latency-"+dir), l})
		}
	}
	return out
}

// extremes are the fastest and the slowest cells, where there are too many for one
// chart.
func (a *analysis) extremes(cells []*Cell) (shown []*Cell, which string) {
	if len(cells) <= manyLines {
		return cells, ""
	}
	sorted := slices.Clone(cells)
	slices.SortStableFunc(sorted, func(x, y *Cell) int {
		return cmp.Compare(a.cells[y.ID].median(Total, MetricIOPS), a.cells[x.ID].median(Total, MetricIOPS))
	})
	half := manyLines / 2
	return append(sorted[:half:half], sorted[len(sorted)-half:]...), fmt.Sprintf(" (the %d cells with the most IOPS and the %d with the least)", half, half)
}

// cellCharts show what happened over time in the run nearest to the median.
func cellCharts(c *Cell, f *CellFigures) []NamedChart {
	run := f.counted[f.Median]
	var out []NamedChart
	if l := bandwidthLines(c, run); l != nil {
		out = append(out, NamedChart{chartName(c.ID, "time"), l})
	}
	if l := hostLines(c, &run.Host); l != nil {
		out = append(out, NamedChart{chartName(c.ID, "host"), l})
	}
	return out
}

// bandwidthLines has a line for each node, with stalls and lockups as its marks.
func bandwidthLines(c *Cell, run *Run) *report.Lines {
	l := &report.Lines{Title: c.Workload + ", " + c.Label() + ": bandwidth of each node", X: report.Axis{Label: "s", Zero: true}, Y: report.Axis{Label: "MiB/s", Zero: true}, Digits: 2}
	g := newGrid(run)
	for i := range run.Nodes {
		n := &run.Nodes[i]
		if points := g.bandwidth(n); len(points) > 0 {
			l.Series = append(l.Series, report.Series{Name: n.Name, Points: points})
		}
		stalls, _ := run.stallsOf(i)
		for _, s := range stalls {
			l.Marks = append(l.Marks, mark(s, "stall", n.Name))
		}
		for _, s := range union(n.Silent) {
			l.Marks = append(l.Marks, mark(s, "no sign of life", n.Name))
		}
	}
	if len(l.Series) == 0 {
		return nil
	}
	return l
}

func mark(s span, label, series string) report.Mark {
	return report.Mark{Start: max(float64(s.from)/1e9, 0), End: float64(s.to) / 1e9, Label: label, Series: series}
}

func hostLines(c *Cell, h *monitor.Host) *report.Lines {
	if len(h.Points) == 0 {
		return nil
	}
	l := &report.Lines{Title: c.Workload + ", " + c.Label() + ": the host", X: report.Axis{Label: "s", Zero: true}, Y: report.Axis{Label: "%", Zero: true}, Digits: 1}
	for _, s := range []struct {
		name  string
		value func(*monitor.Point) float64
	}{
		{"CPUs busy", func(p *monitor.Point) float64 { return p.Busy }},
		{"waiting for I/O", func(p *monitor.Point) float64 { return p.IOWait }},
		{"stolen", func(p *monitor.Point) float64 { return p.Steal }},
		{"busiest device", func(p *monitor.Point) float64 { return p.Device }},
		{"all tasks wait for I/O", func(p *monitor.Point) float64 { return p.IOFull }},
	} {
		line := report.Series{Name: s.name}
		for i := range h.Points {
			line.Points = append(line.Points, report.Point{X: math.Round(float64(h.Points[i].AtNS)/1e7) / 100, Y: 100 * s.value(&h.Points[i])})
		}
		if slices.ContainsFunc(line.Points, func(p report.Point) bool { return p.Y > 0 }) {
			l.Series = append(l.Series, line)
		}
	}
	return l
}
