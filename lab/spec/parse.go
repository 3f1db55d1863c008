package spec

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// Parse reads an experiment. The name stands in messages, and its folder is where
// relative job files are looked for. Every error is an *Error.
func Parse(name string, data []byte) (*Spec, error) {
	r := fileReader{document: document{name}, spec: defaultSpec()}
	body, err := r.parse(data)
	if err != nil {
		return nil, err
	}
	if err := r.top(body); err != nil {
		return nil, err
	}
	if err := r.complete(body); err != nil {
		return nil, err
	}
	r.spec.source = string(data)
	return r.spec, r.spec.validate()
}

// fileReader reads one file into a spec.
type fileReader struct {
	document
	spec *Spec
	// lone is the one sweep of a file with axes at the top.
	lone    Sweep
	hasAxes bool
	// excludes waits for the axes, which may stand below it.
	excludes []exclusion
}

// exclusion is a list of combinations of the sweep at index sweep, -1: the lone one.
type exclusion struct {
	sweep int
	node  ast.Node
}

func (r *fileReader) top(body ast.Node) error {
	s := r.spec
	keys := map[string]func(ast.Node) error{
		"name": r.name(&s.Name), "title": r.into(&s.Title), "summary": r.into(&s.Summary),
		"guest": r.section(s, "guest"), "disk": r.section(s, "disk"),
		"workloads": r.workloads, "sweeps": r.sweeps,
		"set": r.fixed(&s.Fixed), "options": r.options(&s.Options),
		"axes":    func(n ast.Node) error { r.hasAxes, r.lone.Pos = true, r.pos(n); return r.axes(&r.lone)(n) },
		"exclude": func(n ast.Node) error { r.excludes = append(r.excludes, exclusion{-1, n}); return nil },
	}
	return r.keys(body, "the experiment", both(keys, r.fieldKeys(s, "")))
}

// complete fills in what follows from the rest, and checks what refers to it.
func (r *fileReader) complete(body ast.Node) error {
	s := r.spec
	switch {
	case s.Name == "":
		return r.fail(body, "the experiment has no name: add name: NAME")
	case len(s.Workloads) == 0:
		return r.fail(body, "the experiment has no workloads: add workloads: [{name: NAME, job: JOBFILE}]")
	case r.hasAxes && len(s.Sweeps) > 0:
		return errAt(r.lone.Pos, "axes beside sweeps: put them into a sweep")
	case r.hasAxes && len(r.lone.Axes) == 0:
		return errAt(r.lone.Pos, "axes without an axis: add AXIS: [VALUE, …]")
	case !r.hasAxes && len(s.Sweeps) == 0:
		return r.fail(body, "nothing is varied: add axes: {AXIS: [VALUE, …]}, or sweeps")
	}
	if r.hasAxes {
		r.lone.Name, r.lone.Title = s.Name, s.Title
		s.Sweeps = []Sweep{r.lone}
	}
	if s.Title == "" {
		s.Title = s.Name
	}
	for i := range s.Sweeps {
		if err := r.completeSweep(&s.Sweeps[i]); err != nil {
			return err
		}
	}
	for _, e := range r.excludes {
		if e.sweep < 0 && !r.hasAxes {
			return r.fail(e.node, "exclude without axes beside it: put it into a sweep")
		}
		if err := r.exclude(&s.Sweeps[max(e.sweep, 0)], e.node); err != nil {
			return err
		}
	}
	return nil
}

func (r *fileReader) completeSweep(w *Sweep) error {
	if w.Title == "" {
		w.Title = w.Name
	}
	known := r.spec.WorkloadNames()
	if w.Workloads == nil {
		w.Workloads = known
	}
	for _, name := range w.Workloads {
		if !slices.Contains(known, name) {
			return errAt(w.Pos, "sweep %s: no workload %q%s; there are: %s", w.Name, name, didYouMean(name, known), strings.Join(known, ", "))
		}
	}
	return nil
}

