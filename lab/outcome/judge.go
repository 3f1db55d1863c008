package outcome

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/vmdisk/vmdisk/bench/stat"
	"github.com/vmdisk/vmdisk/lab/spec"
)

// Verdict says which of the set-ups that were given the same work did best.
type Verdict struct {
	Sweep    string `json:"sweep"`
	Workload string `json:"workload"`
	// Load holds the axes that change the work itself, where the sweep varies them:
	// "bs=4k". Cells with different work are not compared.
	Load   string `json:"load,omitempty"`
	Metric string `json:"metric"`
	// Winner is the label of the cell that surely did best, "" when None says why none is named.
	Winner string `json:"winner"`
	Sure   bool   `json:"sure"`
	// Best is the label of the cell with the best median, be it by chance or not.
	Best string `json:"best"`
	// P is the probability of the best's distance to the nearest other by chance
	// (Mann-Whitney U, corrected by Holm for the number of cells); -1: not tested.
	P float64 `json:"p"`
	// Visible is the difference in percent, among those that are not told apart, from which on
	// these repeats would have shown it; 0: not worked out.
	Visible float64 `json:"visible_percent,omitempty"`
	// Ratio of the best to the worst, 1 or more.
	Ratio float64 `json:"ratio"`
	// Why says what limited the best and the worst.
	Why string `json:"why"`
	// None is why no winner is named.
	None string `json:"none,omitempty"`
	// Worst is the label of the last one. Ties are those that do not surely differ
	// from the best.
	Worst string   `json:"worst"`
	Ties  []string `json:"ties,omitempty"`
	// Ceiling says whether any cell ran into the CPUs' limit.
	Ceiling string `json:"cpu_ceiling"`
	// Text is all of it in words.
	Text string `json:"text"`

	list []contender // the best first
}

// loadAxes change the work, not the set-up.
var loadAxes = []string{"bs", "iodepth", "numjobs", "rw"}

// contender is a cell in a comparison.
type contender struct {
	label  string
	values []float64 // of the metric that decides
	median float64
	limit  Limit
}

// Judge compares the cells of a sweep under a workload: one verdict for each
// combination of the axes that change the work.
func Judge(r *Results, sweep, workload string) []Verdict {
	return r.judge(sweep, workload, r.figures())
}

func (r *Results) judge(sweep, workload string, figures map[string]*CellFigures) []Verdict {
	type group struct {
		load  string
		cells []*Cell
	}
	var groups []group
	for i := range r.Cells {
		c := &r.Cells[i]
		if c.Sweep != sweep || c.Workload != workload {
			continue
		}
		load, _ := c.split()
		at := slices.IndexFunc(groups, func(g group) bool { return g.load == load })
		if at < 0 {
			at = len(groups)
			groups = append(groups, group{load: load})
		}
		groups[at].cells = append(groups[at].cells, c)
	}
	var out []Verdict
	for _, g := range groups {
		v := Verdict{Sweep: sweep, Workload: workload, Load: g.load, P: -1}
		v.decide(g.cells, figures, r.metricOf(sweep, workload))
		out = append(out, v)
	}
	return out
}

// figures of every cell, by ID.
func (r *Results) figures() map[string]*CellFigures {
	out := make(map[string]*CellFigures, len(r.Cells))
	for i := range r.Cells {
		out[r.Cells[i].ID] = r.Cells[i].Figures(r.Environment.Accel)
	}
	return out
}

func (r *Results) metricOf(sweep, workload string) string {
	for _, s := range r.Sweeps {
		for _, w := range s.Workloads {
			if s.Name == sweep && w.Name == workload {
				return w.Metric
			}
		}
	}
	return ""
}

// split divides what the cell varies into the work and the set-up. Where nothing but
// the work varies, that is what is compared.
func (c *Cell) split() (load, setup string) {
	var work, rest []spec.Value
	for _, v := range c.Varied {
		if slices.Contains(loadAxes, v.Axis) {
			work = append(work, v)
		} else {
			rest = append(rest, v)
		}
	}
	if len(rest) == 0 {
		return "", c.Label()
	}
	parts := make([]string, len(work))
	for i, v := range work {
		parts[i] = v.Axis + "=" + v.Value
	}
	return strings.Join(parts, " "), label(rest)
}

// bigBlocks is the mean size of an I/O from which on bandwidth says more than IOPS.
const bigBlocks = 64 << 10

// decide fills in the verdict on cells that did the same work.
func (v *Verdict) decide(cells []*Cell, figures map[string]*CellFigures, metric string) {
	v.Metric = metric
	if v.Metric == "" {
		v.Metric = MetricIOPS
		if slices.ContainsFunc(cells, func(c *Cell) bool { return figures[c.ID].Blocks >= bigBlocks }) {
			v.Metric = MetricBW
		}
	}
	list := v.contenders(cells, figures)
	switch {
	case len(list) == 0:
		v.None = "no run counts"
	case len(list) == 1:
		v.None = fmt.Sprintf("only %s ran, there is nothing to compare it with", list[0].label)
		v.Why = list[0].label + ": " + list[0].limit.Text
	default:
		v.rank(list)
	}
	v.list = list
	v.Ceiling = ceiling(list)
	v.Text = v.sentence(list)
}

