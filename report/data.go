package report

import (
	"fmt"
	"math"
	"sort"
)

// Document is a report: a title, what it was made on, and sections in order.
type Document struct {
	Title string
	// Answer, where there is one, stands before all else, in a box.
	Answer Answer
	// Facts describe the run (machine, versions, parameters), shown as a list behind the sections.
	Facts    []Fact
	Sections []Section
}

// Fact is one name and value.
type Fact struct{ Name, Value string }

// Section is a titled part of a document.
type Section struct {
	Title string
	// Sub makes it a part of the section before it.
	Sub bool
	// Fold lets a page show no more than the title until the reader opens it.
	Fold bool
	// Text holds paragraphs, shown before the items.
	Text  []string
	Items []Item
}

// Item is anything that a section can hold.
type Item interface {
	// Caption returns the item's title.
	Caption() string
	// Table returns the item's numbers as a table, the form that Text, CSV and a
	// reader who wants the numbers use.
	Table() *Table
}

// Chart is an item that SVG and PNG can draw.
type Chart interface {
	Item
	draw(p *figure) error
}

// Answer is what a reader should know first: the answer in a few sentences, and what
// makes it doubtful.
type Answer struct {
	Text     []string
	Warnings []string
}

// Column describes one column of a table.
type Column struct {
	Name string
	// Unit is shown behind the name ("s", "MiB/s"), may be empty.
	Unit string
	// Digits is the number of decimals of float64 cells.
	Digits int
}

// Table is rows of cells. A cell is a string, bool, any integer, float64, or
// nil where there is no value. NaN and infinities are shown as no value.
type Table struct {
	Title   string
	Columns []Column
	Rows    [][]any
	// Notes are lines below the table.
	Notes []string
}

// Caption implements [Item].
func (t *Table) Caption() string { return t.Title }

// Table implements [Item].
func (t *Table) Table() *Table { return t }

// Add appends a row.
func (t *Table) Add(cells ...any) { t.Rows = append(t.Rows, cells) }

// Axis names one axis of a chart.
type Axis struct {
	Label string
	// Log draws a logarithmic axis; values <= 0 are left out there.
	Log bool
	// Zero makes a linear axis begin at 0.
	Zero bool
	// Scale says what the values are; the zero value is plain numbers.
	Scale Scale
}

// Scale is what the values of an axis are, which decides how they are placed and labelled.
type Scale int

// Scales.
const (
	// Plain numbers; large ones are labelled with k, M or G.
	Plain Scale = iota
	// Percentiles are numbers from 0 to below 100. The steps from 90 to 99 and from 99 to 99.9
	// have the same length, because the rare values are what a reader looks for.
	Percentiles
	// Microseconds are labelled with the unit that suits: 50 µs, 2 ms, 1 s.
	Microseconds
)

// Bars is a bar chart: one bar of each series in each group.
type Bars struct {
	Title  string
	Y      Axis
	Groups []string
	Series []BarSeries
	// Digits is the number of decimals shown.
	Digits int

	colours colours
}

// BarSeries is one colour of a bar chart. Values has one value per group; NaN
// where there is none.
type BarSeries struct {
	Name   string
	Values []float64
}

// Caption implements [Item].
func (b *Bars) Caption() string { return b.Title }

