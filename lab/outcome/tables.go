package outcome

import (
	"fmt"
	"math"
	"slices"

	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/report"
)

// cellTable has a row for each cell of a sweep under a workload.
func (a *analysis) cellTable(s *Sweep, cells []*Cell) *report.Table {
	t := &report.Table{Notes: []string{"Medians over the runs that count; CV is their standard deviation in percent of the mean; stalls are of all runs. Rates and latencies are of the time in which all nodes ran."}}
	for _, axis := range s.Axes {
		t.Columns = append(t.Columns, report.Column{Name: axis})
	}
	columns := a.columns(cells)
	var figures []*CellFigures
	for _, c := range columns {
		t.Columns = append(t.Columns, c.Column)
	}
	for _, c := range cells {
		f := a.cells[c.ID]
		figures = append(figures, f)
		var row []any
		for _, axis := range s.Axes {
			row = append(row, c.axis(axis))
		}
		for _, col := range columns {
			row = append(row, col.value(f))
		}
		t.Add(row...)
		t.Notes = append(t.Notes, runNotes(c, f)...)
	}
	t.Notes = append(t.Notes, heldNote(figures)...)
	return t
}

// heldNote is one sentence for what an overloaded host did to all nodes alike.
func heldNote(cells []*CellFigures) []string {
	var all Stalls
	for _, f := range cells {
		all.add(f.allStalls())
	}
	if all.Held == 0 {
		return nil
	}
	return []string{fmt.Sprintf("The CPUs were used up, which held all nodes up alike, %d times and for %s at most; only times of a second or more count as stalls then.", all.Held, duration(float64(all.HeldNS)))}
}

// axis is the cell's value of one axis, nil where the sweep does not have it.
func (c *Cell) axis(name string) any {
	for _, v := range c.Varied {
		if v.Axis == name {
			return v.Value
		}
	}
	return nil
}

func unsteady(f *CellFigures) string {
	if slices.ContainsFunc(f.counted, func(r *Run) bool { return r.Unsteady }) {
		return ", never steady"
	}
	return ""
}

