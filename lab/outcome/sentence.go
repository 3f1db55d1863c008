package outcome

import (
	"fmt"
	"math"
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
	figures := fmt.Sprintf("%s with %s against %s of %s, a ratio of %.2f", best.label, v.value(best.median), v.value(worst.median), worst.label, v.Ratio)
	switch {
	case v.None != "":
		fmt.Fprintf(&b, "%s. Measured was %s.", capital(v.None), figures)
	case v.Sure:
		fmt.Fprintf(&b, "%s wins %s (%s).", best.label, strings.TrimPrefix(figures, best.label+" "), p(v.P))
	default:
		fmt.Fprintf(&b, "%s leads %s; %s.", best.label, strings.TrimPrefix(figures, best.label+" "), v.doubt(list))
	}
	fmt.Fprintf(&b, " %s.", capital(v.Why))
	if best.limit.Emulated && v.None == "" {
		b.WriteString(" Under TCG the leader could not show all it can: the ratio is at least this.")
	}
	return b.String()
}

// doubt says why a leader is no winner.
func (v *Verdict) doubt(list []contender) string {
	if have, need := fewest(list), needed(len(list)); have < need {
		return fmt.Sprintf("too few repeats to be sure (%d; %d are needed)", have, need)
	}
	if len(v.Ties) == len(list)-1 {
		return fmt.Sprintf("but no difference is sure (%s)", p(v.P))
	}
	return fmt.Sprintf("but it does not surely differ from %s (%s)", strings.Join(v.Ties, ", "), p(v.P))
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
	if strings.HasPrefix(s, "the ") || strings.HasPrefix(s, "no ") || strings.HasPrefix(s, "only ") {
		return strings.ToUpper(s[:1]) + s[1:]
	}
	return s
}

// ceiling says which cells ran into the CPUs' limit: their figures are of the CPUs,
// not of what is compared.
func ceiling(list []contender) string {
	var hit []string
	top := contender{limit: Limit{host: math.NaN()}}
	for _, c := range list {
		if c.limit.What == LimitHostCPU || c.limit.What == LimitGuestCPU {
			hit = append(hit, fmt.Sprintf("%s (host's CPUs %s busy)", c.label, percent(c.limit.host)))
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
