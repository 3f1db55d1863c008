package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/vmdisk/vmdisk/report"
)

// Experiment is one thing that Run can do.
type Experiment struct {
	Name    string
	Summary string // one line
	Params  []Param
	run     func(ctx context.Context, r *run) (*findings, error)
}

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
}

// experiments in the order of the list.
var experiments = []Experiment{fastZero, imageioFastZero}

// Experiments lists what Run knows.
func Experiments() []Experiment { return slices.Clone(experiments) }

// Find returns an experiment by name.
func Find(name string) (Experiment, error) {
	names := make([]string, 0, len(experiments))
	for _, e := range experiments {
		if e.Name == name {
			return e, nil
		}
		names = append(names, e.Name)
	}
	return Experiment{}, fmt.Errorf("there is no experiment %q: use one of %s", name, strings.Join(names, ", "))
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

// findings are what an experiment returns.
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
	res.doc.Facts = append(host(), res.doc.Facts...)
	return res.doc, res.write(o.Out)
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
func host() []report.Fact {
	facts := []report.Fact{{Name: "cpus", Value: fmt.Sprint(runtime.NumCPU())}, {Name: "go", Value: runtime.Version()}}
	if v, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		facts = append(facts, report.Fact{Name: "kernel", Value: strings.TrimSpace(string(v))})
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		facts = append(facts, report.Fact{Name: "vmdisk", Value: info.Main.Version})
	}
	return facts
}
