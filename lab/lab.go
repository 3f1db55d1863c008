package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/diskurl"
	"github.com/vmdisk/vmdisk/lab/spec"
	"github.com/vmdisk/vmdisk/report"
)

// Experiment is one thing that Run can do: a study with code of its own, or a
// matrix of cells that a YAML file describes.
type Experiment struct {
	Name    string
	Summary string // one line
	Params  []Param
	run     func(ctx context.Context, r *run) (*findings, error) // or
	file    string                                               // of a spec, or a built-in's name
}

// Matrix reports whether the experiment is made of cells; its runs are kept, and a
// stopped one goes on.
func (e Experiment) Matrix() bool { return e.file != "" }

// Param is a parameter of an experiment that --set changes.
type Param struct {
	Name    string
	Default string
	Help    string
}

// Options configures Run.
type Options struct {
	// Out is the folder for results; it is made where missing.
	Out string
	// Set changes parameters by name.
	Set map[string]string
	// Log, if not nil, gets one line per step.
	Log io.Writer

	// What follows is for experiments made of cells.

	// Work is the folder for disks, with room for them; "" is one below Out.
	Work string
	// DryRun only plans: what would run, what cannot and why, and how long it takes.
	DryRun bool
	// Vmdisk is the path of the program, which is also the guests' init and the
	// host's clients; "" is this process's own.
	Vmdisk string
	// Version of it: results of another version are not mixed with this one's.
	Version string
	// Event, if not nil, is told of each run that begins, instead of Log.
	Event func(Event)
	// Progress, if not nil, is called each second of a load, and at each step before it.
	Progress func(Progress)
}

// Event is a run that begins.
type Event struct {
	Step   int    `json:"step"` // from 1
	Steps  int    `json:"steps"`
	Cell   string `json:"cell"`
	Repeat int    `json:"repeat"`
	// Left is an estimate of the time until all is done, in nanoseconds.
	Left time.Duration `json:"left_ns"`
}

// String is the event as a line.
func (e Event) String() string {
	return fmt.Sprintf("%d/%d %s, run %d; about %s left", e.Step, e.Steps, e.Cell, e.Repeat, e.Left.Round(time.Second))
}

// Progress is how far the load of a run has come, and the rates of all its nodes; or, before
// the load, the step that begins.
type Progress struct {
	Doing   string        `json:"doing,omitempty"` // "boot 4 guests"
	Share   float64       `json:"share"`           // 0..1
	IOPS    float64       `json:"iops"`
	BW      float64       `json:"bytes_per_second"`
	Stalled time.Duration `json:"stalled_ns"` // the longest present stall
}

// studies are the experiments with code of their own, in the order of the list.
var studies = []Experiment{fastZero, imageioFastZero}

// Experiments lists what Run knows without a file.
func Experiments() []Experiment {
	all := slices.Clone(studies)
	for _, name := range spec.Builtin() {
		s, err := spec.Load(name)
		if err != nil {
			panic(err) // a test loads them all
		}
		all = append(all, ofSpec(name, s))
	}
	return all
}

// ofSpec is the experiment of a file, or a built-in one.
func ofSpec(file string, s *spec.Spec) Experiment {
	e := Experiment{Name: s.Name, Summary: s.Describe(s.Title), file: file}
	e.Params = append(e.Params,
		Param{"client", s.Client, "guest: virtual machines, or host: processes of this host"},
		Param{"nodes", fmt.Sprint(s.Nodes), "how many at the same time"},
		Param{"repeats", fmt.Sprint(s.Repeats), "runs of each cell; 5 or 6 are needed to tell several set-ups apart"},
		Param{"disk", diskurl.FormatSize(s.Disk.Size), "size of each node's disk"},
		Param{"sweeps", strings.Join(s.SweepNames(), ","), "those to run"},
		Param{"workloads", strings.Join(s.WorkloadNames(), ","), "those to run"},
	)
	for _, w := range s.Sweeps {
		for _, a := range w.Axes {
			e.Params = append(e.Params, Param{a.Name, strings.Join(a.Values, ","), "axis of " + w.Name})
		}
	}
	return e
}

