package report

import (
	"fmt"
	"io"
	"math"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// barWidth is the length in characters of the longest bar in text.
const barWidth = 40

// Text writes a document for a terminal.
func Text(w io.Writer, d *Document) error {
	var b strings.Builder
	if d.Title != "" {
		fmt.Fprintf(&b, "%s\n%s\n", d.Title, strings.Repeat("=", utf8.RuneCountInString(d.Title)))
	}
	b.WriteString(d.Answer.text())
	for _, s := range d.Sections {
		b.WriteByte('\n')
		if s.Title != "" {
			line := "-"
			if s.Sub {
				line = "·"
			}
			fmt.Fprintf(&b, "%s\n%s\n", s.Title, strings.Repeat(line, utf8.RuneCountInString(s.Title)))
		}
		for _, p := range s.Text {
			fmt.Fprintf(&b, "%s\n", p)
		}
		for _, it := range s.Items {
			b.WriteByte('\n')
			b.WriteString(itemText(it))
		}
	}
	b.WriteString(factsText(d.Facts))
	_, err := io.WriteString(w, b.String())
	return err
}

// answerWidth is where the lines of an answer are broken.
const answerWidth = 96

// text is the answer in a box for a terminal.
func (a Answer) text() string {
	var lines []string
	for _, t := range a.Text {
		lines = append(lines, strings.Split(text.WrapSoft(t, answerWidth), "\n")...)
	}
	for _, w := range a.Warnings {
		lines = append(lines, strings.Split(text.WrapSoft("Warning: "+w, answerWidth), "\n")...)
	}
	if len(lines) == 0 {
		return ""
	}
	width := 0
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, " ")
		width = max(width, utf8.RuneCountInString(lines[i]))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "╭─%s─╮\n", strings.Repeat("─", width))
	for _, l := range lines {
		fmt.Fprintf(&b, "│ %s │\n", text.Pad(l, width, ' '))
	}
	fmt.Fprintf(&b, "╰─%s─╯\n", strings.Repeat("─", width))
	return b.String()
}

func factsText(facts []Fact) string {
	if len(facts) == 0 {
		return ""
	}
	width := 0
	for _, f := range facts {
		width = max(width, utf8.RuneCountInString(f.Name))
	}
	var b strings.Builder
	b.WriteString("\nEnvironment\n-----------\n")
	for _, f := range facts {
		fmt.Fprintf(&b, "%s  %s\n", text.Pad(f.Name, width, ' '), f.Value)
	}
	return b.String()
}

// TextItem writes one item for a terminal.
func TextItem(w io.Writer, it Item) error {
	_, err := io.WriteString(w, itemText(it))
	return err
}

func itemText(it Item) string {
	switch it := it.(type) {
	case *Bars:
		return title(it.Title, it.Y.Label) + barsText(it)
	case *Histogram:
		return title(it.Title, it.X.Label) + histogramText(it)
	case *Lines:
		return title(it.Title, it.Y.Label) + linesText(it)
	case *Listing:
		return title(it.Title, "") + strings.TrimRight(it.Body, "\n") + "\n"
	}
	t := it.Table()
	return title(t.Title, "") + tableText(t)
}

func title(s, unit string) string {
	switch {
	case s == "":
		return ""
	case unit == "":
		return s + "\n"
	}
	return s + " (" + unit + ")\n"
}

