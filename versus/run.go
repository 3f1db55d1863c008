package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// Result is what a case measured.
type Result struct {
	Case string `json:"case"`
	What string `json:"what"`
	Unit Unit   `json:"unit"`
	// Runs has a list of samples per contender, in rounds.
	Runs  []Run     `json:"runs"`
	Goals []Verdict `json:"goals,omitempty"`
	Err   string    `json:"error,omitempty"`
	// Skip is why the case does not run here.
	Skip string `json:"skipped,omitempty"`
}

// Run is one contender's samples.
type Run struct {
	Name    string   `json:"name"`
	Info    bool     `json:"info,omitempty"`
	Samples []Sample `json:"samples"`
	Err     string   `json:"error,omitempty"`
}

// ours: the run is of the program under test.
func (r Run) ours() bool { return strings.HasPrefix(r.Name, oursName) }

// runner runs cases.
type runner struct {
	env      Env // Dir is the parent of the cases' folders
	rounds   int
	progress io.Writer
}

// run runs one case. An error of a peer is noted with its run; one of ours, or
// of the preparation, is the case's.
func (r *runner) run(ctx context.Context, c Case) Result {
	res := Result{Case: c.Name, What: c.What, Unit: c.Unit}
	err := r.measure(ctx, c, &res)
	switch {
	case errors.Is(err, errSkip):
		res.Skip = err.Error()
		return res
	case err != nil:
		res.Err = err.Error()
		return res
	}
	for _, g := range c.Goals {
		res.Goals = append(res.Goals, judge(g, c.Unit, res.Runs))
	}
	return res
}

func (r *runner) measure(ctx context.Context, c Case, res *Result) (err error) {
	e := r.env
	if e.Dir, err = os.MkdirTemp(r.env.Dir, "case"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	contenders, err := c.Prepare(ctx, &e)
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	for _, k := range contenders {
		res.Runs = append(res.Runs, Run{Name: k.Name, Info: k.Info})
	}
	for round := range r.rounds {
		for i := range contenders {
			i = (i + round) % len(contenders)
			if err := r.once(ctx, contenders[i], &res.Runs[i], round); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *runner) once(ctx context.Context, k Contender, run *Run, round int) error {
	if run.Err != "" || (k.Rounds > 0 && round >= k.Rounds) {
		return nil
	}
	_, _ = fmt.Fprintf(r.progress, "  round %d %s\x1b[K\r", round+1, k.Name)
	s, err := k.Run(ctx, round)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && run.ours():
		return fmt.Errorf("%s: %w", k.Name, err)
	case err != nil:
		run.Err = err.Error()
	default:
		run.Samples = append(run.Samples, s)
	}
	return nil
}

// Verdict says whether a goal was reached.
type Verdict struct {
	Goal   string  `json:"goal"`
	Peer   string  `json:"peer,omitempty"`
	Actual float64 `json:"actual"`
	Limit  float64 `json:"limit"`
	Met    bool    `json:"met"`
	// Known is false when there was nothing to compare with.
	Known bool `json:"known"`
}

// judge compares our first contender with what the goal names.
func judge(g Goal, unit Unit, runs []Run) Verdict {
	sign := "<="
	if g.AtLeast {
		sign = ">="
	}
	v := Verdict{Limit: g.Limit}
	i := slices.IndexFunc(runs, Run.ours)
	if i < 0 || len(runs[i].Samples) == 0 {
		v.Goal = fmt.Sprintf("%s %s %g", g.Metric, sign, g.Limit)
		return v
	}
	mine := runs[i]
	if g.Against == absolute {
		v.Goal = fmt.Sprintf("%s %s %s", g.Metric, sign, show(unit, g.Limit))
		v.Actual, v.Known = median(values(mine, g.Metric)), true
	} else {
		v.Goal = fmt.Sprintf("%s %s %.2fx", g.Metric, sign, g.Limit)
		peer, ok := rival(g, unit, runs)
		if !ok {
			return v
		}
		v.Peer, v.Known = peer.Name, true
		v.Actual = ratio(mine, peer, g.Metric)
	}
	v.Met = v.Actual <= g.Limit
	if g.AtLeast {
		v.Met = v.Actual >= g.Limit
	}
	return v
}

// rival is the named contender or the best peer by the case's value.
func rival(g Goal, unit Unit, runs []Run) (Run, bool) {
	var best Run
	found := false
	for _, r := range runs {
		if len(r.Samples) == 0 {
			continue
		}
		if g.Against != "" {
			if r.Name == g.Against {
				return r, true
			}
			continue
		}
		if r.ours() || r.Info {
			continue
		}
		if !found || better(unit, median(values(r, Value)), median(values(best, Value))) {
			best, found = r, true
		}
	}
	return best, found
}

func better(unit Unit, a, b float64) bool {
	if unit == Rate {
		return a > b
	}
	return a < b
}

func values(r Run, m Metric) []float64 {
	v := make([]float64, len(r.Samples))
	for i, s := range r.Samples {
		v[i] = m.of(s)
	}
	return v
}

// ratio is the median over the rounds of a / b.
func ratio(a, b Run, m Metric) float64 {
	n := min(len(a.Samples), len(b.Samples))
	v := make([]float64, 0, n)
	for i := range n {
		if d := m.of(b.Samples[i]); d != 0 {
			v = append(v, m.of(a.Samples[i])/d)
		}
	}
	return median(v)
}

// median of v; 0 for none.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}
