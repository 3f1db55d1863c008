package outcome

import (
	"fmt"
	"strings"

	"github.com/vmdisk/vmdisk/report"
)

// busyBefore is the share of the host's CPUs, used before anything was started, from which on the
// reader is warned.
const busyBefore = 0.15

// answer is what a reader in a hurry reads: what to use, what is open, and what makes it doubtful.
func (a *analysis) answer() report.Answer {
	var out report.Answer
	open := map[string][]string{}
	var reasons []string
	for i := range a.Sweeps {
		s := &a.Sweeps[i]
		for j := range s.Workloads {
			for _, v := range a.verdicts(s, &s.Workloads[j]) {
				name := loaded(v.Load, heading(a.Results, s, &s.Workloads[j]))
				if v.Sure {
					out.Text = append(out.Text, name+": "+a.use(&v))
					continue
				}
				why := v.undecided()
				if open[why] == nil {
					reasons = append(reasons, why)
				}
				open[why] = append(open[why], name)
			}
		}
	}
	for _, why := range reasons {
		out.Text = append(out.Text, fmt.Sprintf("Not sure, because %s: %s.", why, strings.Join(open[why], "; ")))
	}
	out.Warnings = a.warnings()
	return out
}

// use is the advice of a sure verdict.
func (a *analysis) use(v *Verdict) string {
	list := v.list
	best, second, worst := list[0], list[1], list[len(list)-1]
	text := fmt.Sprintf("use %s: %s than %s", best.label, v.faster(best, second), second.label)
	if len(list) > 2 {
		text += fmt.Sprintf(" and %s than %s, the last", v.faster(best, worst), worst.label)
	}
	return fmt.Sprintf("%s; sure (%s). %s: %s.", text, p(v.P), worst.label, worst.limit.Text)
}

// faster compares two medians as people do.
func (v *Verdict) faster(a, b contender) string {
	word, ratio := "faster", a.median/b.median
	if v.lower() {
		word, ratio = "shorter waits", b.median/a.median
	}
	if ratio >= 2 {
		return fmt.Sprintf("%.1f times %s", ratio, word)
	}
	return fmt.Sprintf("%.0f %% %s", (ratio-1)*100, word)
}

// undecided is why a verdict names no winner, in words that verdicts share.
func (v *Verdict) undecided() string {
	if len(v.Ties) > 0 {
		why := "no difference is visible"
		if v.Visible > 0 {
			why += fmt.Sprintf(" (one of %.0f %% would have been)", v.Visible)
		}
		return why
	}
	return strings.TrimSuffix(v.None, ": no winner is named")
}

func (a *analysis) warnings() []string {
	var out []string
	if a.Partial {
		out = append(out, "the experiment was stopped before all runs were done; what is here is partial.")
	}
	if b := a.Environment.Before; b != nil && b.Busy >= busyBefore {
		out = append(out, fmt.Sprintf("other programs already used %s of the host's CPUs before the start (load %.1f).", percent(b.Busy), b.Load1))
	}
	return append(out, a.Notes...)
}
