package outcome

import (
	"fmt"
	"strings"

	"github.com/vmdisk/vmdisk/report"
)

// Options add to a report what an experiment has of its own.
type Options struct {
	// Charts are written as files beside the page, and stand before the others in it.
	Charts []NamedChart
	// Sections come between the verdicts and the sweeps.
	Sections []report.Section
}

// NamedChart is a chart with the name of its files, without extension.
type NamedChart struct {
	Name  string
	Chart report.Chart
}

// analysis is results with what follows from them, worked out once.
type analysis struct {
	*Results
	cells map[string]*CellFigures
	o     Options
	drawn []NamedChart // those of the page, but for an experiment's own
}

func analyse(r *Results, o Options) *analysis {
	return &analysis{Results: r, cells: r.figures(), o: o}
}

// Document is the report for a terminal: the answer, tables, what did not run and why.
func Document(r *Results, o Options) *report.Document { return analyse(r, o).document(false) }

// Page is the report with all charts, for [report.HTML].
func Page(r *Results, o Options) *report.Document {
	d, _ := analyse(r, o).page()
	return d
}

// page is the report with all charts, and those charts that are not the experiment's own.
func (a *analysis) page() (*report.Document, []NamedChart) {
	a.drawn = nil
	d := a.document(true)
	d.MatchColours()
	return d, a.drawn
}

// document builds the report; page adds the charts and what only a page can fold away.
func (a *analysis) document(page bool) *report.Document {
	d := &report.Document{Title: a.title(), Answer: a.answer(), Facts: a.facts()}
	d.Sections = append(d.Sections, a.topSection(page))
	d.Sections = append(d.Sections, a.o.Sections...)
	for i := range a.Sweeps {
		d.Sections = append(d.Sections, a.sweepSections(&a.Sweeps[i], page)...)
	}
	d.Sections = append(d.Sections, a.skippedSection()...)
	d.Sections = append(d.Sections, a.discardedSections()...)
	if page {
		d.Sections = append(d.Sections, a.jobSection())
	}
	return d
}

func (a *analysis) title() string {
	if a.Title == "" {
		return a.Experiment
	}
	return a.Experiment + ": " + a.Title
}

func (a *analysis) facts() []report.Fact {
	counted, discarded, skipped := 0, 0, 0
	for i := range a.Cells {
		c := &a.Cells[i]
		n := len(c.Counted())
		counted, discarded = counted+n, discarded+len(c.Runs)-n
		if len(c.Skipped) > 0 {
			skipped++
		}
	}
	facts := []report.Fact{{Name: "started", Value: a.Started.Format("2006-01-02 15:04:05 MST")}}
	facts = append(facts, report.Fact{Name: "runs", Value: fmt.Sprintf("%d that count, %d discarded; %d of %d cells cannot run here", counted, discarded, skipped, len(a.Cells))})
	if accel := a.Environment.Accel; accel != "" {
		if a.Environment.AccelWhy != "" {
			accel += " (" + a.Environment.AccelWhy + ")"
		}
		facts = append(facts, report.Fact{Name: "guests run by", Value: accel})
	}
	for _, f := range a.Environment.Facts {
		facts = append(facts, report.Fact(f))
	}
	return facts
}

// topSection says what was compared, with the charts that an experiment has of its own.
func (a *analysis) topSection(page bool) report.Section {
	s := report.Section{Title: "What was compared"}
	if a.Summary != "" {
		s.Text = append(s.Text, a.Summary)
	}
	if page {
		for _, c := range a.o.Charts {
			s.Items = append(s.Items, c.Chart)
		}
	}
	return s
}

func (a *analysis) verdicts(s *Sweep, w *Workload) []Verdict {
	return a.judge(s.Name, w.Name, a.cells)
}

// heading names a table: without what there is only one of.
func heading(r *Results, s *Sweep, w *Workload) string {
	var parts []string
	if len(r.Sweeps) > 1 || len(s.Workloads) == 1 {
		parts = append(parts, orName(s.Title, s.Name))
	}
	if len(s.Workloads) > 1 {
		parts = append(parts, orName(w.Title, w.Name))
	}
	return strings.Join(parts, ", ")
}

func orName(title, name string) string {
	if title != "" {
		return title
	}
	return name
}

// of are the cells of a sweep under a workload that have runs that count.
func (a *analysis) of(s *Sweep, w *Workload) []*Cell {
	var out []*Cell
	for i := range a.Cells {
		c := &a.Cells[i]
		if c.Sweep == s.Name && c.Workload == w.Name && len(a.cells[c.ID].Runs) > 0 {
			out = append(out, c)
		}
	}
	return out
}

