package outcome

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var header = Header{Name: "falcon-backing", Fingerprint: "f1", Spec: "name: falcon-backing\n", Started: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)}

// saved is a folder with all runs of r in it.
func saved(t *testing.T, r *Results) (string, *Dir) {
	t.Helper()
	path := t.TempDir()
	d, err := Open(path, header)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Plan(r); err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Cells {
		for _, run := range c.Runs {
			if err := d.Save(c.ID, run); err != nil {
				t.Fatal(err)
			}
		}
	}
	return path, d
}

// TestResume: what one process saved the next one finds, with the first one's begin.
func TestResume(t *testing.T) {
	t.Parallel()
	r := sixCells()
	path, first := saved(t, r)
	if _, err := Open(path, header); err == nil || !strings.Contains(err.Error(), "another process writes results to "+path) || strings.Contains(err.Error(), "\n") {
		t.Errorf("two at a time: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	later := header
	later.Started = later.Started.Add(time.Hour)
	d, err := Open(path, later)
	if err != nil {
		t.Fatal(err)
	}
	if !d.Header().Started.Equal(header.Started) {
		t.Errorf("started %v, want the first begin", d.Header().Started)
	}
	want := r.Cells[2].Runs[1]
	got, done := d.Done(r.Cells[2].ID, 2)
	if !done || got.Nodes[3].Window[1].IOPS != want.Nodes[3].Window[1].IOPS || len(got.Nodes[0].Result.Jobs[0].Hists) == 0 {
		t.Errorf("done %v: %+v", done, got)
	}
	if _, done := d.Done(r.Cells[2].ID, 4); done {
		t.Error("a repeat that was never saved is done")
	}
	if len(d.Notes()) != 0 {
		t.Errorf("notes %q", d.Notes())
	}
	all, err := d.Results()
	if err != nil {
		t.Fatal(err)
	}
	if all.Partial || len(all.Cells) != 7 || len(all.Cells[0].Runs) != 3 || all.Cells[3].Runs[1].Discarded == "" {
		t.Errorf("%d cells, partial %v", len(all.Cells), all.Partial)
	}
	if j := all.Cells[0].Runs[0].Nodes[0].Result; j.JSON != nil || j.Jobs[0].Hists != nil {
		t.Error("the bulk of a run is loaded")
	}
}

// TestDamagedRun: a file that is cut off, empty, or of another cell is a run to do
// again, and is left out of the results with a note.
func TestDamagedRun(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(text []byte) []byte{
		"cut off": func(text []byte) []byte { return text[:len(text)/2] },
		"empty":   func([]byte) []byte { return nil },
		"of another cell": func(text []byte) []byte {
			return []byte(strings.Replace(string(text), "backing=copy", "backing=loop", 1))
		},
		"an endless run": func(text []byte) []byte {
			return []byte(strings.Replace(string(text), `"took_ns":1000000000`, `"took_ns":9223372036854775807`, 1))
		},
		"other schema": func(text []byte) []byte { return []byte(strings.Replace(string(text), `"schema":1`, `"schema":99`, 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := madeResults(1, made{backing: "copy", iops: []float64{100, 101}})
			path, d := saved(t, r)
			file := runFile(path, r.Cells[0].ID, 2)
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, damage(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, done := d.Done(r.Cells[0].ID, 2); done {
				t.Error("it counts as done")
			}
			if _, done := d.Done(r.Cells[0].ID, 1); !done {
				t.Error("the other run is lost")
			}
			if n := d.Notes(); len(n) != 1 || !strings.Contains(n[0], file) {
				t.Errorf("notes %q", n)
			}
			all, err := Load(path)
			if err != nil {
				t.Fatal(err)
			}
			if !all.Partial || len(all.Cells[0].Runs) != 1 || len(all.Notes) != 1 {
				t.Errorf("partial %v, %d runs, notes %q", all.Partial, len(all.Cells[0].Runs), all.Notes)
			}
		})
	}
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		there Header
		want  string
	}{
		"other settings":   {Header{Name: header.Name, Fingerprint: "f2", Started: header.Started}, "with other settings, begun 2026-03-04 05:06: use another folder (--out), or the same settings"},
		"other experiment": {Header{Name: "tuning", Fingerprint: "f1"}, "holds results of the experiment tuning, not of falcon-backing: use another folder (--out)"},
	} {
		path := t.TempDir()
		there, err := Open(path, c.there)
		if err != nil {
			t.Fatal(err)
		}
		if err := there.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path, header); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, headerFile), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, header); err == nil || !strings.Contains(err.Error(), "experiment.json is damaged") || !strings.Contains(err.Error(), "--out") {
		t.Errorf("damaged header: %v", err)
	}
}

// TestUnfinishedSave: what a killed process was writing is removed and never counts.
func TestUnfinishedSave(t *testing.T) {
	t.Parallel()
	r := madeResults(1, made{backing: "copy", iops: []float64{100}})
	path, first := saved(t, r)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(path, runsFolder, "."+filepath.Base(runFile(path, r.Cells[0].ID, 2))+".123.tmp")
	if err := os.WriteFile(left, []byte(`{"schema":1`), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := Open(path, header)
	if err != nil {
		t.Fatal(err)
	}
	if _, done := d.Done(r.Cells[0].ID, 2); done {
		t.Error("it counts")
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestLoadErrors(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{
		"":                   "holds no results of `vmdisk lab run`",
		`{"rows":[]}`:        "not of an experiment with cells",
		`{"schema":99}`:      "newer vmdisk",
		`{"schema":1,"cells`: "results.json is damaged",
	} {
		path := t.TempDir()
		if content != "" {
			if err := os.WriteFile(filepath.Join(path, resultsFile), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", content, err, want)
		}
	}
	if _, err := Load(filepath.Join(t.TempDir(), "nosuch")); err == nil || !strings.Contains(err.Error(), "nosuch") {
		t.Errorf("no folder: %v", err)
	}
}
