package lab

import (
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/vmdisk/vmdisk/lab/outcome"
	"github.com/vmdisk/vmdisk/lab/spec"
	"github.com/vmdisk/vmdisk/report"
)

// What the parts of a run take on a small machine, measured; an estimate is made
// of them before anything was run, and corrected by what runs really took.
const (
	hostStart   = 500 * time.Millisecond // start and end of a host client's disks
	guestStart  = 3 * time.Second        // boot and end of one guest, with KVM
	emulated    = 7 * time.Second        // the same, emulated
	emulatedToo = 2500 * time.Millisecond
	copyRate    = 300 << 20 // bytes per second, of filling and copying disks
	unknownRun  = time.Minute
)

// estimate is how long one run of the cell takes.
func (m *matrix) estimate(c spec.Cell) time.Duration {
	load := m.spec.Runtime(c)
	if load == 0 {
		load = unknownRun // it ends by size, and nobody knows the rate
	}
	each := func(d time.Duration) time.Duration { return time.Duration(c.Nodes * int(d)) }
	written := int64(c.Nodes) * m.spec.Disk.Data
	total := load + hostStart
	switch w := m.spec.Workload(c.Workload); w.Precondition {
	case "fill":
		written += int64(c.Nodes) * m.spec.Disk.Size
	case "steady":
		written += 2 * int64(c.Nodes) * m.spec.Disk.Size
		total += max(load/2, settleWindow) * 3
	}
	if c.Setup.Preallocation == "full" || c.Setup.Pass == "second" {
		written += int64(c.Nodes) * m.spec.Disk.Size
	}
	if c.Client == spec.ClientGuest {
		if m.accel == "tcg" {
			total += emulated + each(emulatedToo)
		} else {
			total += guestStart + each(hostStart)
		}
	}
	return total + time.Duration(float64(written)/copyRate*float64(time.Second))
}

// estimator corrects estimates by what was measured.
type estimator struct {
	m               *matrix
	planned, actual time.Duration
}

func (e *estimator) took(j job, d time.Duration) {
	e.planned += e.m.estimate(j.cell)
	e.actual += d
}

// left is how long the jobs will take.
func (e *estimator) left(jobs []job) time.Duration {
	var sum time.Duration
	for _, j := range jobs {
		sum += e.m.estimate(j.cell)
	}
	if e.planned > 0 {
		sum = time.Duration(float64(sum) * float64(e.actual) / float64(e.planned))
	}
	return sum
}

// planDocument shows what would run, what cannot and why, and how long it takes.
func (m *matrix) planDocument() *report.Document {
	t := &report.Table{Columns: []report.Column{{Name: "cell"}, {Name: "client"}, {Name: "nodes"}, {Name: "runs"}, {Name: "each", Unit: "s", Digits: 0}}}
	why := reasons{}
	var total time.Duration
	runs := 0
	for i, c := range m.cells {
		if skipped := m.plan.Cells[i].Skipped; len(skipped) > 0 {
			why.add(c.ID, skipped)
			continue
		}
		each := m.estimate(c)
		total += each * time.Duration(m.spec.Repeats)
		runs += m.spec.Repeats
		t.Add(c.ID, c.Client, c.Nodes, m.spec.Repeats, each.Seconds())
	}
	sections := []report.Section{{Title: "Cells that run", Items: []report.Item{t}}}
	if len(t.Rows) == 0 {
		sections[0].Items, sections[0].Text = nil, []string{"None."}
	}
	if len(why.order) > 0 {
		sections = append(sections, report.Section{Title: "Cells that cannot run here", Text: why.lines()})
	}
	env := m.plan.Environment
	facts := []report.Fact{{Name: "experiment", Value: m.spec.Name + ": " + m.spec.Describe(m.spec.Title)}}
	if env.Accel != "" {
		why := env.Accel
		if env.AccelWhy != "" {
			why += ": " + env.AccelWhy
		}
		facts = append(facts, report.Fact{Name: "guests run by", Value: why})
	}
	answer := report.Answer{Text: []string{fmt.Sprintf("%d runs of %d cells, about %s in all; %d cells cannot run here.", runs, len(t.Rows), total.Round(time.Second), len(m.cells)-len(t.Rows))}}
	return &report.Document{Title: "Plan of " + m.spec.Name, Answer: answer, Facts: facts, Sections: sections}
}

// reasons are why cells cannot run, each once with its cells.
type reasons struct {
	order []string
	cells map[string][]string
}

func (r *reasons) add(cell string, why []string) {
	if r.cells == nil {
		r.cells = map[string][]string{}
	}
	for _, w := range why {
		if r.cells[w] == nil {
			r.order = append(r.order, w)
		}
		r.cells[w] = append(r.cells[w], cell)
	}
}

// planWidth is where the lines of a plan are broken, in characters.
const planWidth = 100

// lines are for people: a reason, and below it its cells.
func (r *reasons) lines() []string {
	var out []string
	for _, w := range r.order {
		for _, line := range strings.Split(text.WrapSoft(w+":", planWidth), "\n") {
			out = append(out, strings.TrimRight(line, " "))
		}
		for _, c := range r.cells[w] {
			out = append(out, "  "+c)
		}
	}
	return out
}

// lacksFio says what is missing for fio as the engine of host clients.
func lacksFio() []string {
	if _, err := exec.LookPath("fio"); err != nil {
		return []string{"fio is not installed: apt-get install fio, or --set engine=vmdisk"}
	}
	return nil
}

// Report makes the report of a folder of results again.
func Report(dir string) (*report.Document, error) {
	r, err := outcome.Load(dir)
	if err != nil {
		return nil, err
	}
	extra := extras(r)
	if err := outcome.Write(dir, r, extra); err != nil {
		return nil, err
	}
	return outcome.Document(r, extra), nil
}

// Compare compares the results in two folders, cell by cell.
func Compare(dirA, dirB string) (*report.Document, []outcome.Difference, error) {
	a, err := outcome.Load(dirA)
	if err != nil {
		return nil, nil, err
	}
	b, err := outcome.Load(dirB)
	if err != nil {
		return nil, nil, err
	}
	return outcome.CompareDocument(dirA, a, dirB, b), outcome.Compare(a, b), nil
}
