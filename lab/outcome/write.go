package outcome

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/report"
)

// chartsFolder holds the charts of all experiments; those of one's own
// ([Options].Charts) lie beside the page.
const chartsFolder = "charts"

// Write writes results.json, results.csv, report.html and every chart as SVG and PNG
// into a folder. Each file is whole or not there.
func Write(dir string, r *Results, o Options) error {
	a := analyse(r, o)
	if err := emptyCharts(filepath.Join(dir, chartsFolder)); err != nil {
		return fmt.Errorf("folder for charts: %w", err)
	}
	if err := writeJSON(filepath.Join(dir, resultsFile), a.json()); err != nil {
		return err
	}
	if err := writeWith(filepath.Join(dir, "results.csv"), func(w io.Writer) error { return report.CSV(w, a.csv()) }); err != nil {
		return err
	}
	doc, charts := a.page()
	if err := writeWith(filepath.Join(dir, "report.html"), func(w io.Writer) error { return report.HTML(w, doc) }); err != nil {
		return err
	}
	for _, c := range o.Charts {
		if err := writeChart(dir, c); err != nil {
			return err
		}
	}
	for _, c := range charts {
		if err := writeChart(filepath.Join(dir, chartsFolder), c); err != nil {
			return err
		}
	}
	return nil
}

// emptyCharts makes the folder, or removes an earlier report's charts: cells come and
// go with what the host has.
func emptyCharts(dir string) error {
	for _, pattern := range []string{"*.svg", "*.png"} {
		old, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		for _, f := range old {
			if err := os.Remove(f); err != nil {
				return err
			}
		}
	}
	return os.MkdirAll(dir, 0o777)
}

func writeChart(dir string, c NamedChart) error {
	path := filepath.Join(dir, c.Name)
	if err := writeWith(path+".svg", func(w io.Writer) error { return report.SVG(w, c.Chart, report.Size{}) }); err != nil {
		return err
	}
	return writeWith(path+".png", func(w io.Writer) error { return report.PNG(w, c.Chart, report.Size{}) })
}

// writeWith replaces a file; what can be made again need not survive a crash.
func writeWith(path string, write func(io.Writer) error) error {
	var b bytes.Buffer
	if err := write(&b); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}

// jsonResults is results.json: what was measured, with what follows from it.
type jsonResults struct {
	*Results
	Cells    []jsonCell `json:"cells"` // in place of those of Results
	Verdicts []Verdict  `json:"verdicts"`
}

type jsonCell struct {
	*Cell
	Figures *CellFigures `json:"figures,omitempty"`
}

func (a *analysis) json() jsonResults {
	out := jsonResults{Results: a.Results, Cells: []jsonCell{}, Verdicts: []Verdict{}}
	for i := range a.Cells {
		c := jsonCell{Cell: &a.Cells[i]}
		if f := a.cells[c.ID]; len(f.Runs) > 0 {
			c.Figures = f
		}
		out.Cells = append(out.Cells, c)
	}
	for i := range a.Sweeps {
		for j := range a.Sweeps[i].Workloads {
			out.Verdicts = append(out.Verdicts, a.verdicts(&a.Sweeps[i], &a.Sweeps[i].Workloads[j])...)
		}
	}
	return out
}

// csv has a row for each cell, repeat, node and direction with I/O.
func (a *analysis) csv() *report.Table {
	t := &report.Table{}
	axes := a.axes()
	for _, c := range slices.Concat([]string{"sweep", "workload", "client"}, axes, []string{"repeat", "discarded", "node", "direction", "ios", "iops", "bw_bytes",
		"lat_mean_ns", "lat_p50_ns", "lat_p95_ns", "lat_p99_ns", "lat_p99_9_ns", "lat_max_ns", "fio_bw_bytes", "stalls", "longest_stall_ns", "lockups",
		"node_cpu_busy", "host_busy", "host_load1", "window_s"}) {
		t.Columns = append(t.Columns, report.Column{Name: c})
	}
	for i := range a.Cells {
		c := &a.Cells[i]
		head := []any{c.Sweep, c.Workload, c.Client}
		for _, axis := range axes {
			head = append(head, c.axis(axis))
		}
		for j := range c.Runs {
			csvRun(t, head, &c.Runs[j])
		}
	}
	return t
}

// axes of all sweeps, each once.
func (a *analysis) axes() []string {
	var out []string
	for _, s := range a.Sweeps {
		for _, axis := range s.Axes {
			if !slices.Contains(out, axis) {
				out = append(out, axis)
			}
		}
	}
	return out
}

func csvRun(t *report.Table, head []any, run *Run) {
	for i := range run.Nodes {
		n := &run.Nodes[i]
		f := run.nodeFigures(i)
		for d, r := range f.Dirs {
			if r.IOs == 0 {
				continue
			}
			var fio, busy float64
			if n.Result != nil {
				busy = n.Result.CPUBusy
				for _, j := range n.Result.Jobs {
					fio += j.Dirs[d].BW
				}
			}
			row := append(slices.Clone(head), run.Repeat, run.Discarded, n.Name, jobfile.DirNames[d], r.IOs, r.IOPS, r.BW,
				r.Lat.Mean, r.Lat.P50, r.Lat.P95, r.Lat.P99, r.Lat.P999, r.Lat.Max, fio, f.Stalls, f.LongestStall, f.Lockups,
				busy, run.Host.Busy, run.Host.Load[0], float64(run.WindowNS)/1e9)
			t.Rows = append(t.Rows, row)
		}
	}
}
