package outcome

import (
	"math"
	"slices"
	"strings"

	"github.com/vmdisk/vmdisk/bench/hist"
	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/bench/stat"
	"github.com/vmdisk/vmdisk/lab/spec"
)

// Total stands for all directions of a [Metric].
const Total = "total"

// Metric is one figure of a cell over its repeats.
type Metric struct {
	// Direction is read, write, trim or total.
	Direction string `json:"direction"`
	// Name: iops, bw (bytes/s), lat_mean, lat_p50, lat_p95, lat_p99, lat_p999 (ns);
	// of the total also cost and cost_CLASS (µs of host CPU per I/O), stalls,
	// stall_longest (ns), overlapping, lockups, host_busy (0..1).
	Name string `json:"metric"`
	// Values of the runs that count, in the order of their repeats.
	Values []float64 `json:"values"`
	Median float64   `json:"median"`
	// Lo and Hi bound the median with 95 % confidence; absent with fewer than 6 values.
	Lo *float64 `json:"lo,omitempty"`
	Hi *float64 `json:"hi,omitempty"`
	// CV is the standard deviation in percent of the mean.
	CV float64 `json:"cv_percent"`
}

// LowerIsBetter reports whether less of the metric is better.
func (m *Metric) LowerIsBetter() bool {
	return slices.ContainsFunc([]string{"lat_", "cost", "stall", "overlapping", "lockups", "host_busy"}, func(p string) bool { return strings.HasPrefix(m.Name, p) })
}

// CellFigures are of one cell over the runs that count.
type CellFigures struct {
	Metrics []Metric `json:"metrics"`
	Limit   Limit    `json:"limit"`
	// Runs that count, in order.
	Runs []RunFigures `json:"runs"`
	// Median is the index in Runs of the run whose IOPS are nearest to the median.
	Median int `json:"median_run"`
	// Blocks is the mean size of an I/O in bytes.
	Blocks float64 `json:"block_bytes"`

	counted []*Run
}

// Counted are the cell's runs that were not discarded, in the order of their repeats.
func (c *Cell) Counted() []*Run {
	var out []*Run
	for i := range c.Runs {
		if c.Runs[i].Discarded == "" {
			out = append(out, &c.Runs[i])
		}
	}
	slices.SortFunc(out, func(a, b *Run) int { return a.Repeat - b.Repeat })
	return out
}

// Figures works out what the cell's runs say together. accel is that of the guests.
func (c *Cell) Figures(accel string) *CellFigures {
	f := &CellFigures{counted: c.Counted()}
	for _, run := range f.counted {
		f.Runs = append(f.Runs, run.Figures())
	}
	f.Metrics = metrics(f.counted, f.Runs)
	f.Limit = limitOf(c.Client, accel, f.counted)
	if m := f.Metric(Total, MetricIOPS); m != nil {
		f.Median = nearest(m.Values, m.Median)
		f.Blocks = blockSize(f.Runs)
	}
	return f
}

// Metric returns a metric, nil if the cell has none of it.
func (f *CellFigures) Metric(direction, name string) *Metric {
	for i := range f.Metrics {
		if m := &f.Metrics[i]; m.Direction == direction && m.Name == name {
			return m
		}
	}
	return nil
}

// median of a metric, NaN where there is none.
func (f *CellFigures) median(direction, name string) float64 {
	if m := f.Metric(direction, name); m != nil {
		return m.Median
	}
	return math.NaN()
}

func nearest(values []float64, to float64) int {
	best := 0
	for i, v := range values {
		if math.Abs(v-to) < math.Abs(values[best]-to) {
			best = i
		}
	}
	return best
}

func blockSize(runs []RunFigures) float64 {
	var ios, bytes float64
	for _, r := range runs {
		ios, bytes = ios+r.IOPS, bytes+r.BW
	}
	if ios == 0 {
		return 0
	}
	return bytes / ios
}

