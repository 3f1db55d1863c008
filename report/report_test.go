package report_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"flag"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/report"
)

var update = flag.Bool("update", false, "write the golden files")

func sample() *report.Document {
	table := &report.Table{
		Title:   "Copies",
		Columns: []report.Column{{Name: "strategy"}, {Name: "time", Unit: "s", Digits: 2}, {Name: "writes"}, {Name: "safe"}},
		Notes:   []string{"- is no value"},
	}
	table.Add("straight", 4.4, 100, true)
	table.Add("pre-zero <A>", math.NaN(), int64(50), false)
	table.Add("short")
	return &report.Document{
		Title: "A study & its charts",
		Facts: []report.Fact{{"machine", "two cores"}, {"kernel", "6.1 </script>"}},
		Sections: []report.Section{{
			Title: "All of it", Text: []string{"One paragraph."},
			Items: []report.Item{table, bars(), lines(), histogram(), boxes(), &report.Listing{Title: "job", Body: "[a]\nrw=read\n"}},
		}},
	}
}

func bars() *report.Bars {
	return &report.Bars{Title: "Time", Y: report.Axis{Label: "seconds"}, Digits: 1, Groups: []string{"A", "B"},
		Series: []report.BarSeries{{"write", []float64{4, 4}}, {"auto", []float64{2, math.NaN()}}, {"none", nil}}}
}

func lines() *report.Lines {
	return &report.Lines{Title: "Bandwidth", X: report.Axis{Label: "s"}, Y: report.Axis{Label: "MiB/s", Zero: true},
		Series: []report.Series{{"a", []report.Point{{0, 10}, {1, 20}, {2, 0}}}, {"b", []report.Point{{0, 5}, {2, 7}}}, {"empty", nil}},
		Marks:  []report.Mark{{Start: 1.5, End: 2, Label: "stall", Series: "a"}}}
}

func histogram() *report.Histogram {
	return &report.Histogram{Title: "Latency", X: report.Axis{Label: "us", Log: true},
		Bins: []report.Bin{{0, 1, 1}, {1, 10, 90}, {10, 100, 9}}}
}

func boxes() *report.Boxes {
	return &report.Boxes{Title: "IOPS", Y: report.Axis{Label: "IOPS", Log: true}, Groups: []report.Sample{{"x", []float64{3, 1, 2, 4}}, {"one", []float64{7}}, {"none", nil}}}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs:\n%s", path, got)
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := report.Text(&b, sample()); err != nil {
		t.Fatal(err)
	}
	golden(t, "sample.txt", b.Bytes())
}

func TestJSON(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := report.JSON(&b, sample()); err != nil {
		t.Fatal(err)
	}
	if !json.Valid(b.Bytes()) {
		t.Error("not JSON")
	}
	golden(t, "sample.json", b.Bytes())
}

func TestCSV(t *testing.T) {
	t.Parallel()
	for _, it := range sample().Sections[0].Items {
		var b bytes.Buffer
		if err := report.CSV(&b, it); err != nil {
			t.Fatal(err)
		}
		rows, err := csv.NewReader(&b).ReadAll()
		if err != nil || len(rows) != 1+len(it.Table().Rows) {
			t.Errorf("%s: %d rows, %v", it.Caption(), len(rows), err)
		}
	}
	var b bytes.Buffer
	if err := report.CSV(&b, bars()); err != nil {
		t.Fatal(err)
	}
	if got, want := b.String(), ",write,auto,none\nA,4,2,\nB,4,,\n"; got != want {
		t.Errorf("CSV of bars %q, want %q", got, want)
	}
}

func charts() []report.Chart { return []report.Chart{bars(), lines(), histogram(), boxes()} }

func wellFormed(t *testing.T, doc []byte) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(doc))
	for {
		if _, err := d.Token(); err == io.EOF {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestCharts(t *testing.T) {
	t.Parallel()
	for _, c := range charts() {
		var svg, img bytes.Buffer
		if err := report.SVG(&svg, c, report.Size{}); err != nil {
			t.Fatal(err)
		}
		wellFormed(t, svg.Bytes())
		if !strings.Contains(svg.String(), c.Caption()) {
			t.Errorf("%s: the SVG lacks its title", c.Caption())
		}
		if err := report.PNG(&img, c, report.Size{Width: 300, Height: 200}); err != nil {
			t.Fatal(err)
		}
		decoded, err := png.Decode(&img)
		if err != nil {
			t.Fatal(err)
		}
		if got := decoded.Bounds().Dx(); got != 600 {
			t.Errorf("%s: %d pixels wide, want 600", c.Caption(), got)
		}
	}
}

// TestChartsOfNothing: no data, one value, and values an axis cannot show are
// drawn as an empty plot, not a panic.
func TestChartsOfNothing(t *testing.T) {
	t.Parallel()
	inf := math.Inf(1)
	for _, c := range []report.Chart{
		&report.Bars{}, &report.Bars{Groups: []string{"a"}, Series: []report.BarSeries{{"s", []float64{inf}}}},
		&report.Lines{}, &report.Lines{X: report.Axis{Log: true}, Y: report.Axis{Log: true}, Series: []report.Series{{"s", []report.Point{{0, 0}, {-1, math.NaN()}}}}},
		&report.Lines{Series: []report.Series{{"s", []report.Point{{1, 1}}}}},
		&report.Lines{Marks: []report.Mark{{Start: 1}}},
		&report.Histogram{}, &report.Histogram{X: report.Axis{Log: true}, Bins: []report.Bin{{0, 0, 5}, {1, inf, 1}}},
		&report.Boxes{}, &report.Boxes{Groups: []report.Sample{{"s", []float64{inf}}}},
	} {
		if err := report.SVG(io.Discard, c, report.Size{}); err != nil {
			t.Errorf("%T: %v", c, err)
		}
		if err := report.TextItem(io.Discard, c); err != nil {
			t.Errorf("%T: %v", c, err)
		}
	}
}

func TestHTML(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := report.HTML(&b, sample()); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	if n := strings.Count(page, `<svg class="broad"`); n != len(charts()) {
		t.Errorf("%d charts in the page, want %d", n, len(charts()))
	}
	for _, bad := range []string{"src=\"http", "href=\"http", "url(http", "@import", "<link rel=\"stylesheet"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page loads something: %s", bad)
		}
	}
	if strings.Contains(page, "<A>") || strings.Count(page, "</script>") != 1 {
		t.Error("text of the document is not escaped")
	}
	_, data, _ := strings.Cut(page, `id="data">`)
	data, _, _ = strings.Cut(data, "</script>")
	var back struct {
		Title string
		Facts map[string]string
	}
	if err := json.Unmarshal([]byte(data), &back); err != nil || back.Title != sample().Title || back.Facts["kernel"] != "6.1 </script>" {
		t.Errorf("embedded data %+v, %v", back, err)
	}
}

func TestTextItem(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	h := &report.Histogram{Bins: []report.Bin{{0, 1, 0}}}
	if err := report.TextItem(&b, h); err != nil || !strings.Contains(b.String(), "count") {
		t.Errorf("%q, %v", b.String(), err)
	}
}
