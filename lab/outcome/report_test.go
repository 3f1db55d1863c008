package outcome

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/bench"
	"github.com/vmdisk/vmdisk/lab/spec"
	"github.com/vmdisk/vmdisk/report"
)

var update = flag.Bool("update", false, "write the golden files")

func text(t *testing.T, d *report.Document) string {
	t.Helper()
	var b bytes.Buffer
	if err := report.Text(&b, d); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if got != string(want) {
		t.Errorf("%s differs:\n%s", path, got)
	}
}

func TestTerminalReport(t *testing.T) {
	t.Parallel()
	golden(t, "six.txt", text(t, Document(sixCells(), Options{Sections: []report.Section{{Title: "Of the experiment itself", Text: []string{"The seed's own comparison."}}}})))
}

func TestComparisonReport(t *testing.T) {
	t.Parallel()
	a, b := compared()
	golden(t, "compare.txt", text(t, CompareDocument("before", a, "after", b)))
}

func TestWrite(t *testing.T) {
	t.Parallel()
	own := &report.Bars{Title: "Random writes", Groups: []string{"phy", "qdisk"}, Series: []report.BarSeries{{Name: "MiB/s", Values: []float64{1, 2}}}}
	dir := t.TempDir()
	gone := filepath.Join(dir, chartsFolder, "backing+4k+backing=removed-time.png")
	if err := errors.Join(os.Mkdir(filepath.Dir(gone), 0o755), os.WriteFile(gone, []byte("of an earlier report"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, sixCells(), Options{Charts: []NamedChart{{"randw-bw", own}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(gone); !os.IsNotExist(err) {
		t.Errorf("a chart of an earlier report: %v", err)
	}
	for _, name := range []string{"randw-bw.png", "randw-bw.svg", "report.html", "charts/backing+4k-iops.svg", "charts/backing+4k-iops.png", "charts/backing+4k-spread.png",
		"charts/backing+4k-latency-write.svg", "charts/backing+4k+backing=loop-time.png", "charts/backing+4k+backing=loop-host.svg", "results.csv", "results.json"} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "report.html"))
	if err != nil {
		t.Fatal(err)
	}
	// The experiment's, three of the workload, two of each cell.
	if n := bytes.Count(page, []byte(`<svg class="broad"`)); n != 1+3+6*2 {
		t.Errorf("%d charts in the page", n)
	}
	for _, part := range []string{"Random writes", "Not run here", "zpool is not installed", "soft lockup", "bs=4k", "too few repeats"} {
		if !bytes.Contains(page, []byte(part)) {
			t.Errorf("the page lacks %q", part)
		}
	}
}

// TestResultsJSON: results.json has the names that docs/json.md promises, and gives
// the results back where it is all that was kept.
func TestResultsJSON(t *testing.T) {
	t.Parallel()
	r := sixCells()
	dir := t.TempDir()
	if err := writeJSON(filepath.Join(dir, resultsFile), analyse(r, Options{}).json()); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Schema   int
		Cells    []map[string]json.RawMessage
		Verdicts []map[string]json.RawMessage
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"id", "sweep", "workload", "client", "nodes", "varied", "runs", "figures"} {
		if doc.Cells[0][key] == nil {
			t.Errorf("a cell lacks %q", key)
		}
	}
	for _, key := range []string{"sweep", "workload", "metric", "winner", "sure", "p", "ratio", "why", "worst", "cpu_ceiling", "text"} {
		if doc.Verdicts[0][key] == nil {
			t.Errorf("a verdict lacks %q", key)
		}
	}
	back, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := text(t, Document(back, Options{})), text(t, Document(r, Options{})); got != want {
		t.Errorf("read back it reports\n%s", got)
	}
}

// TestResultsCSV: each node of each run has its row, and the rows of a run add up to
// its total.
func TestResultsCSV(t *testing.T) {
	t.Parallel()
	r := sixCells()
	var b bytes.Buffer
	if err := report.CSV(&b, analyse(r, Options{}).csv()); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&b).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 1+6*3*4 {
		t.Fatalf("%d rows", len(rows))
	}
	column := func(name string) int { return slices.Index(rows[0], name) }
	var sum float64
	for _, row := range rows[1:] {
		if row[column("backing")] == "copy" && row[column("repeat")] == "2" {
			v, err := strconv.ParseFloat(row[column("iops")], 64)
			if err != nil || row[column("direction")] != "write" {
				t.Fatalf("%v: %v", row, err)
			}
			sum += v
		}
	}
	if want := r.Cells[0].Runs[1].Figures(); math.Abs(sum-want.IOPS) > 1e-6 {
		t.Errorf("the nodes' IOPS add up to %v, want %v", sum, want.IOPS)
	}
}

// TestSixtyCells: the page of a large experiment stays small enough to open, and its
// charts are not crowded.
func TestSixtyCells(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := report.HTML(&b, Page(sixtyCells(), Options{})); err != nil {
		t.Fatal(err)
	}
	if b.Len() > 8<<20 {
		t.Errorf("%d bytes", b.Len())
	}
	page := b.String()
	if n := strings.Count(page, `<details class="fold">`); n < 60 {
		t.Errorf("%d folded parts", n)
	}
	_, latency, _ := strings.Cut(page, "the 4 cells with the most IOPS and the 4 with the least")
	if latency == "" {
		t.Error("sixty lines in one chart")
	}
}

// TestMixedDirections: reads and writes have percentiles of their own.
func TestMixedDirections(t *testing.T) {
	t.Parallel()
	r := madeResults(2, made{backing: "copy", iops: around(1000, 2)})
	for i := range r.Cells[0].Runs {
		for j := range r.Cells[0].Runs[i].Nodes {
			w := &r.Cells[0].Runs[i].Nodes[j].Window
			w[0] = w[1]
		}
	}
	out := text(t, Document(r, Options{}))
	for _, c := range []string{"read p99", "write p99"} {
		if !strings.Contains(out, c) {
			t.Errorf("no %s in\n%s", c, out)
		}
	}
}

// compared are two results: one cell is faster, one slower, one the same, one ran too
// seldom, and one is only in the first.
func compared() (a, b *Results) {
	a = madeResults(2, made{backing: "copy", iops: around(1000, 5)}, made{backing: "reflink", iops: around(2000, 5)}, made{backing: "loop", iops: around(500, 5)},
		made{backing: "lvm", iops: around(600, 3)}, made{backing: "tmpfs", iops: around(9000, 5)})
	b = madeResults(2, made{backing: "copy", iops: around(1200, 5)}, made{backing: "reflink", iops: around(1500, 5)}, made{backing: "loop", iops: around(500, 5)},
		made{backing: "lvm", iops: around(900, 3)})
	b.Environment.Facts = []Fact{{Name: "CPU", Value: "Lab CPU"}, {Name: "kernel", Value: "6.12.0"}}
	return a, b
}

func TestCompare(t *testing.T) {
	t.Parallel()
	a, b := compared()
	list := Compare(a, b)
	find := func(backing, direction, metric string) Difference {
		i := slices.IndexFunc(list, func(d Difference) bool {
			return d.Cell == "backing/4k/backing="+backing && d.Direction == direction && d.Metric == metric
		})
		if i < 0 {
			t.Fatalf("nothing of %s %s %s", backing, direction, metric)
		}
		return list[i]
	}
	for _, c := range []struct{ backing, direction, metric, want string }{
		{"copy", Total, "iops", bench.VerdictBetter},
		{"copy", "write", "lat_p99", bench.VerdictBetter},
		{"reflink", Total, "bw", bench.VerdictWorse},
		{"reflink", "write", "lat_mean", bench.VerdictWorse},
		{"loop", Total, "iops", bench.VerdictSame},
		{"lvm", Total, "iops", bench.VerdictTooFew},
		{"tmpfs", Total, "iops", bench.VerdictMissing},
	} {
		if d := find(c.backing, c.direction, c.metric); d.Verdict != c.want {
			t.Errorf("%+v, want %q", d, c.want)
		}
	}
	if d := find("copy", Total, "iops"); math.Abs(d.Delta-20) > 2 || d.RunsA != 5 || d.P < 0 {
		t.Errorf("%+v", d)
	}
	if !Worse(list) || Worse(Compare(a, a)) {
		t.Error("Worse")
	}
	for _, d := range Compare(b, a) {
		if d.Cell == "backing/4k/backing=tmpfs" && (d.Verdict != bench.VerdictMissing || d.RunsB != 5 || d.RunsA != 0) {
			t.Errorf("%+v", d)
		}
	}
}

// TestCompareMoreCostIsWorse: figures of which less is better.
func TestCompareMoreCostIsWorse(t *testing.T) {
	t.Parallel()
	a := madeResults(1, made{backing: "copy", iops: around(1000, 5), host: 0.4})
	b := madeResults(1, made{backing: "copy", iops: around(1000, 5), host: 0.8})
	for _, d := range Compare(a, b) {
		if d.Metric == "cost" && d.Verdict != bench.VerdictWorse {
			t.Errorf("%+v", d)
		}
		if d.Metric == "host_busy" {
			t.Error("how busy the host is is neither better nor worse")
		}
	}
}

func TestLabel(t *testing.T) {
	t.Parallel()
	c := Cell{ID: "x", Varied: []spec.Value{{Axis: "backing", Value: "copy"}, {Axis: "iothread", Value: "on"}}}
	if got := c.Label(); got != "backing=copy iothread=on" {
		t.Error(got)
	}
}