// metrics are those of runs, directions without I/O left out.
func metrics(runs []*Run, figures []RunFigures) []Metric {
	var out []Metric
	add := func(direction, name string, value func(i int) float64) {
		m := Metric{Direction: direction, Name: name}
		for i := range figures {
			m.Values = append(m.Values, value(i))
		}
		m.summarize()
		out = append(out, m)
	}
	if len(runs) == 0 {
		return nil
	}
	add(Total, "iops", func(i int) float64 { return figures[i].IOPS })
	add(Total, "bw", func(i int) float64 { return figures[i].BW })
	for d, name := range jobfile.DirNames {
		if !slices.ContainsFunc(figures, func(f RunFigures) bool { return f.Dirs[d].IOs > 0 }) {
			continue
		}
		for _, m := range rateMetrics {
			add(name, m.name, func(i int) float64 { return m.value(&figures[i].Dirs[d]) })
		}
	}
	for _, c := range append([]string{costAll}, costClasses...) {
		name := strings.TrimSuffix("cost_"+c, "_"+costAll)
		if slices.ContainsFunc(figures, func(f RunFigures) bool { return f.Cost[c] > 0 }) {
			add(Total, name, func(i int) float64 { return figures[i].Cost[c] })
		}
	}
	add(Total, "stalls", func(i int) float64 { return float64(figures[i].Stalls.Count) })
	add(Total, "stall_longest", func(i int) float64 { return float64(figures[i].Stalls.LongestNS) })
	add(Total, "overlapping", func(i int) float64 { return float64(figures[i].Stalls.Overlapping) })
	add(Total, "lockups", func(i int) float64 { return float64(figures[i].Stalls.Lockups) })
	add(Total, "host_busy", func(i int) float64 { return runs[i].Host.Busy })
	return out
}

var rateMetrics = []struct {
	name  string
	value func(*Rates) float64
}{
	{"iops", func(r *Rates) float64 { return r.IOPS }},
	{"bw", func(r *Rates) float64 { return r.BW }},
	{"lat_mean", func(r *Rates) float64 { return r.Lat.Mean }},
	{"lat_p50", func(r *Rates) float64 { return float64(r.Lat.P50) }},
	{"lat_p95", func(r *Rates) float64 { return float64(r.Lat.P95) }},
	{"lat_p99", func(r *Rates) float64 { return float64(r.Lat.P99) }},
	{"lat_p999", func(r *Rates) float64 { return float64(r.Lat.P999) }},
}

func (m *Metric) summarize() {
	s := stat.Summarize(m.Values)
	m.Median, m.CV = s.Median, s.CV
	if !math.IsInf(s.Lo, 0) && !math.IsInf(s.Hi, 0) {
		m.Lo, m.Hi = &s.Lo, &s.Hi
	}
}

// merged is the histogram of one direction over all runs; nil if there is none.
func (f *CellFigures) merged(dir int) *hist.Histogram {
	var all *hist.Histogram
	for _, r := range f.Runs {
		if h := r.hists[dir]; h != nil {
			if all == nil {
				all = &hist.Histogram{}
			}
			all.Merge(h)
		}
	}
	return all
}

// label names a cell by what its sweep varies: the bare value of a single axis where it says
// enough by itself.
func label(varied []spec.Value) string {
	if len(varied) == 1 && !bare(varied[0].Value) {
		return varied[0].Value
	}
	parts := make([]string, len(varied))
	for i, v := range varied {
		parts[i] = v.Axis + "=" + v.Value
	}
	return strings.Join(parts, " ")
}

// bare reports whether a value says nothing without its axis: "on is faster than off".
func bare(value string) bool {
	if value == "" || value[0] >= '0' && value[0] <= '9' {
		return true
	}
	return slices.Contains([]string{"on", "off", "yes", "no", "true", "false", "none", "auto", "default", "all"}, value)
}

// Label names the cell by the values of the axes that its sweep varies.
func (c *Cell) Label() string {
	if len(c.Varied) == 0 {
		return c.ID
	}
	return label(c.Varied)
}
