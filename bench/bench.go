package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"

	"github.com/vmdisk/vmdisk/bench/engine"
	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/bench/layout"
	"github.com/vmdisk/vmdisk/bench/result"
	"github.com/vmdisk/vmdisk/disk"
)

// Request is what to run.
type Request struct {
	// Files are job files; Args are fio's command-line form, --name=… and so on.
	Files, Args []string
	// Set are OPTION=VALUE that win over every job's own.
	Set []string
	// Sections, if not empty, keeps the jobs with these names.
	Sections []string
	// Strict reads job files exactly as fio does.
	Strict bool

	// Target is the URL of the disk that all jobs work on, "" if they name files.
	Target string
	// Local: Target is a file or device of this host, whose way of opening
	// (direct or not) matters, and LocalPath its path. Other targets stay open over
	// the whole run, since RAM disks would forget.
	Local     bool
	LocalPath string
	// Open opens Target ("") or a file that a job names.
	Open func(context.Context, engine.OpenRequest) (*disk.Disk, error)
	// Force lets jobs write to devices in use. ReadOnly refuses jobs that write.
	Force, ReadOnly bool
	// Repeat runs everything so many times (0 is 1); job files are then shuffled
	// in each round.
	Repeat  int
	Version string
	// Stdin is read for the job file "-".
	Stdin    io.Reader
	stdin    []byte
	Progress func(engine.Status)
	// Gate, if not nil, is called in each round when files are laid out and disks and
	// queues are open; the first I/O is issued when it returns. Its error ends the
	// run as an interruption does.
	Gate func(context.Context) error
}

// unit is what runs as one: all job files, or one of them in repeated runs.
type unit struct {
	plan *jobfile.Plan
	text []result.JobText
	runs []*result.Run
}

// Plan reads and resolves everything without running it.
func Plan(q *Request) (*jobfile.Plan, error) {
	u, err := q.read(q.Files, q.Args)
	if err != nil {
		return nil, err
	}
	return u.plan, nil
}

// CommandLine is what the request's job files and options are as one command line.
func CommandLine(q *Request) (string, error) {
	p := jobfile.Parser{Strict: q.Strict, Only: q.Sections}
	for _, name := range q.Files {
		data, err := q.text(name)
		if err != nil {
			return "", fmt.Errorf("cannot read job file: %w", err)
		}
		if err := p.Bytes(name, data); err != nil {
			return "", err
		}
	}
	if err := p.Args(q.Args); err != nil {
		return "", err
	}
	return p.CommandLine(), nil
}

func (q *Request) read(files, args []string) (*unit, error) {
	p := jobfile.Parser{Strict: q.Strict, Only: q.Sections}
	u := &unit{}
	for _, name := range files {
		data, err := q.text(name)
		if err != nil {
			return nil, fmt.Errorf("cannot read job file: %w", err)
		}
		if err := p.Bytes(name, data); err != nil {
			return nil, err
		}
		u.text = append(u.text, result.JobText{Name: name, Text: string(data)})
	}
	if len(args) > 0 {
		if err := p.Args(args); err != nil {
			return nil, err
		}
		u.text = append(u.text, result.JobText{Name: "command line", Text: strings.Join(args, " \\\n  ")})
	}
	set, err := settings(q.Set)
	if err != nil {
		return nil, err
	}
	if u.plan, err = p.Resolve(set, q.Target != ""); err != nil {
		return nil, err
	}
	q.noteDirect(u.plan)
	return u, q.checkWrites(u.plan)
}

// text reads a job file; "-" is Stdin, which is read once.
func (q *Request) text(name string) ([]byte, error) {
	if name != "-" || q.Stdin == nil {
		return os.ReadFile(name)
	}
	if q.stdin == nil {
		var err error
		if q.stdin, err = io.ReadAll(q.Stdin); err != nil {
			return nil, err
		}
	}
	return q.stdin, nil
}

// noteDirect says where direct=1 cannot mean anything.
func (q *Request) noteDirect(p *jobfile.Plan) {
	if q.Target == "" || q.Local {
		return
	}
	if i := slices.IndexFunc(p.Jobs, func(j *jobfile.Job) bool { return j.Direct }); i >= 0 {
		p.Notes = append(p.Notes, jobfile.Note{Pos: p.Jobs[i].Pos, Text: fmt.Sprintf("option direct has no effect: %s is no local file, and the page cache is not in its way", q.Target)})
	}
}