// contenders are the cells with runs that count, the best first.
func (v *Verdict) contenders(cells []*Cell, figures map[string]*CellFigures) []contender {
	var list []contender
	for _, c := range cells {
		f := figures[c.ID]
		m := f.Metric(v.figure())
		if m == nil || m.Median <= 0 {
			continue
		}
		_, setup := c.split()
		list = append(list, contender{setup, m.Values, m.Median, f.Limit})
	}
	slices.SortStableFunc(list, func(a, b contender) int {
		if v.lower() {
			a, b = b, a
		}
		return cmp.Compare(b.median, a.median)
	})
	return list
}

// figure is the direction and name of the metric that decides.
func (v *Verdict) figure() (direction, name string) {
	if v.Metric == MetricReadP99 {
		return "read", "lat_p99"
	}
	return Total, v.Metric
}

func (v *Verdict) lower() bool { return v.Metric == MetricReadP99 }

// rank decides between two or more.
func (v *Verdict) rank(list []contender) {
	best, worst := list[0], list[len(list)-1]
	v.Best, v.Worst = best.label, worst.label
	v.Ratio = max(best.median, worst.median) / min(best.median, worst.median)
	v.Why = fmt.Sprintf("%s: %s; %s: %s", best.label, best.limit.Text, worst.label, worst.limit.Text)
	if why := blurred(list); why != "" {
		v.None = why + ": no winner is named"
		return
	}
	if have, need := fewest(list), needed(len(list)); have < need {
		v.None = fmt.Sprintf("there are too few repeats to tell (%d; at least %d are needed)", have, need)
		return
	}
	v.test(list)
}

// blurred says why the figures are not of what is compared, "" if they are. It is one rule for all
// experiments: a cell that was held back by the emulation of its guests, or by programs that have
// nothing to do with the experiment, could be anywhere, and so could the others beside it.
func blurred(list []contender) string {
	switch {
	case slices.ContainsFunc(list, func(c contender) bool { return c.limit.Emulated }):
		return "the guests' CPU was the limit (TCG)"
	case slices.ContainsFunc(list, func(c contender) bool { return c.limit.Others }):
		return "other programs' use of the CPUs was the limit"
	}
	return ""
}

// test names a winner or the ties: the best against each of the others.
func (v *Verdict) test(list []contender) {
	ps := make([]float64, len(list)-1)
	for i, c := range list[1:] {
		ps[i] = stat.Compare(list[0].values, c.values).P
	}
	adjusted := holm(ps)
	v.P = slices.Max(adjusted)
	if v.Sure = v.P < stat.Alpha; v.Sure {
		v.Winner = v.Best
		return
	}
	for i, p := range adjusted {
		if p >= stat.Alpha {
			v.Ties = append(v.Ties, list[1+i].label)
			v.Visible = max(v.Visible, visible(list[0], list[1+i], len(ps)))
		}
	}
	v.None = fmt.Sprintf("no difference is visible between %s (%s)", enumerate(append([]string{v.Best}, v.Ties...)), p(v.P))
}

// largestVisible ends the search for a difference that a test would see.
const largestVisible = 20.0

// visible returns the difference of the medians in percent from which on the test would have told a
// and b apart, had their values scattered as they did and n tests been made. It is 0 where no
// difference would have.
func visible(a, b contender, n int) float64 {
	if a.median < b.median {
		a, b = b, a
	}
	tells := func(factor float64) bool {
		larger := slices.Clone(a.values)
		for i := range larger {
			larger[i] *= factor
		}
		return stat.Compare(larger, b.values).P*float64(n) < stat.Alpha
	}
	lo, hi := 1.0, largestVisible
	if !tells(hi) {
		return 0
	}
	for hi-lo > 0.002 {
		if mid := (lo + hi) / 2; tells(mid) {
			hi = mid
		} else {
			lo = mid
		}
	}
	return (hi*a.median/b.median - 1) * 100
}

// holm corrects the p values of tests that are made together, so that the chance
// of a single wrong "differs" among all stays that of one test.
func holm(ps []float64) []float64 {
	order := make([]int, len(ps))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(ps[a], ps[b]) })
	out := make([]float64, len(ps))
	top := 0.0
	for rank, i := range order {
		top = max(top, min(1, ps[i]*float64(len(ps)-rank)))
		out[i] = top
	}
	return out
}

// needed is how many repeats of each of n cells let the test come out below Alpha at all.
func needed(n int) int {
	for repeats := 4; ; repeats++ {
		// All values of one above all of the other: 2 of (2r over r) orders.
		orders := 1.0
		for i := 1; i <= repeats; i++ {
			orders *= float64(repeats+i) / float64(i)
		}
		if 2/orders*float64(n-1) < stat.Alpha || repeats == 100 {
			return repeats
		}
	}
}

func fewest(list []contender) int {
	n := math.MaxInt
	for _, c := range list {
		n = min(n, len(c.values))
	}
	return n
}
