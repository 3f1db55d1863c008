package spec

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// maxCells bounds an experiment; more is a mistake, not a night's work.
const maxCells = 10000

// maxCellJobs bounds the jobs of all cells together, since each cell's are read anew: a
// file of 45 KB with 100 jobs and 5,000 values took more than 30 s.
const maxCellJobs = 20000

// Cells expands the sweeps to all their combinations, less the excluded ones, in
// the order of the file with the last axis fastest.
//
// Some combinations cannot be, on no host (aio=native with cache=writeback). They
// are returned with the reason in Impossible, as long as each value of an axis is
// possible in some cell of its sweep. A value that is possible in none is an error,
// because something fixed contradicts it, and so is a fixed value that has an
// effect in no cell. Where a fixed value has no effect in a cell (iothread=on with
// an IDE disk), the cell has the default. Every error is an *Error.
func (s *Spec) Cells() ([]Cell, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	e := expander{spec: s, effective: map[Fixed]bool{}, idle: map[Fixed]string{}}
	for i := range s.Sweeps {
		if err := e.sweep(&s.Sweeps[i]); err != nil {
			return nil, err
		}
	}
	return e.cells, e.haveEffect(s.Fixed)
}

// expander collects cells.
type expander struct {
	spec  *Spec
	cells []Cell
	jobs  int // of the cells so far
	// effective are the fixed values that do something in some cell; idle is why the
	// others did not.
	effective map[Fixed]bool
	idle      map[Fixed]string
}

// haveEffect returns an error for the first value that did nothing in any cell. What
// a file says may become idle by --set.
func (e *expander) haveEffect(list []Fixed) error {
	for _, f := range list {
		why, seen := e.idle[f]
		if !seen || e.effective[f] || f.Pos.Line > 0 && e.spec.changed {
			continue
		}
		return errAt(f.Pos, "%s=%s has no effect in any cell: %s", f.Axis, f.Value, why)
	}
	return nil
}

func (e *expander) sweep(w *Sweep) error {
	first := len(e.cells)
	total := len(w.Workloads)
	for _, x := range w.Axes {
		if a, ok := findAxis(x.Name); ok && a.guest && e.spec.client(w) == ClientHost {
			return errAt(x.Pos, "sweep %s varies %s, which is of guests, and its clients are host processes: client=guest, or choose other sweeps by --set sweeps=…", w.Name, x.Name)
		}
		if total *= len(x.Values); first+total > maxCells {
			return errAt(w.Pos, "more than %d cells at sweep %s: vary less", maxCells, w.Name)
		}
	}
	m := matrix{sweep: w, possible: map[Value]bool{}, why: map[Value]string{}}
	for _, name := range w.Workloads {
		work := e.spec.Workload(name)
		if work == nil {
			return errAt(w.Pos, "sweep %s: no workload %q", w.Name, name)
		}
		for combination := range combinations(w.Axes) {
			if excluded(w.Exclude, combination) {
				continue
			}
			if err := e.cell(&m, work, combination); err != nil {
				return err
			}
		}
	}
	if len(e.cells) == first {
		return errAt(w.Pos, "sweep %s: every combination is excluded", w.Name)
	}
	if err := m.check(); err != nil {
		return err
	}
	return e.haveEffect(w.Fixed)
}

// combinations yields every combination of the values, the last axis fastest.
func combinations(axes []Axis) func(yield func([]Value) bool) {
	return func(yield func([]Value) bool) {
		at := make([]int, len(axes))
		for {
			values := make([]Value, len(axes))
			for i, x := range axes {
				values[i] = Value{x.Name, x.Values[at[i]]}
			}
			if !yield(values) || !next(at, axes) {
				return
			}
		}
	}
}

// next counts one up; false: it was the last.
func next(at []int, axes []Axis) bool {
	for i := len(at) - 1; i >= 0; i-- {
		if at[i]++; at[i] < len(axes[i].Values) {
			return true
		}
		at[i] = 0
	}
	return false
}

func excluded(list []map[string]string, values []Value) bool {
	return slices.ContainsFunc(list, func(x map[string]string) bool {
		hits := 0
		for _, v := range values {
			if want, ok := x[v.Axis]; ok && want == v.Value {
				hits++
			}
		}
		return hits == len(x)
	})
}

// matrix remembers which values of a sweep are possible.
type matrix struct {
	sweep    *Sweep
	possible map[Value]bool
	why      map[Value]string // of the first cell that was not
}

