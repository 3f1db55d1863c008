package outcome

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vmdisk/vmdisk/lab/spec"
)

// Load reads the results of an experiment from its folder, finished or not: the
// plan with the runs that are there; or, where someone kept only that, results.json.
// Damaged runs are left out and noted. The latencies by interval and the
// engine's own output of each run, which make most of the files' size, stay on disk.
func Load(dir string) (*Results, error) {
	r := &Results{}
	err := readJSON(filepath.Join(dir, planFile), r)
	if errors.Is(err, fs.ErrNotExist) {
		return loadResults(dir)
	}
	if err != nil {
		return nil, err
	}
	if err := r.known(filepath.Join(dir, planFile)); err != nil {
		return nil, err
	}
	saved, err := savedRepeats(dir)
	if err != nil {
		return nil, err
	}
	for i := range r.Cells {
		c := &r.Cells[i]
		for _, repeat := range saved[spec.Cell{ID: c.ID}.FileName()] {
			r.loadRun(dir, c, repeat)
		}
	}
	r.Partial = slices.ContainsFunc(r.Cells, func(c Cell) bool { return len(c.Skipped) == 0 && len(c.Runs) < r.Repeats })
	return r, nil
}

func loadResults(dir string) (*Results, error) {
	path := filepath.Join(dir, resultsFile)
	r := &Results{}
	err := readJSON(path, r)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("results of an experiment: %w", err)
		}
		return nil, fmt.Errorf("%s holds no results of `vmdisk lab run` (neither %s nor %s)", dir, planFile, resultsFile)
	}
	if err != nil {
		return nil, err
	}
	return r, r.known(path)
}

// known reports an error unless r, read from path, is something this package wrote.
func (r *Results) known(path string) error {
	switch {
	case r.Schema == 0:
		return fmt.Errorf("%s is not of an experiment with cells, so it cannot be reported or compared", path)
	case r.Schema > Schema:
		return fmt.Errorf("%s was written by a newer vmdisk (schema %d, this one knows %d)", path, r.Schema, Schema)
	}
	return nil
}

// savedRepeats lists the repeats that are there for each cell, by the cell's file name.
func savedRepeats(dir string) (map[string][]int, error) {
	entries, err := os.ReadDir(filepath.Join(dir, runsFolder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	out := map[string][]int{}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		dot := strings.LastIndexByte(name, '.')
		if !ok || dot < 0 {
			continue
		}
		if n, err := strconv.Atoi(name[dot+1:]); err == nil {
			out[name[:dot]] = append(out[name[:dot]], n)
		}
	}
	for _, list := range out {
		slices.Sort(list)
	}
	return out, nil
}

func (r *Results) loadRun(dir string, c *Cell, repeat int) {
	run, err := readRun(dir, c.ID, repeat)
	if err != nil {
		r.Notes = append(r.Notes, fmt.Sprintf("a run is left out: %v", err))
		return
	}
	run.slim()
	c.Runs = append(c.Runs, *run)
}

// slim drops what the window's figures were made of.
func (run *Run) slim() {
	for i := range run.Nodes {
		res := run.Nodes[i].Result
		if res == nil {
			continue
		}
		res.JSON = nil
		for j := range res.Jobs {
			res.Jobs[j].Hists = nil
			for d := range res.Jobs[j].Dirs {
				res.Jobs[j].Dirs[d].Clat.Bins = nil
			}
		}
	}
}