func (r *fileReader) workloads(n ast.Node) error {
	items, err := r.items(n)
	if err != nil {
		return err
	}
	for _, item := range items {
		w := Workload{Precondition: "none", Pos: r.pos(item)}
		if err := r.workload(&w, item); err != nil {
			return err
		}
		if slices.Contains(r.spec.WorkloadNames(), w.Name) {
			return r.fail(item, "a second workload called %s", w.Name)
		}
		if _, err := w.plan(nil, true); err != nil {
			return inJob(err, &w, w.Pos, nil)
		}
		r.spec.Workloads = append(r.spec.Workloads, w)
	}
	return nil
}

var (
	preconditions = []string{"none", "fill", "steady"}
	metrics       = []string{"iops", "bw", "read_p99"}
)

func (r *fileReader) workload(w *Workload, n ast.Node) error {
	var job, file ast.Node
	err := r.keys(n, "a workload", map[string]func(ast.Node) error{
		"name": r.name(&w.Name), "title": r.into(&w.Title),
		"job":      func(n ast.Node) error { job = n; return nil },
		"job-file": func(n ast.Node) error { file = n; return nil },
		"precondition": func(n ast.Node) (err error) {
			if w.Precondition, err = r.text(n); err == nil && !slices.Contains(preconditions, w.Precondition) {
				err = r.fail(n, "precondition: %w", noneOf(w.Precondition, preconditions))
			}
			return err
		},
		"metric": func(n ast.Node) (err error) {
			if w.Metric, err = r.text(n); err == nil && !slices.Contains(metrics, w.Metric) {
				err = r.fail(n, "metric: %w", noneOf(w.Metric, metrics))
			}
			return err
		},
	})
	switch {
	case err != nil:
		return err
	case w.Name == "":
		return r.fail(n, "a workload without a name: add name: NAME")
	case job == nil && file == nil:
		return r.fail(n, "workload %s has no job: add job: with the text of a fio job file, or job-file: PATH", w.Name)
	case job != nil && file != nil:
		return r.fail(file, "workload %s has both job and job-file", w.Name)
	case job != nil:
		w.job = r.origin(job)
		w.JobFile, err = r.text(job)
		return err
	}
	return r.readJobFile(w, file)
}

// origin is where the lines of a job stand: below the "|" of a literal block, else
// all where the text begins.
func (r *fileReader) origin(n ast.Node) jobOrigin {
	p := r.pos(n)
	if lit, ok := n.(*ast.LiteralNode); ok && strings.HasPrefix(lit.Start.Value, "|") {
		return jobOrigin{file: p.File, line: p.Line, each: 1}
	}
	return jobOrigin{file: p.File, line: p.Line}
}

// maxJobFile bounds a job file in bytes.
const maxJobFile = 1 << 20

func (r *fileReader) readJobFile(w *Workload, n ast.Node) error {
	name, err := r.text(n)
	if err != nil {
		return err
	}
	path := name
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(r.file), path)
	}
	text, err := readText(path)
	if err != nil {
		return r.fail(n, "job-file of workload %s: %w", w.Name, err)
	}
	w.JobFile, w.job = text, jobOrigin{file: path, each: 1}
	return nil
}

// readText reads a regular file of maxJobFile bytes at most.
func readText(path string) (string, error) {
	st, err := os.Stat(path)
	if err == nil && !st.Mode().IsRegular() {
		err = &fs.PathError{Op: "read", Path: path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		return "", err
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxJobFile+1))
	if err == nil && len(data) > maxJobFile {
		err = fmt.Errorf("%s is larger than %d bytes: no job file", path, maxJobFile)
	}
	return string(data), err
}

// options reads fio options, NAME=VALUE.
func (r *fileReader) options(p *[]string) func(ast.Node) error {
	return func(n ast.Node) error {
		return r.texts(n, func(at Pos, text string) error {
			name, value, ok := strings.Cut(text, "=")
			if !ok {
				return errAt(at, "fio option %q: want NAME=VALUE", text)
			}
			if a, ok := findAxis(canonical(name)); ok {
				return errAt(at, "%s is an axis: give it in set or axes", a.name)
			}
			if err := jobfile.CheckOption(name, value); err != nil {
				return errAt(at, "%w", err)
			}
			*p = append(*p, name+"="+value)
			return nil
		})
	}
}
