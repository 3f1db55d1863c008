package lab

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/vmdisk/vmdisk/lab/outcome"
	"github.com/vmdisk/vmdisk/report"
)

// extra is what the report of a built-in experiment has beyond that of any other.
type extra struct {
	// raw is the folder for what the engines printed, a file for each node.
	raw     string
	options func(*outcome.Results) outcome.Options
}

var builtinExtras = map[string]extra{
	"falcon-backing": {"test1", falconExtras},
	"xen-backends":   {"raw", xenExtras},
}

// extras are the additions to the report of these results.
func extras(r *outcome.Results) outcome.Options {
	if x, ok := builtinExtras[r.Experiment]; ok {
		return x.options(r)
	}
	return outcome.Options{}
}

// writeRaw writes a file for each node with what its engine printed in every run,
// and a file "host" with who and what else the host was busy with right after.
func writeRaw(dir string, r *outcome.Results) error {
	folder := "raw"
	if x, ok := builtinExtras[r.Experiment]; ok {
		folder = x.raw
	}
	texts := map[string]*strings.Builder{}
	add := func(name, head, text string) {
		if texts[name] == nil {
			texts[name] = &strings.Builder{}
		}
		fmt.Fprintf(texts[name], "== %s\n%s\n", head, strings.TrimRight(text, "\n"))
	}
	for _, c := range r.Cells {
		for _, run := range c.Runs {
			head := fmt.Sprintf("%s, run %d", c.ID, run.Repeat)
			for _, n := range run.Nodes {
				if n.Result != nil {
					add(n.Name, head, n.Result.Text)
				}
			}
			if run.HostText != "" {
				add("host", head, run.HostText)
			}
		}
	}
	if len(texts) == 0 {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(dir, folder), 0o777); err != nil {
		return err
	}
	var errs []error
	for name, text := range texts {
		errs = append(errs, writeFile(filepath.Join(dir, folder, name), func(w io.Writer) error {
			_, err := io.WriteString(w, text.String())
			return err
		}))
	}
	return errors.Join(errs...)
}

// axisOf is a cell's value of an axis, "" if its sweep does not vary it.
func axisOf(c *outcome.Cell, axis string) string {
	for _, v := range c.Varied {
		if v.Axis == axis {
			return v.Value
		}
	}
	return ""
}

// median is a metric of all directions of a cell, NaN if no run counts.
func median(r *outcome.Results, c *outcome.Cell, direction, name string) float64 {
	if m := c.Figures(r.Environment.Accel).Metric(direction, name); m != nil {
		return m.Median
	}
	return math.NaN()
}

// original are the ratios of the files' bandwidth to the cloned volumes' in the Falcon VM
// backing tests of 2024, which falcon-backing repeats, by workload.
var original = map[string]string{"4k": "5.2", "512": "4.2"}

// falconExtras compares every backing with the full copy in a file.
func falconExtras(r *outcome.Results) outcome.Options {
	t := &report.Table{Title: "Bandwidth of all nodes, and the ratio of a file with a full copy to it", Columns: []report.Column{
		{Name: "blocks"}, {Name: "backing"}, {Name: "bandwidth", Unit: "MiB/s", Digits: 2}, {Name: "copy / this", Digits: 2}, {Name: "stalls"}, {Name: "together"},
	}}
	for _, w := range workloads(r) {
		files := math.NaN()
		for i := range r.Cells {
			if c := &r.Cells[i]; c.Workload == w && axisOf(c, "backing") == "copy" {
				files = median(r, c, "total", "bw")
			}
		}
		for i := range r.Cells {
			c := &r.Cells[i]
			if c.Workload != w || len(c.Counted()) == 0 || axisOf(c, "backing") == "" {
				continue
			}
			bw := median(r, c, "total", "bw")
			t.Add(w, axisOf(c, "backing"), bw/(1<<20), files/bw, int64(median(r, c, "total", "stalls")), int64(median(r, c, "total", "overlapping")))
		}
		if was := original[w]; was != "" {
			t.Notes = append(t.Notes, fmt.Sprintf("In the Falcon tests of 2024 (four guests on ZFS, files against clones of volumes) files were %s times as fast as clones with blocks of %s.", was, w))
		}
	}
	if len(t.Rows) == 0 {
		return outcome.Options{}
	}
	return outcome.Options{Sections: []report.Section{{Title: "Backings compared", Items: []report.Item{t}}}}
}

func workloads(r *outcome.Results) []string {
	var names []string
	seen := map[string]bool{}
	for _, c := range r.Cells {
		if !seen[c.Workload] {
			seen[c.Workload] = true
			names = append(names, c.Workload)
		}
	}
	return names
}

// xenExtras are the two pictures of the original, and the reads of the third test.
func xenExtras(r *outcome.Results) outcome.Options {
	var o outcome.Options
	for _, p := range []struct{ file, workload, title, direction, metric, label string }{
		{"randw-bw", "write", "Random writes of 64 KiB", "total", "bw", "MiB/s"},
		{"iometer-bw", "iometer", "IOMeter file server mix", "total", "bw", "MiB/s"},
		{"reader-p99", "reader", "99th percentile of the reads beside a stream of writes", "read", "lat_p99", "ms"},
	} {
		scale := 1.0 / (1 << 20)
		if p.label == "ms" {
			scale = 1e-6
		}
		b := &report.Bars{Title: p.title, Y: report.Axis{Label: p.label, Zero: true}, Digits: 2}
		for run := range r.Repeats {
			b.Series = append(b.Series, report.BarSeries{Name: fmt.Sprintf("run %d", run+1)})
		}
		for i := range r.Cells {
			addBars(r, &r.Cells[i], b, p.workload, p.direction, p.metric, scale)
		}
		if len(b.Groups) > 0 {
			o.Charts = append(o.Charts, outcome.NamedChart{Name: p.file, Chart: b})
		}
	}
	return o
}

func addBars(r *outcome.Results, c *outcome.Cell, b *report.Bars, workload, direction, metric string, scale float64) {
	if c.Workload != workload || len(c.Counted()) == 0 {
		return
	}
	m := c.Figures(r.Environment.Accel).Metric(direction, metric)
	if m == nil {
		return
	}
	b.Groups = append(b.Groups, c.Sweep+": "+c.Label())
	for i := range b.Series {
		v := math.NaN()
		if i < len(m.Values) {
			v = m.Values[i] * scale
		}
		b.Series[i].Values = append(b.Series[i].Values, v)
	}
}