// runNotes are what the runs of a cell have to say, each once.
func runNotes(c *Cell, f *CellFigures) []string {
	var out []string
	for _, run := range f.counted {
		for _, n := range run.Notes {
			if n = c.Label() + ": " + n; !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
	}
	return out
}

// column is one figure of the cell table.
type column struct {
	report.Column
	value func(*CellFigures) any
}

// columns are those that any of the cells has figures for.
func (a *analysis) columns(cells []*Cell) []column {
	all := []column{
		figure(report.Column{Name: "IOPS"}, Total, "iops", 1),
		figure(report.Column{Name: "bandwidth", Unit: "MiB/s", Digits: 2}, Total, "bw", 1<<20),
	}
	dirs := a.directions(cells)
	for _, d := range dirs {
		prefix := ""
		if len(dirs) > 1 {
			prefix = d + " "
		}
		all = append(all,
			latency(prefix+"p50", d, "lat_p50"), latency(prefix+"p99", d, "lat_p99"))
	}
	all = append(all, figure(report.Column{Name: "host CPU", Unit: "µs/IO", Digits: 1}, Total, "cost", 1))
	all = slices.DeleteFunc(all, func(c column) bool {
		return !slices.ContainsFunc(cells, func(cell *Cell) bool {
			v := c.value(a.cells[cell.ID])
			n, number := v.(float64)
			return v != nil && (!number || n != 0 && !math.IsNaN(n))
		})
	})
	all = append(all, column{report.Column{Name: "limit"}, func(f *CellFigures) any { return f.Limit.short() + unsteady(f) }})
	all = append(all, a.stallColumns(cells)...)
	all = append(all, column{report.Column{Name: "CV", Unit: "%", Digits: 1}, cvValue})
	if slices.ContainsFunc(cells, func(c *Cell) bool { return interval(a.cells[c.ID]) != nil }) {
		all = append(all, column{report.Column{Name: "95 % of IOPS"}, interval})
	}
	return append(all, column{report.Column{Name: "runs"}, func(f *CellFigures) any { return len(f.Runs) }})
}

// directions that any of the cells had I/O in.
func (a *analysis) directions(cells []*Cell) []string {
	var out []string
	for _, d := range jobfile.DirNames {
		if slices.ContainsFunc(cells, func(c *Cell) bool { return a.cells[c.ID].Metric(d, "iops") != nil }) {
			out = append(out, d)
		}
	}
	return out
}

func figure(c report.Column, direction, metric string, scale float64) column {
	return column{c, func(f *CellFigures) any { return f.median(direction, metric) / scale }}
}

// latency is a column of times, each in the unit that suits.
func latency(name, direction, metric string) column {
	return column{report.Column{Name: name}, func(f *CellFigures) any {
		v := f.median(direction, metric)
		if math.IsNaN(v) {
			return nil
		}
		return timeOrNone(v)
	}}
}

func cvValue(f *CellFigures) any {
	if m := f.Metric(Total, MetricIOPS); m != nil && len(m.Values) > 1 {
		return m.CV
	}
	return nil
}

func interval(f *CellFigures) any {
	if m := f.Metric(Total, MetricIOPS); m != nil && m.Lo != nil {
		return fmt.Sprintf("%.0f..%.0f", *m.Lo, *m.Hi)
	}
	return nil
}

// stallColumns are of all runs of a cell: how many stalls, the longest, how many met one
// of another node, and the times without a sign of life.
func (a *analysis) stallColumns(cells []*Cell) []column {
	var most Stalls
	for _, c := range cells {
		most.add(a.cells[c.ID].allStalls())
	}
	out := []column{
		{report.Column{Name: "stalls"}, func(f *CellFigures) any { return f.allStalls().Count }},
		{report.Column{Name: "longest stall"}, func(f *CellFigures) any { return timeOrNone(float64(f.allStalls().LongestNS)) }},
	}
	if slices.ContainsFunc(cells, func(c *Cell) bool { return c.Nodes > 1 }) {
		out = append(out, column{report.Column{Name: "together"}, func(f *CellFigures) any { return f.allStalls().Overlapping }})
	}
	if most.Lockups > 0 {
		out = append(out, column{report.Column{Name: "lockups"}, func(f *CellFigures) any { return f.allStalls().Lockups }},
			column{report.Column{Name: "longest lockup"}, func(f *CellFigures) any { return timeOrNone(float64(f.allStalls().LongestLockupNS)) }})
	}
	return out
}

// allStalls are those of all runs.
func (f *CellFigures) allStalls() Stalls {
	var s Stalls
	for _, r := range f.Runs {
		s.add(r.Stalls)
	}
	return s
}

// nodeTable has a row for each node of the run nearest to the median, and below it the
// host's load right after.
func nodeTable(c *Cell, f *CellFigures) *report.Table {
	run, host := f.Runs[f.Median], f.counted[f.Median].Host
	t := &report.Table{Title: c.Workload + ", " + c.Label(), Columns: []report.Column{{Name: "Node"}, {Name: "Bandwidth"}, {Name: "as fio counts it"}, {Name: "IOPS"},
		{Name: "mean"}, {Name: "p99"}, {Name: "stalls"}, {Name: "longest stall"}, {Name: "lockups"}}}
	for _, n := range run.Nodes {
		var mean float64
		var p99 int64
		for _, d := range n.Dirs {
			mean, p99 = max(mean, d.Lat.Mean), max(p99, d.Lat.P99)
		}
		t.Add(n.Name, bandwidth(n.BW), rateOrNone(n.FioBW), math.Round(n.IOPS), timeOrNone(mean), timeOrNone(float64(p99)), n.Stalls, timeOrNone(float64(n.LongestStall)), n.Lockups)
	}
	t.Notes = append(t.Notes, fmt.Sprintf("host load average: %.2f, %.2f, %.2f", host.Load[0], host.Load[1], host.Load[2]))
	if s := run.Stalls; s.Overlapping > 0 {
		t.Notes = append(t.Notes, fmt.Sprintf("%d of %d stalls met one of another node; the longest time that two or more nodes stood still together was %s, at most %d at once",
			s.Overlapping, s.Count, duration(float64(s.OverlapNS)), s.Most))
	}
	return t
}

func rateOrNone(v float64) any {
	if v == 0 {
		return nil
	}
	return bandwidth(v)
}

func timeOrNone(ns float64) any {
	if ns == 0 {
		return nil
	}
	return duration(ns)
}
