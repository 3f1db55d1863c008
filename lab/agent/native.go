package agent

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
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
	gate     func(ctx context.Context, almost func()) error // nil: begin at once
	progress func(Progress)

	before usage
	began  atomic.Int64 // monotonic time at which the gate opened, 0 until then
}

// enter passes the gate, and takes the CPU figures and the time there.
func (x *execution) enter(ctx context.Context) error {
	take := func() { x.before = readUsage() }
	if x.gate == nil {
		take()
	} else if err := x.gate(ctx, take); err != nil {
		return err
	}
	x.began.Store(Monotonic())
	return nil
}

// where are the options that put the jobs' files on the node's file system.
func (x *execution) where() []string {
	if x.disk.mount == "" {
		return nil
	}
	return []string{"directory=" + x.disk.mount}
}

// plan reads the job file as the built-in engine does. Jobs must not reach past the
// node's file system: on the device below they would destroy it.
func (x *execution) plan() (*jobfile.Plan, error) {
	set := slices.Concat(x.run.Options, x.where())
	plan, err := bench.Plan(&bench.Request{Files: []string{"-"}, Stdin: strings.NewReader(x.run.JobFile), Set: set})
	if err != nil {
		return nil, fmt.Errorf("job file: %w", err)
	}
	if x.disk.mount == "" {
		return plan, nil
	}
	for _, j := range plan.Jobs {
		for _, name := range j.Filenames {
			if !strings.HasPrefix(filepath.Clean(name), x.disk.mount+"/") {
				return nil, fmt.Errorf("job file: job %s names %s, but this disk has a file system, and jobs use files on it: leave filename= out, or set file_system to none", j.Name, name)
			}
		}
	}
	return plan, nil
}

// histEvery is the interval of the latency histograms.
const histEvery = time.Second

// native runs the job file by the built-in engine.
func (x *execution) native(ctx context.Context) (*Result, error) {
	if _, err := x.plan(); err != nil {
		return nil, err
	}
	q := &bench.Request{
		Files: []string{"-"}, Stdin: strings.NewReader(x.run.JobFile), Version: "vmdisk-" + x.version, Gate: x.enter,
		// Logs stay in memory; those that a job asks for would grow with every I/O.
		Set: slices.Concat(
			[]string{"write_hist_log=lab", fmt.Sprintf("log_hist_msec=%d", histEvery.Milliseconds()), "log_avg_msec=1000"},
			x.run.Options, x.where()),
		Progress: x.tell,
		// The disk is the lab's; in a guest even its root is somewhere else.
		Force: true,
		Open:  x.disk.opener.Open,
	}
	if x.disk.mount == "" {
		q.Target, q.Local, q.LocalPath = x.disk.opener.URL, x.disk.path != "", x.disk.path
	}
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
		res.Err = stopped
	}
	return res, nil
}

// stopped marks the result of a run that the lab ended.
const stopped = "the run was stopped before its end"

func (x *execution) tell(s engine.Status) {
	p := Progress{Share: s.Share, Stalled: int64(s.StalledFor)}
	for d := range s.IOPS {
		p.IOPS += s.IOPS[d]
		p.BW += s.BW[d]
	}
	if x.began.Load() != 0 {
		x.progress(p)
	}
}

// convert makes the engine's outcome the lab's. Times are since the gate opened.
func (x *execution) convert(r *result.Run) *Result {
	res := &Result{StartNS: x.began.Load(), Steady: true}
	if res.StartNS != 0 { // else it was stopped at the gate
		x.before.since(res, x.disk.guest)
	}
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
	if r.JSON(&text, true) == nil && text.Len() < fitLimit {
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
	var sum histSums
	for _, m := range r.Jobs {
		// A merged job has the logs of its first member alone.
		if m == g || m.Spec.GroupReporting && g.Spec.GroupReporting && m.Spec.Group == g.Spec.Group {
			sum.add(m, r.Opened)
		}
	}
	j.Hists = sum.points()
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

// histSums adds up the latencies of several jobs by interval.
type histSums map[histSlot]*histSum

type histSlot struct {
	number int64 // of intervals
	dir    uint8
}

type histSum struct {
	fromNS int64
	atNS   int64
	counts []uint64
}

// add puts each of the job's intervals to those that end nearest to the same second.
func (s *histSums) add(j *result.Job, opened time.Duration) {
	if *s == nil {
		*s = histSums{}
	}
	var last [jobfile.Dirs]time.Duration
	for _, rec := range j.HistLog {
		// An interval without I/O has no record.
		from, at := j.Begin+max(last[rec.Dir], rec.At-histEvery)-opened, j.Begin+rec.At-opened
		last[rec.Dir] = rec.At
		slot := histSlot{int64(at.Round(histEvery) / histEvery), rec.Dir}
		sum := (*s)[slot]
		if sum == nil {
			sum = &histSum{fromNS: int64(from), counts: make([]uint64, hist.Buckets)}
			(*s)[slot] = sum
		}
		sum.fromNS, sum.atNS = min(sum.fromNS, int64(from)), max(sum.atNS, int64(at))
		for i, n := range rec.Counts {
			sum.counts[i] += n
		}
	}
}

func (s histSums) points() []HistPoint {
	var all []HistPoint
	for slot, sum := range s {
		p := HistPoint{AtNS: sum.atNS, TookNS: sum.atNS - sum.fromNS, Dir: slot.dir}
		for i, n := range sum.counts {
			if n > 0 {
				p.Bins = append(p.Bins, hist.Bin{Value: hist.Value(i), Count: n})
			}
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b HistPoint) int {
		return cmp.Or(cmp.Compare(a.AtNS, b.AtNS), cmp.Compare(a.Dir, b.Dir))
	})
	return all
}
