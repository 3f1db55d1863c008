package result

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/bench/hist"
	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/bench/stat"
	"github.com/vmdisk/vmdisk/report"
)

// HTML writes one self-contained page: what ran where, a table of the jobs,
// bandwidth, IOPS and latency over time, percentiles and histogram, the machine's
// load and the job files.
func (r *Run) HTML(w io.Writer) error { return report.HTML(w, r.Document()) }

// Document is the run as a report.
func (r *Run) Document() *report.Document {
	groups := r.Groups()
	d := &report.Document{Title: "Benchmark of " + r.subject(), Answer: r.answer(groups), Facts: r.facts()}
	d.Sections = append(d.Sections, report.Section{Title: "Results", Text: r.story(groups), Items: resultTables(groups)})
	if len(r.Samples) > 0 {
		d.Sections = append(d.Sections, report.Section{Title: "Repeated runs", Items: []report.Item{SampleTable(r.Samples)}})
	}
	d.Sections = append(d.Sections,
		report.Section{Title: "Over time", Items: []report.Item{r.overTime("Bandwidth", "MiB/s", groups, bandwidth), r.overTime("I/O rate", "IOPS", groups, iops), microseconds(r.overTime("Mean latency", "µs", groups, latency))}},
		report.Section{Title: "Completion latency", Items: append([]report.Item{percentileLines(groups)}, histograms(groups)...)},
		report.Section{Title: "Machine", Items: []report.Item{r.hostLines()}})
	var files []report.Item
	for _, f := range r.JobFiles {
		files = append(files, &report.Listing{Title: f.Name, Body: f.Text})
	}
	d.Sections = append(d.Sections, report.Section{Title: "Job files", Items: files})
	d.MatchColours()
	return d
}

// answer is the outcome in a line for each job and direction, before anything else.
func (r *Run) answer(groups []*Job) report.Answer {
	var out report.Answer
	for _, j := range groups {
		if j.Err != nil || j.Interrupted {
			out.Warnings = append(out.Warnings, fmt.Sprintf("Job %s did not end as it should; its figures are partial.", j.name(groups)))
		}
		for d := range j.Dirs {
			dir := &j.Dirs[d]
			if dir.IOs == 0 || len(out.Text) >= maxAnswers {
				continue
			}
			p := dir.Clat.Percentiles([]float64{50, 99})
			out.Text = append(out.Text, fmt.Sprintf("%s, %s: %.0f IOPS, %.1f MiB/s; half of the I/Os took %v or less, 99 %% of them %v or less.", j.name(groups), jobfile.DirNames[d],
				dir.IOPSMean(), dir.BWBytes()/(1<<20), short(p[0]), short(p[1])))
		}
	}
	return out
}

// maxAnswers bounds the lines of the answer; the table has all of them.
const maxAnswers = 8

func (r *Run) subject() string {
	if r.Target != "" {
		return r.Target
	}
	if len(r.Jobs) > 0 {
		return strings.Join(r.Jobs[0].Spec.Filenames, ", ")
	}
	return "nothing"
}

func (r *Run) facts() []report.Fact {
	return []report.Fact{
		{Name: "Started", Value: r.Started.Format(time.RFC1123Z)}, {Name: "Took", Value: r.Elapsed.Round(time.Millisecond).String()},
		{Name: "Host", Value: fmt.Sprintf("%s, %d CPUs, Linux %s", r.HostName, r.CPUs, r.Kernel)}, {Name: "Program", Value: r.Version},
	}
}

// story says in words what a reader should know before the numbers.
func (r *Run) story(groups []*Job) []string {
	var out []string
	for _, j := range groups {
		if j.Err != nil {
			out = append(out, fmt.Sprintf("Job %s failed: %s. Its figures are partial.", j.Spec.Name, errorText(j.Err)))
		} else if j.Interrupted {
			out = append(out, fmt.Sprintf("Job %s was interrupted. Its figures are partial.", j.Spec.Name))
		}
		if n, longest, at := j.StallSummary(); n > 0 {
			out = append(out, fmt.Sprintf("Job %s stalled %d times (I/O in flight, none completed); the longest for %v, %v after the start.", j.Spec.Name, n, short(int64(longest)), short(int64(at))))
		}
		if from, ok := j.steadyFrom(); ok && from >= 0 {
			out = append(out, fmt.Sprintf("Job %s was in a steady state from %v on.", j.name(groups), short(int64(from))))
		}
	}
	if s := unsteady(groups); s != "" {
		out = append(out, s)
	}
	for _, b := range r.Bounds {
		out = append(out, fmt.Sprintf("Group %d was bound by %s: %s.", b.Group, b.What, b.Why))
	}
	for _, n := range r.Notes {
		out = append(out, n.String())
	}
	return out
}

