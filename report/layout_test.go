package report_test

import (
	"bytes"
	"fmt"
	"image/png"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/report"
)

func svg(t *testing.T, c report.Chart) string {
	t.Helper()
	var b bytes.Buffer
	if err := report.SVG(&b, c, report.Size{}); err != nil {
		t.Fatal(err)
	}
	wellFormed(t, b.Bytes())
	return b.String()
}

// height is the drawing's height in points.
func height(t *testing.T, drawing string) float64 {
	t.Helper()
	m := regexp.MustCompile(`<svg width="[\d.]+pt" height="([\d.]+)pt"`).FindStringSubmatch(drawing)
	if m == nil {
		t.Fatalf("no height in %.200s", drawing)
	}
	h, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestManyGroups: sixty groups with long names lie one below the other, each with its
// name and value, in the order given, on a drawing that is high enough.
func TestManyGroups(t *testing.T) {
	t.Parallel()
	bars := &report.Bars{Title: "IOPS", Series: []report.BarSeries{{Name: "4k"}}}
	boxes := &report.Boxes{Title: "Spread"}
	for i := range 60 {
		name := fmt.Sprintf("backing=reflink cache=none n=%02d", i)
		bars.Groups = append(bars.Groups, name)
		bars.Series[0].Values = append(bars.Series[0].Values, float64(1000+i))
		boxes.Groups = append(boxes.Groups, report.Sample{Name: name, Values: []float64{1, 2, float64(3 + i)}})
	}
	for _, c := range []report.Chart{bars, boxes} {
		drawing := svg(t, c)
		if h := height(t, drawing); h < 60*15 {
			t.Errorf("%s: %.0f points high for 60 groups", c.Caption(), h)
		}
		y := func(s string) float64 {
			m := regexp.MustCompile(`<text[^>]* y="([-\d.]+)"[^>]*>` + regexp.QuoteMeta(s) + `<`).FindStringSubmatch(drawing)
			if m == nil {
				t.Fatalf("%s: no label %q", c.Caption(), s)
			}
			v, err := strconv.ParseFloat(m[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		if first, last := y("backing=reflink cache=none n=00"), y("backing=reflink cache=none n=59"); first >= last {
			t.Errorf("%s: the first group is drawn at %v, below the last at %v", c.Caption(), first, last)
		}
	}
	if drawing := svg(t, bars); !strings.Contains(drawing, ">1,059<") {
		t.Error("a bar lacks its value")
	}
	if h := height(t, svg(t, &report.Bars{Groups: []string{"a", "b"}, Series: []report.BarSeries{{Name: "s", Values: []float64{1, 2}}}})); h != 400 {
		t.Errorf("two groups are %.0f points high, want 400", h)
	}
}

// TestMarksOfSeries: a mark is drawn in the colour of its series, above the lines.
func TestMarksOfSeries(t *testing.T) {
	t.Parallel()
	l := lines()
	l.Marks = nil
	without := svg(t, l)
	l.Marks = []report.Mark{{Start: 0.5, End: 1, Label: "stall", Series: "b"}}
	with := svg(t, l)
	orange := "fill:#E69F00" // the second series
	if strings.Contains(without, orange) || strings.Count(with, orange) != 1 {
		t.Errorf("%d marks in the series' colour without marks, %d with one", strings.Count(without, orange), strings.Count(with, orange))
	}
}

// TestLegendBesideThePlot: what explains the lines hides none, however long the names.
func TestLegendBesideThePlot(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a", strings.Repeat("long ", 20)} {
		l := &report.Lines{Series: []report.Series{{Name: name, Points: []report.Point{{X: 0, Y: 1}, {X: 1, Y: 1}}}}}
		var b bytes.Buffer
		if err := report.PNG(&b, l, report.Size{}); err != nil {
			t.Fatal(err)
		}
		if _, err := png.Decode(&b); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(svg(t, l), strings.TrimSpace(name)) {
			t.Errorf("no legend for %q", name)
		}
	}
}

// TestPercentileAxis: the numbers of a chart of percentiles are percentiles, and the rare ones
// have room.
func TestPercentileAxis(t *testing.T) {
	t.Parallel()
	l := &report.Lines{Title: "latency", X: report.Axis{Label: "percentile", Scale: report.Percentiles}, Y: report.Axis{Label: "µs", Log: true, Scale: report.Microseconds},
		Series: []report.Series{{Name: "a", Points: []report.Point{{X: 50, Y: 10}, {X: 99, Y: 100}, {X: 99.99, Y: 5000}}}}}
	d := svg(t, l)
	for _, want := range []string{">50 %<", ">99 %<", ">99.99 %<", ">10 µs<", ">1 ms<"} {
		if !strings.Contains(d, want) {
			t.Errorf("no tick %s", want)
		}
	}
	if got := l.Table().Rows[2][0]; got != 99.99 {
		t.Errorf("the table begins its last row with %v", got)
	}
}

// TestMatchedColours: a name has one colour in all charts of a document.
func TestMatchedColours(t *testing.T) {
	t.Parallel()
	one := func(names ...string) *report.Lines {
		l := &report.Lines{}
		for _, n := range names {
			l.Series = append(l.Series, report.Series{Name: n, Points: []report.Point{{X: 0, Y: 1}, {X: 1, Y: 2}}})
		}
		return l
	}
	both, second := one("a", "b"), one("b")
	group := &report.Bars{Groups: []string{"c", "b"}, Series: []report.BarSeries{{Values: []float64{1, 2}}}}
	d := &report.Document{Sections: []report.Section{{Items: []report.Item{both, &report.Table{}, second}}, {Items: []report.Item{group}}}}
	d.MatchColours()
	orange, green := "#E69F00", "#009E73"
	if drawn := svg(t, second); !strings.Contains(drawn, orange) {
		t.Error("b alone has not the colour that it has beside a")
	}
	if drawn := svg(t, group); !strings.Contains(drawn, orange) || !strings.Contains(drawn, green) {
		t.Error("the bars have not the colours of their groups")
	}
}

// TestSmallBars: a bar that a linear axis would flatten is seen.
func TestSmallBars(t *testing.T) {
	t.Parallel()
	b := &report.Bars{Y: report.Axis{Label: "IOPS"}, Groups: []string{"a", "b"}, Series: []report.BarSeries{{Values: []float64{100, 100000}}}}
	d := svg(t, b)
	for _, want := range []string{"IOPS (logarithmic)", ">100,000<", ">10k<"} {
		if !strings.Contains(d, want) {
			t.Errorf("the chart lacks %s", want)
		}
	}
}

// TestPageOfCharts: drawings take the page's colours, and small screens have drawings of
// their own, but for what is folded away.
func TestPageOfCharts(t *testing.T) {
	t.Parallel()
	var page bytes.Buffer
	d := &report.Document{Title: "x", Answer: report.Answer{Text: []string{"Use a."}, Warnings: []string{"the host was busy"}}, Facts: []report.Fact{{Name: "CPU", Value: "z80"}},
		Sections: []report.Section{{Title: "One", Items: []report.Item{bars()}}, {Title: "Two", Fold: true, Items: []report.Item{lines()}}}}
	if err := report.HTML(&page, d); err != nil {
		t.Fatal(err)
	}
	s := page.String()
	_, body, _ := strings.Cut(s, "</style>")
	for want, n := range map[string]int{`class="broad"`: 2, `class="narrow"`: 1, "#0072B2": 0, "fill:#FFFFFF": 0} {
		if got := strings.Count(body, want); got != n {
			t.Errorf("%d times %s, want %d", got, want, n)
		}
	}
	answer, chart, facts := strings.Index(s, "Use a."), strings.Index(s, "<figure role"), strings.Index(s, "z80")
	if answer < 0 || answer > chart || chart > facts || !strings.Contains(s, "Warning: the host was busy") {
		t.Errorf("answer at %d, first chart at %d, environment at %d", answer, chart, facts)
	}
}

func TestFoldedSections(t *testing.T) {
	t.Parallel()
	d := &report.Document{Title: "x", Sections: []report.Section{
		{Title: "One"}, {Title: "Part", Sub: true, Fold: true, Text: []string{"inside"}, Items: []report.Item{bars()}}, {Title: "Two", Fold: true}, {Title: "Three"}, {Title: "Four"}}}
	var page, text bytes.Buffer
	if err := report.HTML(&page, d); err != nil {
		t.Fatal(err)
	}
	if err := report.Text(&text, d); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<details class=\"fold\"><summary><h3>Part</h3></summary>", "<summary><h2>Two</h2>", `<a href="#s1">One</a>`, `<section id="s2" class="sub">`} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if strings.Contains(page.String(), `<a href="#s2">`) {
		t.Error("a part of a section is in the contents")
	}
	if !strings.Contains(text.String(), "Part\n····\ninside\n") {
		t.Errorf("text:\n%s", text.String())
	}
}

// TestTextWidths: each text has the width that the layout gave it, in whatever font it
// is shown.
func TestTextWidths(t *testing.T) {
	t.Parallel()
	d := svg(t, &report.Bars{Title: "W & <text W>", Groups: []string{"iiii", "WWWW"}, Series: []report.BarSeries{{Name: "s", Values: []float64{1, 2}}}})
	width := func(label string) float64 {
		m := regexp.MustCompile(`<text textLength="([\d.]+)" [^>]*>` + regexp.QuoteMeta(label) + `<`).FindStringSubmatch(d)
		if m == nil {
			t.Fatalf("no width of %q", label)
		}
		v, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if narrow, wide := width("iiii"), width("WWWW"); wide < 3*narrow || wide > 60 {
		t.Errorf("iiii is %v points wide, WWWW %v", narrow, wide)
	}
	width("W &amp; &lt;text W&gt;")
}