func settings(list []string) ([]jobfile.Setting, error) {
	var out []jobfile.Setting
	for _, s := range list {
		name, value, ok := strings.Cut(s, "=")
		if name == "" {
			return nil, fmt.Errorf("--set %q is not of the form OPTION=VALUE", s)
		}
		out = append(out, jobfile.Setting{Name: name, Value: value, HasValue: ok, Pos: jobfile.Pos{File: "--set"}})
	}
	return out, nil
}

func (q *Request) checkWrites(p *jobfile.Plan) error {
	for _, j := range p.Jobs {
		if q.ReadOnly && (j.Mode.Write || j.Mode.Trim) {
			return &jobfile.Error{Pos: j.Pos, Err: fmt.Errorf("job %s has rw=%s, which --readonly forbids", j.Name, j.Mode)}
		}
	}
	return nil
}

// Run runs the request. The outcome holds what was measured also where jobs
// failed (see result.Run.Failed); the error is for what kept the run from going on.
func Run(ctx context.Context, q *Request) (out *result.Run, err error) {
	units, err := q.units()
	if err != nil {
		return nil, err
	}
	k := &keeper{q: q}
	for _, u := range units {
		k.writes = k.writes || slices.ContainsFunc(u.plan.Jobs, func(j *jobfile.Job) bool { return j.Mode.Write || j.Mode.Trim })
	}
	defer func() { err = errors.Join(err, k.close()) }()
	for range max(q.Repeat, 1) {
		if q.Repeat > 1 {
			rand.Shuffle(len(units), func(i, j int) { units[i], units[j] = units[j], units[i] })
		}
		for _, u := range units {
			r, err := q.once(ctx, u, k)
			if r != nil {
				u.runs = append(u.runs, r)
			}
			if err != nil || ctx.Err() != nil || r.Failed() != nil {
				return q.combine(units), err
			}
		}
	}
	return q.combine(units), nil
}

// units splits a repeated run by job file, so that rounds can be shuffled.
func (q *Request) units() ([]*unit, error) {
	if q.Repeat <= 1 || len(q.Files) == 0 {
		u, err := q.read(q.Files, q.Args)
		if err != nil {
			return nil, err
		}
		return []*unit{u}, nil
	}
	var out []*unit
	number, group := 0, 0
	for i, f := range q.Files {
		var args []string
		if i == len(q.Files)-1 {
			args = q.Args
		}
		u, err := q.read([]string{f}, args)
		if err != nil {
			return nil, err
		}
		for _, j := range u.plan.Jobs {
			j.Number += number
			j.Group += group
		}
		last := u.plan.Jobs[len(u.plan.Jobs)-1]
		number, group = last.Number, last.Group+1
		out = append(out, u)
	}
	return out, nil
}

func (q *Request) once(ctx context.Context, u *unit, k *keeper) (*result.Run, error) {
	prep := &layout.Preparer{Force: q.Force}
	cfg := engine.Config{Plan: u.plan, OneDisk: q.Target != "", Open: q.Open, Progress: q.Progress, Gate: q.Gate, Strict: q.Strict,
		Devices: func(name string) []string {
			if name = q.path(name); name == "" {
				return nil
			}
			return layout.Devices(name)
		},
		Prepare: func(ctx context.Context, j *jobfile.Job, name string, size int64) error {
			switch {
			case name != "":
				return prep.Prepare(ctx, j, name, size)
			case q.Local:
				return prep.CheckUse(j, q.LocalPath)
			}
			return nil
		},
		Cleanup: prep.Remove,
	}
	if q.Target != "" && !q.Local {
		cfg.Open, cfg.Close = k.get, func(*disk.Disk) error { return nil }
	}
	r, err := engine.Run(ctx, cfg)
	if r != nil {
		r.Version, r.Target, r.JobFiles = q.Version, q.Target, u.text
	}
	return r, err
}