// steadyTime is how long a job must have run to be judged: what a disk does in its first
// seconds is never steady, and to say so of each short job tells nobody anything.
const steadyTime = 20 * time.Second

// steadyFrom judges the I/O rate over the job's samples: since when it was steady, or
// -1; false for a job that was too short to be judged.
func (j *Job) steadyFrom() (time.Duration, bool) {
	var v []float64
	var took time.Duration
	for _, p := range j.Points {
		v = append(v, float64(p.IOs[0]+p.IOs[1]+p.IOs[2])/p.Took.Seconds())
		took += p.Took
	}
	if took < steadyTime {
		return 0, false
	}
	if i, ok := stat.SteadyFrom(v); ok {
		return j.Points[i].At - j.Points[i].Took, true
	}
	return -1, true
}

// unsteady names all jobs that were long enough to reach a steady state, and did not.
func unsteady(groups []*Job) string {
	var names []string
	for _, j := range groups {
		if from, ok := j.steadyFrom(); ok && from < 0 {
			names = append(names, j.name(groups))
		}
	}
	if names == nil {
		return ""
	}
	return fmt.Sprintf("No steady state was reached by %s: the I/O rate at the end varied by more than 20 %% or drifted by more than 10 %%.", strings.Join(names, ", "))
}

// name tells jobs of equal names apart.
func (j *Job) name(all []*Job) string {
	n := 0
	for _, o := range all {
		if o.Spec.Name == j.Spec.Name {
			n++
		}
	}
	if n > 1 {
		return fmt.Sprintf("%s #%d", j.Spec.Name, j.Spec.Number)
	}
	return j.Spec.Name
}

// resultTables leaves out the flushes of jobs that made none.
func resultTables(groups []*Job) []report.Item {
	items := []report.Item{jobTable(groups)}
	if t := syncTable(groups); len(t.Rows) > 0 {
		items = append(items, t)
	}
	return items
}

func jobTable(groups []*Job) *report.Table {
	t := &report.Table{Title: "Jobs", Columns: []report.Column{{Name: "job"}, {Name: "direction"}, {Name: "jobs"}, {Name: "I/Os"}, {Name: "bandwidth", Unit: "MiB/s", Digits: 2},
		{Name: "IOPS", Digits: 1}, {Name: "mean", Unit: "µs", Digits: 1}, {Name: "p50", Unit: "µs", Digits: 1}, {Name: "p99", Unit: "µs", Digits: 1},
		{Name: "p99.9", Unit: "µs", Digits: 1}, {Name: "max", Unit: "µs", Digits: 1}, {Name: "CPU", Unit: "%", Digits: 1}}}
	for _, j := range groups {
		user, system := j.cpu()
		for d := range j.Dirs {
			dir := &j.Dirs[d]
			if dir.IOs == 0 {
				continue
			}
			p := dir.Clat.Percentiles([]float64{50, 99, 99.9})
			t.Add(j.name(groups), jobfile.DirNames[d], j.Merged, dir.IOs, dir.BWBytes()/(1<<20), dir.IOPSMean(), dir.Clat.Mean()/1e3,
				float64(p[0])/1e3, float64(p[1])/1e3, float64(p[2])/1e3, float64(dir.Clat.Max())/1e3, user+system)
		}
	}
	return t
}

func syncTable(groups []*Job) *report.Table {
	t := &report.Table{Title: "Flushes", Columns: []report.Column{{Name: "job"}, {Name: "fsyncs"}, {Name: "mean", Unit: "µs", Digits: 1}, {Name: "p99", Unit: "µs", Digits: 1}, {Name: "max", Unit: "µs", Digits: 1}}}
	for _, j := range groups {
		if j.Syncs > 0 {
			t.Add(j.name(groups), j.Syncs, j.Sync.Mean()/1e3, float64(j.Sync.Percentile(99))/1e3, float64(j.Sync.Max())/1e3)
		}
	}
	return t
}