// check returns an error for a value that is possible in no cell.
func (m *matrix) check() error {
	for _, x := range m.sweep.Axes {
		for _, value := range x.Values {
			v := Value{x.Name, value}
			why, seen := m.why[v]
			if !seen || m.possible[v] {
				continue
			}
			rest := slices.DeleteFunc(slices.Clone(x.Values), func(o string) bool { return o == value })
			advice := ""
			if a, ok := findAxis(x.Name); ok && !a.whole && len(rest) > 0 {
				advice = "; leave it out by --set " + x.Name + "=" + strings.Join(rest, ",")
			}
			return errAt(x.Pos, "sweep %s: %s=%s is not possible: %s%s", m.sweep.Name, x.Name, value, why, advice)
		}
	}
	return nil
}

// cell judges one combination and appends its cell.
func (e *expander) cell(m *matrix, work *Workload, values []Value) error {
	w := m.sweep
	c, err := e.combo(w, values)
	if err != nil {
		return err
	}
	why := e.settle(c, w, values)
	cell := Cell{
		ID: cellID(w, work, values), Sweep: w.Name, Workload: work.Name, Client: c.client, Nodes: c.nodes,
		Varied: values, Setup: c.Setup, FileSystem: e.spec.Disk.FileSystem,
		Options: e.options(w, &c.Setup), Impossible: why,
	}
	if c.client == ClientHost {
		cell.FileSystem = noFileSystem
	}
	if cell.Impossible == "" {
		if cell.Impossible, err = e.judge(&cell, work, w); err != nil {
			return err
		}
	}
	missing := ""
	if cell.Impossible == "" {
		missing = c.give(e.spec.Devices)
		cell.Setup.Backing = c.Backing
	}
	for _, v := range values {
		if cell.Impossible == "" {
			m.possible[v] = true
		} else if m.why[v] == "" {
			m.why[v] = cell.Impossible
		}
	}
	if missing != "" {
		cell.Impossible = missing
	}
	e.cells = append(e.cells, cell)
	return nil
}

func cellID(w *Sweep, work *Workload, values []Value) string {
	list := make([]string, len(values))
	for i, v := range values {
		list[i] = v.Axis + "=" + v.Value
	}
	return w.Name + "/" + work.Name + "/" + strings.Join(list, ",")
}

// combo puts defaults, fixed values and the combination's together.
func (e *expander) combo(w *Sweep, values []Value) (*combo, error) {
	s := e.spec
	c := &combo{Setup: Defaults(), client: s.client(w), machine: s.Guest.Machine, nodes: s.Nodes, given: map[string]bool{}}
	if w.Nodes > 0 {
		c.nodes = w.Nodes
	}
	var all []Value
	for _, f := range slices.Concat(s.Fixed, w.Fixed) {
		all = append(all, Value{f.Axis, f.Value})
	}
	for _, v := range append(all, values...) {
		row, ok := findAxis(v.Axis)
		if !ok {
			return nil, errAt(w.Pos, "unknown axis %q", v.Axis)
		}
		if err := row.set(&c.Setup, v.Value); err != nil {
			return nil, errAt(w.Pos, "%s: %w", v.Axis, err)
		}
		c.given[v.Axis] = true
	}
	c.imply()
	return c, nil
}

// settle returns why the combination cannot be, "" if it can; fixed values without
// effect have then given way to the default.
func (e *expander) settle(c *combo, w *Sweep, values []Value) string {
	defaults := Defaults()
	var quiet []*axis
	for i := range axes {
		a := &axes[i]
		if !c.given[a.name] || a.get(&c.Setup) == a.get(&defaults) {
			continue
		}
		why := c.idle(a)
		varied := slices.ContainsFunc(values, func(v Value) bool { return v.Axis == a.name })
		switch {
		case varied && why != "":
			return a.name + ": " + why
		case varied:
			continue
		case why != "":
			quiet = append(quiet, a)
		}
		e.note(a.name, w, why)
	}
	for _, a := range quiet {
		if a.set(&c.Setup, a.get(&defaults)) != nil {
			return a.name + ": has no default" // cannot be: a test sets them all
		}
	}
	return c.conflict()
}

// note remembers whether the fixed value of an axis did something.
func (e *expander) note(name string, w *Sweep, why string) {
	for _, list := range [][]Fixed{w.Fixed, e.spec.Fixed} {
		i := slices.IndexFunc(list, func(f Fixed) bool { return f.Axis == name })
		if i < 0 {
			continue
		}
		if why == "" {
			e.effective[list[i]] = true
		} else if e.idle[list[i]] == "" {
			e.idle[list[i]] = why
		}
		return
	}
}

