package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/bench"
	"github.com/vmdisk/vmdisk/bench/engine"
	"github.com/vmdisk/vmdisk/bench/hist"
	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/bench/result"
)

// execution is one run in this node.
type execution struct {
	disk     *testDisk
	run      Run
	version  string
	gate     func(context.Context) error // nil: begin at once
	progress func(Progress)

	before usage
	began  int64 // monotonic time at which the gate opened
}

// enter passes the gate, and takes the time and the CPU figures there.
func (x *execution) enter(ctx context.Context) error {
	if x.gate != nil {
		if err := x.gate(ctx); err != nil {
			return err
		}
	}
	x.before = readUsage()
	x.began = Monotonic()
	return nil
}

// histEvery is the interval of the latency histograms.
const histEvery = "1000"

// native runs the job file by the built-in engine.
func (x *execution) native(ctx context.Context) (*Result, error) {
	q := &bench.Request{
		Files: []string{"-"}, Stdin: strings.NewReader(x.run.JobFile), Version: "vmdisk-" + x.version, Gate: x.enter,
		Set:      append([]string{"write_hist_log=lab", "log_hist_msec=" + histEvery}, x.run.Options...),
		Progress: x.tell,
		// The disk is the lab's; in a guest even its root is somewhere else.
		Force: true,
	}
	if x.disk.mount != "" {
		q.Set = append(q.Set, "directory="+x.disk.mount)
	} else {
		q.Target, q.Local, q.LocalPath = x.disk.opener.URL, x.disk.path != "", x.disk.path
	}
	q.Open = x.disk.opener.Open
	r, err := bench.Run(ctx, q)
	ended := Monotonic()
	if r == nil {
		return nil, err
	}
	res := x.convert(r)
	res.EndNS = ended
	switch failed := errors.Join(err, r.Failed()); {
	case failed != nil:
		res.Err = oneLine(failed)
	case ctx.Err() != nil:
		res.Err = "the run was stopped before its end"
	}
	return res, nil
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func (x *execution) tell(s engine.Status) {
	p := Progress{Share: s.Share, Stalled: int64(s.StalledFor)}
	for d := range s.IOPS {
		p.IOPS += s.IOPS[d]
		p.BW += s.BW[d]
	}
	if x.began != 0 {
		x.progress(p)
	}
}

// convert makes the engine's outcome the lab's. Times are since the gate opened.
func (x *execution) convert(r *result.Run) *Result {
	res := &Result{StartNS: x.began, Steady: true}
	x.before.since(res, x.disk.guest)
	for _, g := range r.Groups() {
		res.Jobs = append(res.Jobs, convertJob(r, g))
	}
	res.Stalls = nodeStalls(r)
	settled := false
	for _, j := range r.Jobs {
		if j.Steady != nil {
			settled = true
			res.Steady = res.Steady && j.Steady.Attained
		}
	}
	res.Steady = res.Steady && settled
	for _, b := range r.Bounds {
		if res.Bound == "" || b.What == "cpu" {
			res.Bound = b.What
		}
	}
	for _, n := range r.Notes {
		res.Notes = append(res.Notes, n.Text)
	}
	var text, normal bytes.Buffer
	if r.JSON(&text, true) == nil && text.Len() < maxLine/4 {
		res.JSON = text.Bytes()
	}
	if r.Normal(&normal) == nil {
		res.Text = normal.String()
	}
	return res
}

func convertJob(r *result.Run, g *result.Job) JobResult {
	j := JobResult{Name: g.Spec.Name, Group: g.Spec.Group, Jobs: max(g.Merged, 1)}
	if g.Err != nil {
		j.Err = oneLine(g.Err)
	}
	for d := range g.Dirs {
		j.Dirs[d] = convertDir(&g.Dirs[d])
	}
	for _, p := range g.Points {
		j.Points = append(j.Points, Point{AtNS: int64(p.At - r.Opened), TookNS: int64(p.Took), IOs: p.IOs, Bytes: p.Bytes, LatSumNS: p.LatSum})
	}
	for _, s := range g.Stalls {
		j.Stalls = append(j.Stalls, Stall{AtNS: int64(s.At - r.Opened), TookNS: int64(s.Took)})
	}
	for _, m := range r.Jobs {
		// A merged job has the logs of its first member alone.
		if m == g || g.Merged > 0 && m.Spec.GroupReporting && m.Spec.Group == g.Spec.Group {
			j.Hists = append(j.Hists, convertHists(m, r.Opened)...)
		}
	}
	return j
}

// A node's standstill is of a second, or of 100 median latencies but no less than the
// scheduler's own delays; as of a job.
const (
	longStall    = int64(time.Second)
	shortStall   = int64(10 * time.Millisecond)
	stallMedians = 100
)

func nodeStalls(r *result.Run) []Stall {
	var jobs []activity
	var all hist.Histogram
	for _, j := range r.Jobs {
		a := activity{begin: int64(j.Begin - r.Opened), end: int64(j.Begin + j.Elapsed - r.Opened)}
		for _, s := range j.Stalls {
			a.stalls = append(a.stalls, Stall{AtNS: int64(s.At - r.Opened), TookNS: int64(s.Took)})
		}
		jobs = append(jobs, a)
		for d := range j.Dirs {
			all.Merge(&j.Dirs[d].Clat)
		}
	}
	return standstills(jobs, min(longStall, max(shortStall, stallMedians*all.Percentile(50))))
}

func convertDir(d *result.Dir) DirResult {
	return DirResult{IOs: d.IOs, Bytes: d.Bytes, RuntimeNS: int64(d.Runtime), IOPS: d.IOPSMean(), BW: d.BWBytes(), Clat: latency(&d.Clat)}
}

func latency(h *hist.Histogram) Latency {
	return Latency{N: h.N(), Min: h.Min(), Max: h.Max(), Mean: h.Mean(), Stddev: h.Stddev(), Bins: h.Bins()}
}

func convertHists(j *result.Job, opened time.Duration) []HistPoint {
	var all []HistPoint
	for _, rec := range j.HistLog {
		p := HistPoint{AtNS: int64(j.Begin + rec.At - opened), Dir: rec.Dir}
		for i, n := range rec.Counts {
			if n > 0 {
				p.Bins = append(p.Bins, hist.Bin{Value: hist.Value(i), Count: n})
			}
		}
		if len(p.Bins) > 0 {
			all = append(all, p)
		}
	}
	return all
}

// resolve reads a job file as the built-in engine does.
func resolve(text string, options []string) (*jobfile.Plan, error) {
	plan, err := bench.Plan(&bench.Request{Files: []string{"-"}, Stdin: strings.NewReader(text), Set: options})
	if err != nil {
		return nil, fmt.Errorf("job file: %w", err)
	}
	return plan, nil
}