func bandwidth(p *Point, d int) float64 { return float64(p.Bytes[d]) / (1 << 20) / p.Took.Seconds() }
func iops(p *Point, d int) float64      { return float64(p.IOs[d]) / p.Took.Seconds() }
func latency(p *Point, d int) float64 {
	return float64(p.LatSum[d]) / float64(max(p.IOs[d], 1)) / 1e3
}

func (r *Run) overTime(title, unit string, jobs []*Job, value func(*Point, int) float64) *report.Lines {
	l := &report.Lines{Title: title, X: report.Axis{Label: "time (s)", Zero: true}, Y: report.Axis{Label: unit, Zero: true}, Digits: 2}
	for _, j := range jobs {
		for d := range j.Dirs {
			if j.Dirs[d].IOs == 0 || len(j.Points) == 0 {
				continue
			}
			s := report.Series{Name: j.name(jobs) + " " + jobfile.DirNames[d]}
			for i := range j.Points {
				s.Points = append(s.Points, report.Point{X: j.Points[i].At.Seconds(), Y: value(&j.Points[i], d)})
			}
			l.Series = append(l.Series, s)
		}
		for _, st := range j.Stalls {
			if st.Took >= time.Second {
				l.Marks = append(l.Marks, report.Mark{Start: st.At.Seconds(), End: (st.At + st.Took).Seconds(), Label: "stall of " + j.name(jobs)})
			}
		}
	}
	return l
}

// microseconds labels the values of a chart with the units that suit.
func microseconds(l *report.Lines) *report.Lines {
	l.Y.Label, l.Y.Scale = "latency", report.Microseconds
	return l
}

func percentileLines(groups []*Job) *report.Lines {
	l := &report.Lines{Title: "Latency percentiles", X: report.Axis{Label: "percentile", Scale: report.Percentiles}, Y: report.Axis{Label: "latency", Log: true, Scale: report.Microseconds}, Digits: 2}
	each(groups, func(name string, h *hist.Histogram) {
		s := report.Series{Name: name}
		for i, v := range h.Percentiles(jobfile.DefaultPercentiles) {
			s.Points = append(s.Points, report.Point{X: jobfile.DefaultPercentiles[i], Y: float64(v) / 1e3})
		}
		l.Series = append(l.Series, s)
	})
	return l
}

// each calls f for the completion latencies of each job and direction, and of the
// intended time where there is a rate.
func each(groups []*Job, f func(name string, h *hist.Histogram)) {
	for _, j := range groups {
		for d := range j.Dirs {
			dir := &j.Dirs[d]
			if dir.Clat.N() > 0 {
				f(j.name(groups)+" "+jobfile.DirNames[d], &dir.Clat)
			}
			if dir.Intended != nil && dir.Intended.N() > 0 {
				f(j.name(groups)+" "+jobfile.DirNames[d]+" from intended", dir.Intended)
			}
		}
	}
}

func histograms(groups []*Job) []report.Item {
	var out []report.Item
	each(groups, func(name string, h *hist.Histogram) {
		it := &report.Histogram{Title: "Latency of " + name, X: report.Axis{Label: "latency", Log: true, Scale: report.Microseconds}}
		// Bins a quarter of an octave wide show the shape; fio's own are too fine to see.
		lo := int64(1)
		for lo*5/4 <= h.Min() {
			lo = max(lo+1, lo*5/4)
		}
		bins := h.Bins()
		for i := 0; i < len(bins); {
			hi := max(lo+1, lo*5/4)
			b := report.Bin{Lo: float64(lo) / 1e3, Hi: float64(hi) / 1e3}
			for ; i < len(bins) && bins[i].Value < hi; i++ {
				b.Count += int64(bins[i].Count)
			}
			it.Bins = append(it.Bins, b)
			lo = hi
		}
		out = append(out, it)
	})
	return out
}