// options are those of the experiment, of the sweep and of the axes, each name
// once, the later ones winning.
func (e *expander) options(w *Sweep, setup *Setup) []string {
	var out []string
	add := func(o string) {
		name, _, _ := strings.Cut(o, "=")
		out = append(without(out, canonical(name)), o)
	}
	for _, o := range slices.Concat(e.spec.Options, w.Options) {
		add(o)
	}
	for _, v := range jobValues(setup) {
		if v.Value != "" {
			add(v.Axis + "=" + v.Value)
		}
	}
	return out
}

func jobValues(s *Setup) []Value {
	return []Value{{"bs", s.BlockSize}, {"iodepth", s.Depth}, {"numjobs", s.Jobs}, {"rw", s.Mode}}
}

// judge resolves the cell's jobs. It returns why the combination cannot be; an
// error is a fault of the job file or of what --set makes of it.
func (e *expander) judge(c *Cell, work *Workload, w *Sweep) (impossible string, err error) {
	s := e.spec
	plan, err := work.plan(c.Options, c.FileSystem == noFileSystem)
	if err != nil {
		return "", inJob(err, work, w.Pos, c.Options)
	}
	if e.jobs += len(plan.Jobs); e.jobs > maxCellJobs {
		return "", errAt(w.Pos, "more than %d jobs in all cells at sweep %s, with workload %s: vary less, or use fewer jobs", maxCellJobs, w.Name, work.Name)
	}
	filed := c.FileSystem != noFileSystem
	switch {
	case filed && work.Precondition != "none":
		return "", errAt(work.Pos, "workload %s: precondition=%s writes over the whole disk, and with it over its file system: --set file-system=none, or precondition: none", work.Name, work.Precondition)
	case work.Precondition != "none" && slices.ContainsFunc(c.Varied, func(v Value) bool { return v.Axis == "pass" }):
		return "", errAt(work.Pos, "workload %s: precondition=%s writes the disk before the first pass: sweep %s, which varies pass, needs precondition: none", work.Name, work.Precondition, w.Name)
	case filed && c.Setup.Pass == "second":
		return "pass=second writes over the whole disk, and with it over its file system: --set file-system=none", nil
	}
	if c.Setup.Backing != "device" && !strings.HasPrefix(c.Setup.Backing, "device:") && !strings.HasPrefix(c.Setup.Backing, "url:") {
		if err := fits(plan, s.Disk.Size, c.FileSystem); err != nil {
			return "", errAt(w.Pos, "sweep %s, workload %s: %w", w.Name, work.Name, err)
		}
	}
	return unheeded(c, plan), nil
}

// unheeded returns why jobs do not do what an axis asks of them.
func unheeded(c *Cell, plan *jobfile.Plan) string {
	for _, j := range plan.Jobs {
		switch {
		case c.Setup.BlockSize != "" && len(j.Splits[jobfile.Read])+len(j.Splits[jobfile.Write]) > 0:
			return fmt.Sprintf("bs: job %s has bssplit, which wins", j.Name)
		case c.Setup.Depth != "" && j.Depth != j.DepthAsked:
			return fmt.Sprintf("iodepth: ioengine=%s of job %s does one I/O at a time", j.Engine, j.Name)
		}
	}
	return ""
}

// longestName is what file names are cut to, below the 255 bytes of file systems so
// that suffixes fit.
const longestName = 200

// FileName is the cell's ID as a file name: "/" is "+", and every byte other than
// letters, digits and . _ = , - is %XX. Different cells have different names; one
// longer than 200 bytes ends in "~" and a hash of the ID.
func (c Cell) FileName() string {
	var b strings.Builder
	for _, ch := range []byte(c.ID) {
		switch {
		case ch == '/':
			b.WriteByte('+')
		case ch >= 'a' && ch <= 'z', ch >= 'A' && ch <= 'Z', ch >= '0' && ch <= '9', strings.IndexByte("._=,-", ch) >= 0:
			b.WriteByte(ch)
		default:
			fmt.Fprintf(&b, "%%%02X", ch)
		}
	}
	name := b.String()
	if len(name) > longestName {
		sum := sha256.Sum256([]byte(c.ID))
		name = name[:longestName-17] + "~" + hex.EncodeToString(sum[:8])
	}
	return name
}