// sweepSections are a sweep's: its text, and for each workload the verdicts, the table,
// charts, and each cell by itself.
func (a *analysis) sweepSections(s *Sweep, page bool) []report.Section {
	top := report.Section{Title: orName(s.Title, s.Name)}
	if s.Text != "" {
		top.Text = []string{s.Text}
	}
	out := []report.Section{top}
	for i := range s.Workloads {
		w := &s.Workloads[i]
		cells := a.of(s, w)
		part := report.Section{Title: orName(w.Title, w.Name), Sub: true}
		if len(cells) == 0 {
			part.Text = []string{"No run counts."}
			out = append(out, part)
			continue
		}
		for _, v := range a.verdicts(s, w) {
			part.Text = append(part.Text, v.Text, loaded(v.Load, v.Ceiling))
		}
		part.Items = []report.Item{a.cellTable(s, cells)}
		if page {
			out = append(out, a.withCharts(part, s, w, cells))
			out = append(out, a.cellSections(cells)...)
			continue
		}
		for _, c := range cells {
			if c.Nodes > 1 {
				part.Items = append(part.Items, nodeTable(c, a.cells[c.ID]))
			}
		}
		out = append(out, part)
	}
	return out
}

// withCharts puts the first chart before the table and the others behind it.
func (a *analysis) withCharts(part report.Section, s *Sweep, w *Workload, cells []*Cell) report.Section {
	charts := a.workloadCharts(s, w, cells)
	a.drawn = append(a.drawn, charts...)
	part.Items = append([]report.Item{charts[0].Chart}, part.Items...)
	for _, c := range charts[1:] {
		part.Items = append(part.Items, c.Chart)
	}
	return part
}

func loaded(load, text string) string {
	if load == "" || text == "" {
		return text
	}
	return load + ": " + text
}

// cellSections show each cell's nodes and what happened over time, in the run nearest
// to the median.
func (a *analysis) cellSections(cells []*Cell) []report.Section {
	var out []report.Section
	for _, c := range cells {
		f := a.cells[c.ID]
		s := report.Section{Title: c.Label() + median(f), Sub: true, Fold: true, Items: []report.Item{nodeTable(c, f)}}
		charts := cellCharts(c, f)
		a.drawn = append(a.drawn, charts...)
		for _, ch := range charts {
			s.Items = append(s.Items, ch.Chart)
		}
		out = append(out, s)
	}
	return out
}

// median says which run of several is shown.
func median(f *CellFigures) string {
	if len(f.Runs) < 2 {
		return ""
	}
	return fmt.Sprintf(" (repeat %d of %d, the nearest to the median)", f.Runs[f.Median].Repeat, len(f.Runs))
}

func (a *analysis) skippedSection() []report.Section {
	t := &report.Table{Columns: []report.Column{{Name: "cell"}, {Name: "why"}}}
	for _, c := range a.Cells {
		for i, why := range c.Skipped {
			id := c.ID
			if i > 0 {
				id = ""
			}
			t.Add(id, why)
		}
	}
	if len(t.Rows) == 0 {
		return nil
	}
	return []report.Section{{Title: "Not run here", Items: []report.Item{t}}}
}

func (a *analysis) discardedSections() []report.Section {
	t := &report.Table{Columns: []report.Column{{Name: "cell"}, {Name: "repeat"}, {Name: "why"}}}
	consoles := report.Section{Title: "Consoles of guests that failed", Sub: true, Fold: true}
	for _, c := range a.Cells {
		for _, run := range c.Runs {
			if run.Discarded == "" {
				continue
			}
			t.Add(c.ID, run.Repeat, run.Discarded)
			if run.Console != "" {
				consoles.Items = append(consoles.Items, &report.Listing{Title: fmt.Sprintf("%s, repeat %d", c.ID, run.Repeat), Body: run.Console})
			}
		}
	}
	if len(t.Rows) == 0 {
		return nil
	}
	out := []report.Section{{Title: "Discarded runs", Items: []report.Item{t}}}
	if len(consoles.Items) > 0 {
		out = append(out, consoles)
	}
	return out
}

func (a *analysis) jobSection() report.Section {
	s := report.Section{Title: "Job files", Fold: true}
	seen := map[string]bool{}
	for _, sweep := range a.Sweeps {
		for _, w := range sweep.Workloads {
			if !seen[w.Name] {
				seen[w.Name] = true
				s.Items = append(s.Items, &report.Listing{Title: w.Name, Body: w.JobFile})
			}
		}
	}
	return s
}