// Find returns an experiment by name, or that of a YAML file.
func Find(name string) (Experiment, error) {
	names := make([]string, 0, len(studies))
	for _, e := range studies {
		if e.Name == name {
			return e, nil
		}
		names = append(names, e.Name)
	}
	if !slices.Contains(spec.Builtin(), name) && !strings.ContainsAny(name, "/.") {
		return Experiment{}, fmt.Errorf("there is no experiment %q: use one of %s, or a file: ./%s.yaml", name, strings.Join(append(names, spec.Builtin()...), ", "), name)
	}
	s, err := spec.Load(name)
	if err != nil {
		return Experiment{}, err
	}
	return ofSpec(name, s), nil
}

// run is what an experiment gets.
type run struct {
	params params
	tmp    string // a folder that is removed afterwards
	log    io.Writer
}

func (r *run) logf(format string, args ...any) {
	if r.log != nil {
		fmt.Fprintf(r.log, format+"\n", args...)
	}
}

// findings are what an experiment of its own kind returns.
type findings struct {
	doc    *report.Document // tables and text; the page gets the charts as well
	raw    any              // for results.json
	charts []namedChart
}

// namedChart is a chart with its file name, without extension.
type namedChart struct {
	name  string
	chart report.Chart
}

// Run runs the experiment and writes results.json, report.html and each chart
// as SVG and PNG into o.Out. What it returns is for the terminal.
func Run(ctx context.Context, e Experiment, o Options) (doc *report.Document, err error) {
	if e.Matrix() {
		return runFile(ctx, e.file, o)
	}
	if o.DryRun {
		return nil, setErrorf("%s has no plan to show: it is no experiment of cells", e.Name)
	}
	p, err := e.params(o.Set)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.Name, err)
	}
	if err := os.MkdirAll(o.Out, 0o777); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp("", "vmdisk-lab-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if rmErr := os.RemoveAll(tmp); err == nil {
			err = rmErr
		}
	}()
	res, err := e.run(ctx, &run{params: p, tmp: tmp, log: o.Log})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.Name, err)
	}
	res.doc.Facts = append(res.doc.Facts, host(o.Version)...)
	return res.doc, res.write(o.Out)
}

// runFile runs an experiment of cells.
func runFile(ctx context.Context, file string, o Options) (*report.Document, error) {
	s, err := spec.Load(file)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(o.Set)) {
		if err := s.Set(name, o.Set[name]); err != nil {
			return nil, err
		}
	}
	if o.Vmdisk == "" {
		if o.Vmdisk, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	return runMatrix(ctx, s, o)
}

func (r *findings) write(dir string) error {
	text, err := json.MarshalIndent(r.raw, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "results.json"), append(text, '\n'), 0o666)
	}
	if err == nil {
		err = writeFile(filepath.Join(dir, "report.html"), func(w io.Writer) error { return report.HTML(w, r.page()) })
	}
	for _, c := range r.charts {
		if err == nil {
			err = writeFile(filepath.Join(dir, c.name+".svg"), func(w io.Writer) error { return report.SVG(w, c.chart, chartSize) })
		}
		if err == nil {
			err = writeFile(filepath.Join(dir, c.name+".png"), func(w io.Writer) error { return report.PNG(w, c.chart, chartSize) })
		}
	}
	return err
}

// page is the document with the charts before the rest.
func (r *findings) page() *report.Document {
	doc := *r.doc
	charts := report.Section{Title: "Charts"}
	for _, c := range r.charts {
		charts.Items = append(charts.Items, c.chart)
	}
	doc.Sections = append([]report.Section{charts}, doc.Sections...)
	return &doc
}

var chartSize = report.Size{Width: 960, Height: 440}

func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	err = write(f)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// host describes where the experiment ran.
func host(version string) []report.Fact {
	facts := []report.Fact{{Name: "cpus", Value: fmt.Sprint(runtime.NumCPU())}, {Name: "go", Value: runtime.Version()}}
	if v, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		facts = append(facts, report.Fact{Name: "kernel", Value: strings.TrimSpace(string(v))})
	}
	if version != "" {
		facts = append(facts, report.Fact{Name: "vmdisk", Value: version})
	}
	return facts
}