func tableText(t *Table) string {
	w := table.NewWriter()
	style := table.StyleLight
	style.Options = table.Options{SeparateHeader: true, DrawBorder: false, SeparateColumns: false}
	style.Format.Header = text.FormatDefault
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	w.SetStyle(style)
	head := make(table.Row, len(t.Columns))
	configs := make([]table.ColumnConfig, len(t.Columns))
	for i, c := range t.Columns {
		head[i] = c.heading()
		configs[i] = table.ColumnConfig{Number: i + 1}
		if t.numeric(i) {
			configs[i].Align, configs[i].AlignHeader = text.AlignRight, text.AlignRight
		}
	}
	w.AppendHeader(head)
	w.SetColumnConfigs(configs)
	for _, r := range t.Rows {
		row := make(table.Row, len(t.Columns))
		for i := range t.Columns {
			row[i] = t.cell(r, i)
		}
		w.AppendRow(row)
	}
	var b strings.Builder
	for _, line := range strings.Split(w.Render(), "\n") {
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	for _, n := range t.Notes {
		b.WriteString(n + "\n")
	}
	return b.String()
}

func (c Column) heading() string {
	if c.Unit == "" {
		return c.Name
	}
	return strings.TrimSpace(c.Name + " " + c.Unit)
}

// numeric reports whether column i holds numbers only.
func (t *Table) numeric(i int) bool {
	some := false
	for _, r := range t.Rows {
		if i >= len(r) || r[i] == nil {
			continue
		}
		switch reflect.TypeOf(r[i]).Kind() {
		case reflect.String, reflect.Bool:
			return false
		}
		some = true
	}
	return some
}

// cell formats cell i of a row; "-" where there is no value.
func (t *Table) cell(row []any, i int) string {
	if i >= len(row) || row[i] == nil {
		return "-"
	}
	switch v := row[i].(type) {
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return "-"
		}
		return strconv.FormatFloat(v, 'f', t.Columns[i].Digits, 64)
	default:
		return fmt.Sprint(v)
	}
}

// bar draws v of top as blocks, at least a sliver for anything above 0.
func bar(v, top float64) string {
	if !(v > 0) || !(top > 0) || math.IsInf(top, 0) {
		return ""
	}
	eighths := int(math.Round(v / top * barWidth * 8))
	s := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		s += string([]rune("▏▎▍▌▋▊▉")[rest-1])
	}
	if s == "" {
		s = "▏"
	}
	return s
}

func barsText(c *Bars) string {
	var top float64
	label := 0
	for _, s := range c.Series {
		label = max(label, utf8.RuneCountInString(s.Name))
		for _, v := range s.Values {
			if !math.IsNaN(v) && !math.IsInf(v, 0) {
				top = max(top, v)
			}
		}
	}
	var b strings.Builder
	for i, g := range c.Groups {
		fmt.Fprintf(&b, "%s\n", g)
		for _, s := range c.Series {
			if i >= len(s.Values) || math.IsNaN(s.Values[i]) {
				continue
			}
			fmt.Fprintf(&b, "  %s  %s %.*f\n", text.Pad(s.Name, label, ' '), bar(s.Values[i], top), c.Digits, s.Values[i])
		}
	}
	return b.String()
}

func histogramText(h *Histogram) string {
	var top float64
	for _, b := range h.Bins {
		top = max(top, float64(b.Count))
	}
	t := h.Table()
	t.Columns = append(t.Columns, Column{})
	for i, b := range h.Bins {
		t.Rows[i] = append(t.Rows[i], bar(float64(b.Count), top))
	}
	return tableText(t)
}

func linesText(l *Lines) string {
	t := &Table{Columns: []Column{{Name: ""}, {Name: "points"}, {Name: "min", Digits: l.Digits},
		{Name: "mean", Digits: l.Digits}, {Name: "max", Digits: l.Digits}, {Name: "course"}}}
	for _, s := range l.Series {
		lo, hi, sum := math.Inf(1), math.Inf(-1), 0.0
		for _, p := range s.Points {
			lo, hi, sum = min(lo, p.Y), max(hi, p.Y), sum+p.Y
		}
		t.Add(s.Name, len(s.Points), lo, sum/float64(len(s.Points)), hi, sparkline(s.Points, hi))
	}
	t.Notes = l.notes()
	if l.Y.Label != "" {
		t.Notes = t.Notes[1:] // the title has the unit
	}
	return tableText(t)
}

// sparkline draws the means of up to barWidth equal parts of a series against 0..top.
func sparkline(points []Point, top float64) string {
	n := min(len(points), barWidth)
	levels := []rune("▁▂▃▄▅▆▇█")
	var b strings.Builder
	for i := range n {
		part := points[i*len(points)/n : (i+1)*len(points)/n]
		sum := 0.0
		for _, p := range part {
			sum += p.Y
		}
		at := 0
		if top > 0 {
			at = int(sum / float64(len(part)) / top * float64(len(levels)-1))
		}
		b.WriteRune(levels[max(0, min(at, len(levels)-1))])
	}
	return b.String()
}
