package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vmdisk/vmdisk/bench/result"
	"github.com/vmdisk/vmdisk/bench/stat"
	"github.com/vmdisk/vmdisk/report"
)

// Load reads the figures of a run from JSON, vmdisk's own or fio's. name is a
// file, several joined by commas, or a folder of *.json; each file is one run
// (or one repeated run) of the same jobs.
func Load(name string) ([]result.Cell, error) {
	files, err := jsonFiles(name)
	if err != nil {
		return nil, err
	}
	var all []result.Cell
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		cells, err := parseResult(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		for _, c := range cells {
			i := slices.IndexFunc(all, func(o result.Cell) bool { return o.Job == c.Job && o.Dir == c.Dir && o.Metric == c.Metric })
			if i < 0 {
				all = append(all, c)
				continue
			}
			all[i].Values = append(all[i].Values, c.Values...)
		}
	}
	return all, nil
}

func jsonFiles(name string) ([]string, error) {
	if st, err := os.Stat(name); err == nil && st.IsDir() {
		files, err := filepath.Glob(filepath.Join(name, "*.json"))
		if err == nil && len(files) == 0 {
			err = fmt.Errorf("%s has no *.json", name)
		}
		return files, err
	}
	if _, err := os.Stat(name); err == nil {
		return []string{name}, nil
	}
	return strings.Split(name, ","), nil
}

// The part of fio's JSON that is compared.
type fioRun struct {
	Jobs []struct {
		Name  string `json:"jobname"`
		Read  fioDir `json:"read"`
		Write fioDir `json:"write"`
		Trim  fioDir `json:"trim"`
	} `json:"jobs"`
	Own struct {
		Samples []struct {
			Job    string    `json:"job"`
			Dir    string    `json:"direction"`
			Metric string    `json:"metric"`
			Values []float64 `json:"values"`
		} `json:"samples"`
	} `json:"vmdisk"`
}

type fioDir struct {
	IOs  uint64  `json:"total_ios"`
	IOPS float64 `json:"iops"`
	BW   float64 `json:"bw_bytes"`
	Clat struct {
		Mean       float64            `json:"mean"`
		Percentile map[string]float64 `json:"percentile"`
	} `json:"clat_ns"`
}

var errNoResult = errors.New("not the JSON output of vmdisk bench or fio")

func parseResult(data []byte) ([]result.Cell, error) {
	// fio writes its warnings before the JSON.
	if i := bytes.IndexByte(data, '{'); i >= 0 {
		data = data[i:]
	}
	var r fioRun
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&r); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoResult, err)
	}
	if len(r.Jobs) == 0 {
		return nil, errNoResult
	}
	var out []result.Cell
	for _, s := range r.Own.Samples {
		out = append(out, result.Cell{Job: s.Job, Dir: s.Dir, Metric: s.Metric, Values: s.Values})
	}
	if len(out) > 0 {
		return out, nil
	}
	names := map[string]int{}
	for i := range r.Jobs {
		j := &r.Jobs[i]
		name := numbered(names, j.Name)
		out = append(out, j.Read.cells(name, "read")...)
		out = append(out, j.Write.cells(name, "write")...)
		out = append(out, j.Trim.cells(name, "trim")...)
	}
	return out, nil
}

func (d *fioDir) cells(job, dir string) []result.Cell {
	if d.IOs == 0 {
		return nil
	}
	cell := func(metric string, v float64) result.Cell {
		return result.Cell{Job: job, Dir: dir, Metric: metric, Values: []float64{v}}
	}
	out := []result.Cell{cell("iops", d.IOPS), cell("bw", d.BW), cell("lat_mean", d.Clat.Mean)}
	for _, p := range []struct {
		metric string
		value  float64
	}{{"lat_p50", 50}, {"lat_p99", 99}} {
		for k, v := range d.Clat.Percentile {
			if f, err := strconv.ParseFloat(k, 64); err == nil && f == p.value {
				out = append(out, cell(p.metric, v))
			}
		}
	}
	return out
}

// Difference is one cell of a comparison.
type Difference struct {
	Job       string  `json:"job"`
	Direction string  `json:"direction"`
	Metric    string  `json:"metric"`
	A         float64 `json:"a"`
	B         float64 `json:"b"`
	RunsA     int     `json:"runs_a"`
	RunsB     int     `json:"runs_b"`
	Delta     float64 `json:"delta_percent"`
	P         float64 `json:"p"` // -1: too few runs for a test
	Verdict   string  `json:"verdict"`
}

// The verdicts of a Difference.
const (
	VerdictBetter  = "better"
	VerdictWorse   = "worse"
	VerdictSame    = "no significant difference"
	VerdictTooFew  = "too few runs to tell"
	VerdictMissing = "only in one"
)

// Compare compares the runs of b with those of a, cell by cell. Two cells differ
// when the Mann-Whitney U test says that chance alone would seldom (p < 0.05) part
// them so.
func Compare(a, b []result.Cell) []Difference {
	var out []Difference
	for _, ca := range a {
		i := slices.IndexFunc(b, func(o result.Cell) bool { return o.Job == ca.Job && o.Dir == ca.Dir && o.Metric == ca.Metric })
		if i < 0 {
			out = append(out, missing(ca, true))
			continue
		}
		c := stat.Compare(ca.Values, b[i].Values)
		d := Difference{Job: ca.Job, Direction: ca.Dir, Metric: ca.Metric, A: c.A.Median, B: c.B.Median, RunsA: c.A.N, RunsB: c.B.N, Delta: c.Delta, P: -1, Verdict: VerdictTooFew}
		if c.Enough {
			d.P, d.Verdict = c.P, VerdictSame
		}
		if c.Differs {
			d.Verdict = VerdictWorse
			if lower := strings.HasPrefix(ca.Metric, "lat"); lower == (c.Delta < 0) {
				d.Verdict = VerdictBetter
			}
		}
		out = append(out, d)
	}
	for _, cb := range b {
		if !slices.ContainsFunc(a, func(o result.Cell) bool { return o.Job == cb.Job && o.Dir == cb.Dir && o.Metric == cb.Metric }) {
			out = append(out, missing(cb, false))
		}
	}
	return out
}

func missing(c result.Cell, inA bool) Difference {
	d := Difference{Job: c.Job, Direction: c.Dir, Metric: c.Metric, P: -1, Verdict: VerdictMissing}
	if s := stat.Summarize(c.Values); inA {
		d.A, d.RunsA = s.Median, s.N
	} else {
		d.B, d.RunsB = s.Median, s.N
	}
	return d
}

// CompareTable shows differences as a table.
func CompareTable(list []Difference) *report.Table {
	t := &report.Table{Title: "Comparison", Columns: []report.Column{{Name: "job"}, {Name: "direction"}, {Name: "figure"}, {Name: "A", Digits: 2}, {Name: "B", Digits: 2},
		{Name: "change", Unit: "%", Digits: 2}, {Name: "p", Digits: 4}, {Name: "runs"}, {Name: "verdict"}},
		Notes: []string{"medians; bw in MiB/s, latencies in µs; p of the Mann-Whitney U test, which needs 4 runs on each side"}}
	for _, d := range list {
		var p any
		if d.P >= 0 {
			p = d.P
		}
		div := 1.0
		switch {
		case d.Metric == "bw":
			div = 1 << 20
		case strings.HasPrefix(d.Metric, "lat"):
			div = 1e3
		}
		t.Add(d.Job, d.Direction, d.Metric, d.A/div, d.B/div, d.Delta, p, fmt.Sprintf("%d/%d", d.RunsA, d.RunsB), d.Verdict)
	}
	return t
}