// Table implements [Item]: a row per group, a column per series.
func (b *Bars) Table() *Table {
	t := &Table{Title: b.Title, Columns: []Column{{Name: ""}}}
	for _, s := range b.Series {
		t.Columns = append(t.Columns, Column{Name: s.Name, Digits: b.Digits})
	}
	if b.Y.Label != "" {
		t.Notes = []string{"values: " + b.Y.Label}
	}
	for i, g := range b.Groups {
		row := []any{g}
		for _, s := range b.Series {
			row = append(row, at(s.Values, i))
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// Point is one sample of a series.
type Point struct{ X, Y float64 }

// Series is one line of a chart, in order of X.
type Series struct {
	Name   string
	Points []Point
}

// Mark is a stretch of the x axis to point out, such as a stall; End may equal
// Start. It belongs to a series where Series is that series' name.
type Mark struct {
	Start, End float64
	Label      string
	Series     string
}

// Lines is a line chart: bandwidth over time, latency percentiles.
type Lines struct {
	Title  string
	X, Y   Axis
	Series []Series
	Marks  []Mark
	// Digits is the number of decimals shown.
	Digits int

	colours colours
}

// Caption implements [Item].
func (l *Lines) Caption() string { return l.Title }

// Table implements [Item]: a row per x, a column per series.
func (l *Lines) Table() *Table {
	t := &Table{Title: l.Title, Columns: []Column{{Name: l.X.Label, Digits: l.Digits}}}
	rows := map[float64][]any{}
	for i, s := range l.Series {
		t.Columns = append(t.Columns, Column{Name: s.Name, Digits: l.Digits})
		for _, p := range s.Points {
			if rows[p.X] == nil {
				rows[p.X] = make([]any, 1+len(l.Series))
				rows[p.X][0] = p.X
			}
			rows[p.X][1+i] = p.Y
		}
	}
	xs := make([]float64, 0, len(rows))
	for x := range rows {
		xs = append(xs, x)
	}
	sort.Float64s(xs)
	for _, x := range xs {
		t.Rows = append(t.Rows, rows[x])
	}
	t.Notes = l.notes()
	return t
}

// manyMarks is how many marks are listed one by one; a chart with more shows them, and a list
// of hundreds of lines would hide all else.
const manyMarks = 12

// notes say what the values are and list the marks.
func (l *Lines) notes() []string {
	var out []string
	if l.Y.Label != "" {
		out = append(out, "values: "+l.Y.Label)
	}
	for i, m := range l.Marks {
		if i == manyMarks {
			return append(out, fmt.Sprintf("and %d more", len(l.Marks)-manyMarks))
		}
		out = append(out, m.note())
	}
	return out
}

func (m Mark) note() string {
	s := fmt.Sprintf("%s at %.4g", m.Label, m.Start)
	if m.End > m.Start {
		s += fmt.Sprintf(" for %.4g", m.End-m.Start)
	}
	if m.Series != "" {
		s += " in " + m.Series
	}
	return s
}

// Bin counts the values in [Lo, Hi).
type Bin struct {
	Lo, Hi float64
	Count  int64
}

// Histogram is a distribution in bins of any width, in order.
type Histogram struct {
	Title string
	X     Axis
	Bins  []Bin
}

// Caption implements [Item].
func (h *Histogram) Caption() string { return h.Title }

// Table implements [Item]: a row per bin with its share and the running total.
func (h *Histogram) Table() *Table {
	t := &Table{Title: h.Title, Columns: []Column{
		{Name: "from", Unit: h.X.Label, Digits: 3}, {Name: "to", Unit: h.X.Label, Digits: 3},
		{Name: "count"}, {Name: "share", Unit: "%", Digits: 2}, {Name: "total", Unit: "%", Digits: 2},
	}}
	var sum, run int64
	for _, b := range h.Bins {
		sum += b.Count
	}
	for _, b := range h.Bins {
		run += b.Count
		t.Add(b.Lo, b.Hi, b.Count, percent(b.Count, sum), percent(run, sum))
	}
	return t
}

// Boxes is a box plot: the spread of the samples of each group.
type Boxes struct {
	Title  string
	Y      Axis
	Groups []Sample
	// Digits is the number of decimals shown.
	Digits int

	colours colours
}

// Sample is a named set of values.
type Sample struct {
	Name   string
	Values []float64
}

// Caption implements [Item].
func (b *Boxes) Caption() string { return b.Title }

// Table implements [Item]: the five numbers of each box.
func (b *Boxes) Table() *Table {
	t := &Table{Title: b.Title, Columns: []Column{{Name: ""}, {Name: "n"}}}
	for _, c := range []string{"min", "q1", "median", "q3", "max"} {
		t.Columns = append(t.Columns, Column{Name: c, Digits: b.Digits})
	}
	for _, g := range b.Groups {
		v := append([]float64(nil), g.Values...)
		sort.Float64s(v)
		t.Add(g.Name, len(v), quantile(v, 0), quantile(v, 0.25), quantile(v, 0.5), quantile(v, 0.75), quantile(v, 1))
	}
	return t
}

// Listing is text to be shown as it is, such as a job file or a console log.
type Listing struct{ Title, Body string }

// Caption implements [Item].
func (l *Listing) Caption() string { return l.Title }

// Table implements [Item]: one row, one cell.
func (l *Listing) Table() *Table {
	return &Table{Title: l.Title, Columns: []Column{{Name: "text"}}, Rows: [][]any{{l.Body}}}
}

func at(v []float64, i int) any {
	if i < len(v) {
		return v[i]
	}
	return nil
}

func percent(n, of int64) float64 {
	if of == 0 {
		return 0
	}
	return 100 * float64(n) / float64(of)
}

// quantile of a sorted slice by linear interpolation; NaN of none.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	pos := q * float64(len(v)-1)
	i := int(pos)
	if i+1 >= len(v) {
		return v[len(v)-1]
	}
	return v[i] + (pos-float64(i))*(v[i+1]-v[i])
}
