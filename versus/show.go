package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"time"

	"github.com/vmdisk/vmdisk/report"
)

// show formats a value of a unit for people.
func show(unit Unit, v float64) string {
	switch unit {
	case Rate:
		return fmt.Sprintf("%.0f /s", v)
	case Seconds:
		return fmt.Sprintf("%.3f s", v)
	case Bytes:
		return fmt.Sprintf("%.1f MiB", v/(1<<20))
	}
	return fmt.Sprintf("%g", v)
}

// table shows the runs of a case and what became of its goals.
func table(res Result) *report.Table {
	cpu := "CPU s"
	if res.Unit == Rate {
		cpu = "CPU us/op"
	}
	t := &report.Table{Title: res.Case + ": " + res.What, Columns: []report.Column{
		{Name: "contender"}, {Name: "median"}, {Name: "lowest"}, {Name: "highest"}, {Name: "vs best peer", Unit: "x", Digits: 2},
		{Name: "client " + cpu, Digits: 2}, {Name: "server " + cpu, Digits: 2}, {Name: "peak", Unit: "MiB", Digits: 0}, {Name: "runs"},
	}}
	best, found := rival(Goal{}, res.Unit, res.Runs)
	for _, r := range res.Runs {
		if len(r.Samples) == 0 {
			t.Notes = append(t.Notes, r.Name+": "+orElse(r.Err, "did not run"))
			continue
		}
		versus := math.NaN()
		if found {
			versus = ratio(r, best, Value)
		}
		v := values(r, Value)
		t.Add(r.Name, show(res.Unit, median(v)), show(res.Unit, slices.Min(v)), show(res.Unit, slices.Max(v)), versus,
			cpuCell(res.Unit, r, ClientCPU), cpuCell(res.Unit, r, ServerCPU), peak(r), len(r.Samples))
	}
	for _, v := range res.Goals {
		t.Notes = append(t.Notes, verdictLine(v, res.Unit))
	}
	if res.Err != "" {
		t.Notes = append(t.Notes, "FAILED: "+res.Err)
	}
	if res.Skip != "" {
		t.Notes = append(t.Notes, res.Skip)
	}
	return t
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func cpuCell(unit Unit, r Run, m Metric) float64 {
	v := median(values(r, m))
	if v == 0 {
		return math.NaN()
	}
	if unit == Rate {
		return v * 1e6
	}
	return v
}

func peak(r Run) float64 {
	var top int64
	for _, s := range r.Samples {
		top = max(top, s.RSS)
	}
	if top == 0 {
		return math.NaN()
	}
	return float64(top) / (1 << 20)
}

func verdictLine(v Verdict, unit Unit) string {
	if !v.Known {
		return "unknown: " + v.Goal + ": nothing to compare with"
	}
	word := "MISSED"
	if v.Met {
		word = "met"
	}
	if v.Peer == "" {
		return fmt.Sprintf("%s: %s: %s", word, v.Goal, show(unit, v.Actual))
	}
	return fmt.Sprintf("%s: %s of %s: %.3fx", word, v.Goal, v.Peer, v.Actual)
}

// summary lists the goals of all cases in one table.
func summary(results []Result) *report.Table {
	t := &report.Table{Title: "Goals", Columns: []report.Column{
		{Name: "case"}, {Name: "goal"}, {Name: "against"}, {Name: "measured"}, {Name: ""},
	}}
	met, all := 0, 0
	for _, res := range results {
		for _, v := range res.Goals {
			all++
			word, actual := "MISSED", fmt.Sprintf("%.3fx", v.Actual)
			if v.Peer == "" {
				actual = show(res.Unit, v.Actual)
			}
			if v.Met {
				met++
				word = "met"
			}
			if !v.Known {
				word, actual = "unknown", "-"
			}
			t.Add(res.Case, v.Goal, v.Peer, actual, word)
		}
		if res.Err != "" {
			t.Add(res.Case, "runs", "", "-", "FAILED")
		}
		if res.Skip != "" {
			t.Add(res.Case, "runs", "", "-", res.Skip)
		}
	}
	t.Notes = append(t.Notes, fmt.Sprintf("%d of %d goals met", met, all))
	return t
}

// record is the JSON file of a run.
type record struct {
	Time    time.Time         `json:"time"`
	Facts   map[string]string `json:"facts"`
	Results []Result          `json:"results"`
}

func writeJSON(path string, facts []report.Fact, results []Result) error {
	rec := record{Time: time.Now().UTC(), Facts: map[string]string{}, Results: results}
	for _, f := range facts {
		rec.Facts[f.Name] = f.Value
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(f)
	enc.SetIndent("", "  ")
	return errors.Join(enc.Encode(rec), f.Close())
}

func showItem(w io.Writer, it report.Item) {
	if err := report.TextItem(w, it); err != nil {
		_, _ = fmt.Fprintln(w, err)
	}
	_, _ = fmt.Fprintln(w)
}
