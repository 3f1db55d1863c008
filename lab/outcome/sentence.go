package outcome

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// sentence is the verdict in words.
func (v *Verdict) sentence(list []contender) string {
	var b strings.Builder
	if v.Load != "" {
		b.WriteString(v.Load + ": ")
	}
	if len(list) < 2 {
		b.WriteString(capital(v.None) + ".")
		return b.String()
	}
	best, worst := list[0], list[len(list)-1]
	switch {
	case v.Sure:
		fmt.Fprintf(&b, "%s wins with %s against %s of %s, a ratio of %.2f (%s).", best.label, v.value(best.median), v.value(worst.median), worst.label, v.Ratio, p(v.P))
	default:
		fmt.Fprintf(&b, "%s%s. Measured were %s of %s and %s of %s, a ratio of %.2f.", capital(v.None), v.seen(), v.value(best.median), best.label, v.value(worst.median), worst.label, v.Ratio)
	}
	fmt.Fprintf(&b, " %s.", capital(v.Why))
	return b.String()
}

// seen says what the repeats could have shown, and what they did show beside the ties.
func (v *Verdict) seen() string {
	if len(v.Ties) == 0 {
		return ""
	}
	out := "; these repeats would have shown no difference"
	if v.Visible > 0 {
		out = fmt.Sprintf("; these repeats would have shown one of %.0f %%", math.Ceil(v.Visible))
	}
	if v.Worst != "" && !slices.Contains(v.Ties, v.Worst) {
		out += ". Surely behind them is " + v.Worst
	}
	return out
}

// enumerate joins names as prose does.
func enumerate(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

func (v *Verdict) value(x float64) string {
	switch v.Metric {
	case MetricBW:
		return bandwidth(x)
	case MetricReadP99:
		return "a p99 of reads of " + duration(x)
	}
	return figures(x) + " IOPS"
}

// p writes a probability.
func p(v float64) string {
	if v < 0.001 {
		return "p < 0.001"
	}
	return fmt.Sprintf("p = %.3f", v)
}

func capital(s string) string {
	// Only prose: a label of a cell keeps its letters.
	if slices.ContainsFunc([]string{"the ", "no ", "only ", "other ", "there "}, func(word string) bool { return strings.HasPrefix(s, word) }) {
		return strings.ToUpper(s[:1]) + s[1:]
	}
	return s
}

// cpuLimits are the limits that are CPUs, with what is shown then.
var cpuLimits = []string{LimitHostCPU, LimitGuestCPU, LimitClientCPU, LimitServerCPU}

// ceiling says which cells ran into the CPUs' limit: their figures are of the CPUs,
// not of what is compared.
func ceiling(list []contender) string {
	var hit []string
	top := contender{limit: Limit{host: math.NaN()}}
	for _, c := range list {
		if slices.Contains(cpuLimits, c.limit.What) {
			hit = append(hit, fmt.Sprintf("%s (%s; the host was %s busy)", c.label, c.limit.short(), percent(c.limit.host)))
		}
		if !(c.limit.host <= top.limit.host) {
			top = c
		}
	}
	switch {
	case len(hit) > 0:
		return "CPU ceiling: reached by " + strings.Join(hit, ", ") + ": what they show is the CPUs' limit, not the disks'."
	case len(list) == 0:
		return ""
	}
	return fmt.Sprintf("CPU ceiling: not reached; the most was %s of the host's CPUs, by %s.", percent(top.limit.host), top.label)
}