func (r *Run) hostLines() *report.Lines {
	l := &report.Lines{Title: "Load of the machine", X: report.Axis{Label: "time (s)", Zero: true}, Y: report.Axis{Label: "%", Zero: true}, Digits: 1}
	for _, line := range []struct {
		name  string
		value func(*HostPoint) float64
	}{
		{"all CPUs", func(p *HostPoint) float64 { return p.Busy }}, {"steal", func(p *HostPoint) float64 { return p.Steal }},
		{"waiting for I/O", func(p *HostPoint) float64 { return p.IOWait }}, {"this process (one CPU = 100)", func(p *HostPoint) float64 { return p.ProcessCPU }},
		{"device", func(p *HostPoint) float64 { return p.Device }},
	} {
		s := report.Series{Name: line.name}
		for i := range r.Host {
			s.Points = append(s.Points, report.Point{X: r.Host[i].At.Seconds(), Y: line.value(&r.Host[i]) * 100})
		}
		if len(s.Points) > 0 {
			l.Series = append(l.Series, s)
		}
	}
	return l
}

// SampleTable summarises repeated runs.
func SampleTable(cells []Cell) *report.Table {
	t := &report.Table{Title: "Medians over the rounds", Columns: []report.Column{{Name: "job"}, {Name: "direction"}, {Name: "figure"}, {Name: "rounds"},
		{Name: "median", Digits: 2}, {Name: "95 % from", Digits: 2}, {Name: "to", Digits: 2}, {Name: "CV", Unit: "%", Digits: 2}},
		Notes: []string{"bw in MiB/s, latencies in µs; an interval needs 6 rounds or more"}}
	for _, c := range cells {
		s := stat.Summarize(scaled(c))
		t.Add(c.Job, c.Dir, c.Metric, s.N, s.Median, s.Lo, s.Hi, s.CV)
	}
	return t
}

// scaled turns bytes per second into MiB/s and nanoseconds into microseconds.
func scaled(c Cell) []float64 {
	div := 1.0
	switch {
	case c.Metric == "bw":
		div = 1 << 20
	case strings.HasPrefix(c.Metric, "lat"):
		div = 1e3
	}
	out := make([]float64, len(c.Values))
	for i, v := range c.Values {
		out[i] = v / div
	}
	return out
}

// WritePlots writes charts into dir as PNG and SVG, and returns their names:
// PREFIX-bw, PREFIX-iops and PREFIX-lat, where PREFIX is the name that
// write_bw_log (or its kin) gives, else the job's name.
func (r *Run) WritePlots(dir string) ([]string, error) {
	byPrefix := map[string][]*Job{}
	var order []string
	for _, j := range r.Groups() {
		p := j.plotPrefix()
		if byPrefix[p] == nil {
			order = append(order, p)
		}
		byPrefix[p] = append(byPrefix[p], j)
	}
	var names []string
	for _, p := range order {
		jobs := byPrefix[p]
		for kind, chart := range map[string]*report.Lines{"bw": r.overTime("Bandwidth", "MiB/s", jobs, bandwidth), "iops": r.overTime("I/O rate", "IOPS", jobs, iops),
			"lat": r.overTime("Mean latency", "µs", jobs, latency), "percentiles": percentileLines(jobs)} {
			base := filepath.Join(dir, p+"-"+kind)
			if len(chart.Series) == 0 {
				continue
			}
			if err := writePlot(base+".png", chart, report.PNG); err != nil {
				return names, err
			}
			if err := writePlot(base+".svg", chart, report.SVG); err != nil {
				return names, err
			}
			names = append(names, base+".png", base+".svg")
		}
	}
	return names, nil
}

func (j *Job) plotPrefix() string {
	for _, p := range []*string{j.Spec.BWLog, j.Spec.IOPSLog, j.Spec.LatLog} {
		if p != nil && *p != "" {
			return filepath.Base(*p)
		}
	}
	return strings.ReplaceAll(strings.Trim(j.Spec.Name, "/"), "/", "_")
}

func writePlot(name string, c report.Chart, draw func(io.Writer, report.Chart, report.Size) error) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("plot: %w", err)
	}
	defer func() {
		if err2 := f.Close(); err == nil {
			err = err2
		}
	}()
	return draw(f, c, report.Size{Width: 900, Height: 420})
}
