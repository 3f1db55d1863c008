package outcome

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/lab/spec"
)

// Header says which experiment a folder holds.
type Header struct {
	Schema int    `json:"schema"`
	Name   string `json:"name"`
	// Fingerprint tells experiments apart whose runs may not be mixed: the same name
	// with other settings, another program, another host.
	Fingerprint string    `json:"fingerprint"`
	Spec        string    `json:"spec"` // the experiment's text
	Started     time.Time `json:"started"`
}

// Dir is the folder of an experiment's results:
//
//	experiment.json       the Header
//	plan.json             the Results without runs: cells, sweeps, environment
//	runs/CELL.REPEAT.json one finished run each
//
// One process at a time writes to it: Open takes it, Close gives it back.
type Dir struct {
	path   string
	lock   *os.File // the folder itself
	header Header
	notes  []string
}

const (
	headerFile  = "experiment.json"
	planFile    = "plan.json"
	resultsFile = "results.json"
	runsFolder  = "runs"
)

// Open makes the folder ready for runs of the experiment that want describes. A
// folder that already holds that experiment (the same fingerprint) keeps its runs
// and the time it started; one of another experiment, and one that another process
// writes to, is an error.
func Open(dir string, want Header) (d *Dir, err error) {
	want.Schema = Schema
	if err := os.MkdirAll(filepath.Join(dir, runsFolder), 0o777); err != nil {
		return nil, fmt.Errorf("folder for results: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close())
		}
	}()
	if err := removeUnfinished(dir); err != nil {
		return nil, err
	}
	have, err := readHeader(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return &Dir{path: dir, lock: lock, header: want}, writeJSON(filepath.Join(dir, headerFile), want)
	}
	if err != nil {
		return nil, fmt.Errorf("%w; use another folder (--out)", err)
	}
	if err := have.same(want, dir); err != nil {
		return nil, err
	}
	return &Dir{path: dir, lock: lock, header: *have}, nil
}

// same: runs of want may be added to those of h.
func (h *Header) same(want Header, dir string) error {
	switch {
	case h.Name != want.Name:
		return fmt.Errorf("%s holds results of the experiment %s, not of %s: use another folder (--out)", dir, h.Name, want.Name)
	case h.Fingerprint != want.Fingerprint:
		return fmt.Errorf("%s holds results of %s with other settings, begun %s: use another folder (--out), or the same settings to go on with it",
			dir, h.Name, h.Started.Format("2006-01-02 15:04"))
	}
	return nil
}

// lockDir keeps other processes out until the file is closed, where the file system
// has locks.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("folder for results: %w", err)
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == unix.EWOULDBLOCK {
		return nil, errors.Join(fmt.Errorf("another process writes results to %s: wait for it to end, or use another folder (--out)", dir), f.Close())
	}
	return f, nil
}

// Close lets other processes write to the folder.
func (d *Dir) Close() error { return d.lock.Close() }

// removeUnfinished removes what a killed process was writing.
func removeUnfinished(dir string) error {
	for _, folder := range []string{dir, filepath.Join(dir, runsFolder)} {
		left, err := filepath.Glob(filepath.Join(folder, ".*.json.*.tmp"))
		if err != nil {
			return err
		}
		for _, f := range left {
			if err := os.Remove(f); err != nil {
				return err
			}
		}
	}
	return nil
}

func readHeader(dir string) (*Header, error) {
	var h Header
	if err := readJSON(filepath.Join(dir, headerFile), &h); err != nil {
		return nil, err
	}
	if h.Schema > Schema {
		return nil, fmt.Errorf("%s was written by a newer vmdisk (schema %d, this one knows %d)", filepath.Join(dir, headerFile), h.Schema, Schema)
	}
	return &h, nil
}

// Header returns the header in force; Started is when the experiment was begun, not
// when it was resumed.
func (d *Dir) Header() Header { return d.header }

// Notes are what was found damaged so far, one sentence each.
func (d *Dir) Notes() []string { return d.notes }

// Plan keeps what is to be measured and where: r without its runs. The newest plan
// counts.
func (d *Dir) Plan(r *Results) error {
	plan := *r
	if plan.Environment.Before == nil { // nothing was left to run: what the runs were begun with counts
		var old Results
		if readJSON(filepath.Join(d.path, planFile), &old) == nil {
			plan.Environment.Before = old.Environment.Before
		}
	}
	plan.Cells = make([]Cell, len(r.Cells))
	for i, c := range r.Cells {
		c.Runs = nil
		plan.Cells[i] = c
	}
	return writeJSON(filepath.Join(d.path, planFile), &plan)
}

// savedRun is the content of a file in runs/.
type savedRun struct {
	Schema int    `json:"schema"`
	Cell   string `json:"cell"`
	Run    Run    `json:"run"`
}

func runFile(dir, cellID string, repeat int) string {
	return filepath.Join(dir, runsFolder, fmt.Sprintf("%s.%d.json", spec.Cell{ID: cellID}.FileName(), repeat))
}

// Done returns a run that was saved, whole, in this process or an earlier one. A
// file that is damaged counts as not done; a note says so.
func (d *Dir) Done(cellID string, repeat int) (Run, bool) {
	run, err := readRun(d.path, cellID, repeat)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			d.notes = append(d.notes, fmt.Sprintf("a finished run is measured again: %v", err))
		}
		return Run{}, false
	}
	return *run, true
}

func readRun(dir, cellID string, repeat int) (*Run, error) {
	path := runFile(dir, cellID, repeat)
	var s savedRun
	if err := readJSON(path, &s); err != nil {
		return nil, err
	}
	if s.Schema != Schema || s.Cell != cellID || s.Run.Repeat != repeat {
		return nil, fmt.Errorf("%s is of cell %q, repeat %d, schema %d", path, s.Cell, s.Run.Repeat, s.Schema)
	}
	if err := s.Run.check(); err != nil {
		return nil, fmt.Errorf("%s cannot be: %w", path, err)
	}
	return &s.Run, nil
}

// Save keeps a run. When it returns without an error the run survives a crash of
// the host; an interrupted Save leaves nothing that counts.
func (d *Dir) Save(cellID string, run Run) error {
	return writeJSON(runFile(d.path, cellID, run.Repeat), savedRun{Schema, cellID, run})
}

// Results reads everything that the folder holds, as [Load] does.
func (d *Dir) Results() (*Results, error) { return Load(d.path) }

// writeJSON writes a file that is whole or not there.
func writeJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return replace(path, func(f *os.File) error {
		_, err := f.Write(append(text, '\n'))
		return err
	})
}

// replace writes a new file beside path, makes it durable and gives it the name.
func replace(path string, write func(*os.File) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err = write(f); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err = errors.Join(f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func readJSON(path string, v any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s is damaged: %s", path, strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}