// path is the local path behind a job's file name, "" if there is none.
func (q *Request) path(name string) string {
	if name == "" && q.Local {
		return q.LocalPath
	}
	return name
}

func (q *Request) local(name string, f func(string) error) error {
	if name = q.path(name); name == "" {
		return nil
	}
	return f(name)
}

// keeper keeps targets open between phases and rounds.
type keeper struct {
	q      *Request
	writes bool
	open   *disk.Disk
}

func (k *keeper) get(ctx context.Context, o engine.OpenRequest) (d *disk.Disk, err error) {
	if k.open == nil {
		o.Write = k.writes
		k.open, err = k.q.Open(ctx, o)
	}
	return k.open, err
}

func (k *keeper) close() error {
	if k.open == nil {
		return nil
	}
	return k.open.Close()
}

// combine makes one outcome of all: of each unit the run whose I/O rate is the
// median, with the figures of all rounds beside.
func (q *Request) combine(units []*unit) *result.Run {
	slices.SortFunc(units, func(a, b *unit) int { return a.plan.Jobs[0].Number - b.plan.Jobs[0].Number })
	var out *result.Run
	for _, u := range units {
		if len(u.runs) == 0 {
			continue
		}
		samples := cells(u.runs)
		m := medianRun(u.runs)
		if out == nil {
			out = m
		} else {
			out.Jobs = append(out.Jobs, m.Jobs...)
			out.Notes = append(out.Notes, m.Notes...)
			out.Bounds = append(out.Bounds, m.Bounds...)
			out.JobFiles = append(out.JobFiles, m.JobFiles...)
			out.Elapsed += m.Elapsed
		}
		if len(u.runs) > 1 {
			out.Samples = append(out.Samples, samples...)
		}
	}
	return out
}

func medianRun(runs []*result.Run) *result.Run {
	sorted := slices.Clone(runs)
	slices.SortStableFunc(sorted, func(a, b *result.Run) int {
		switch d := totalIOPS(a) - totalIOPS(b); {
		case d < 0:
			return -1
		case d > 0:
			return 1
		}
		return 0
	})
	return sorted[len(sorted)/2]
}

func totalIOPS(r *result.Run) float64 {
	sum := 0.0
	for _, j := range r.Jobs {
		for d := range j.Dirs {
			sum += j.Dirs[d].IOPSMean()
		}
	}
	return sum
}

// cells collects the figures of each job over runs.
func cells(runs []*result.Run) []result.Cell {
	var out []result.Cell
	index := map[[3]string]int{}
	for _, r := range runs {
		for _, f := range figures(r) {
			key := [3]string{f.Job, f.Dir, f.Metric}
			i, ok := index[key]
			if !ok {
				i = len(out)
				index[key] = i
				out = append(out, result.Cell{Job: f.Job, Dir: f.Dir, Metric: f.Metric})
			}
			out[i].Values = append(out[i].Values, f.Values...)
		}
	}
	return out
}

// figures are one value for each job, direction and metric of a run.
func figures(r *result.Run) []result.Cell {
	var out []result.Cell
	names := map[string]int{}
	for _, j := range r.Groups() {
		name := numbered(names, j.Spec.Name)
		for d := range j.Dirs {
			dir := &j.Dirs[d]
			if dir.IOs == 0 {
				continue
			}
			p := dir.Clat.Percentiles([]float64{50, 99})
			for metric, v := range map[string]float64{"iops": dir.IOPSMean(), "bw": dir.BWBytes(), "lat_mean": dir.Clat.Mean(), "lat_p50": float64(p[0]), "lat_p99": float64(p[1])} {
				out = append(out, result.Cell{Job: name, Dir: jobfile.DirNames[d], Metric: metric, Values: []float64{v}})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b result.Cell) int {
		return strings.Compare(a.Job+"\x00"+a.Dir+"\x00"+a.Metric, b.Job+"\x00"+b.Dir+"\x00"+b.Metric)
	})
	return out
}

// numbered tells jobs of equal names apart: the second is NAME#2.
func numbered(seen map[string]int, name string) string {
	seen[name]++
	if n := seen[name]; n > 1 {
		return fmt.Sprintf("%s#%d", name, n)
	}
	return name
}
