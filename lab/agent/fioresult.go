package agent

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/bench/hist"
	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// fioOutput is what matters of fio's JSON+.
type fioOutput struct {
	Jobs []fioJob `json:"jobs"`
}

type fioJob struct {
	Name  string `json:"jobname"`
	Group int    `json:"groupid"`
	Error int    `json:"error"`
	// User and System are percent of Elapsed, which adds up over jobs.
	User    float64 `json:"usr_cpu"`
	System  float64 `json:"sys_cpu"`
	Elapsed float64 `json:"job_runtime"` // ms
	Read    fioDir  `json:"read"`
	Write   fioDir  `json:"write"`
	Trim    fioDir  `json:"trim"`
}

type fioDir struct {
	Bytes   uint64  `json:"io_bytes"`
	IOs     uint64  `json:"total_ios"`
	BW      float64 `json:"bw_bytes"`
	IOPS    float64 `json:"iops"`
	Runtime int64   `json:"runtime"` // ms
	Clat    struct {
		Min    int64             `json:"min"`
		Max    int64             `json:"max"`
		Mean   float64           `json:"mean"`
		Stddev float64           `json:"stddev"`
		N      uint64            `json:"N"`
		Bins   map[string]uint64 `json:"bins"`
	} `json:"clat_ns"`
}

// maxMS bounds times in milliseconds, which are kept in nanoseconds.
const maxMS = math.MaxInt64 / 1_000_000

// check refuses times that overflow.
func (j *fioJob) check() error {
	for _, percent := range []float64{j.User, j.System} {
		if used := percent / 100 * j.Elapsed; !(used >= 0 && used < maxMS) {
			return fmt.Errorf("%g ms of processor time", used)
		}
	}
	for _, d := range []*fioDir{&j.Read, &j.Write, &j.Trim} {
		if d.Runtime < 0 || d.Runtime >= maxMS {
			return fmt.Errorf("it ran for %d ms", d.Runtime)
		}
	}
	return nil
}

func (f *fioRun) parse(text []byte) (*Result, error) {
	res := &Result{}
	out, err := splitOutput(text, res)
	if err != nil {
		return nil, err
	}
	entries := reports(f.plan)
	if len(out.Jobs) != len(entries) {
		return nil, fmt.Errorf("it has %d jobs, the job file %d", len(out.Jobs), len(entries))
	}
	logs, err := f.readLogs()
	if err != nil {
		return nil, err
	}
	offset := unixOffset()
	res.StartNS = f.firstIO(logs, offset)
	for i, j := range out.Jobs {
		if err := j.check(); err != nil {
			return nil, fmt.Errorf("job %s: %w", j.Name, err)
		}
		r := JobResult{Name: j.Name, Group: j.Group, Jobs: len(entries[i])}
		if j.Error != 0 {
			r.Err = fmt.Sprintf("fio reports error %d", j.Error)
		}
		res.UserNS += int64(j.User / 100 * j.Elapsed * 1e6)
		res.SystemNS += int64(j.System / 100 * j.Elapsed * 1e6)
		for d, dir := range [jobfile.Dirs]fioDir{j.Read, j.Write, j.Trim} {
			r.Dirs[d] = dir.convert()
		}
		r.Points = f.points(entries[i], logs, res.StartNS+offset)
		r.Stalls = gaps(r.Points)
		r.settle()
		res.Jobs = append(res.Jobs, r)
	}
	return res, nil
}

// splitOutput takes fio's JSON out of what it wrote; around it stands the report for
// people, and before that what fio has to say of the job file.
func splitOutput(text []byte, res *Result) (fioOutput, error) {
	var out fioOutput
	at := 0
	if !bytes.HasPrefix(text, []byte("{")) {
		if at = bytes.Index(text, []byte("\n{")) + 1; at == 0 {
			return out, errors.New("no JSON")
		}
	}
	d := json.NewDecoder(bytes.NewReader(text[at:]))
	var raw json.RawMessage
	if err := d.Decode(&raw); err != nil {
		return out, err
	}
	end := at + int(d.InputOffset())
	res.JSON = raw
	res.Text = string(text[:at]) + strings.TrimLeft(string(text[end:]), "\n")
	return out, json.Unmarshal(raw, &out)
}

func parseCount(s string) uint64 {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func (d fioDir) convert() DirResult {
	c := d.Clat
	l := Latency{N: c.N, Min: c.Min, Max: c.Max, Mean: c.Mean, Stddev: c.Stddev}
	for ns, count := range c.Bins {
		if v, err := strconv.ParseInt(ns, 10, 64); err == nil {
			l.Bins = append(l.Bins, hist.Bin{Value: v, Count: count})
		}
	}
	slices.SortFunc(l.Bins, func(a, b hist.Bin) int { return cmp.Compare(a.Value, b.Value) })
	return DirResult{IOs: d.IOs, Bytes: d.Bytes, RuntimeNS: d.Runtime * 1e6, IOPS: d.IOPS, BW: d.BW, Clat: l}
}

// logLine is one line of a log: the value of the interval that ends at a time.
type logLine struct {
	unixMS int64
	value  float64 // KiB/s or I/Os per second
	dir    int
}

// fioLogs are the logs of each job by its number: bandwidth and IOPS.
type fioLogs map[int][2][]logLine

func (f *fioRun) readLogs() (fioLogs, error) {
	logs := fioLogs{}
	for _, j := range f.plan.Jobs {
		var both [2][]logLine
		for i, kind := range []string{"bw", "iops"} {
			text, err := os.ReadFile(filepath.Join(f.dir, fmt.Sprintf("log_%s.%d.log", kind, j.Number)))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			for line := range strings.Lines(string(text)) {
				if l, ok := parseLogLine(line); ok {
					both[i] = append(both[i], l)
				}
			}
		}
		logs[j.Number] = both
	}
	return logs, nil
}

// parseLogLine reads "ms, value, direction, bs, prio".
func parseLogLine(line string) (l logLine, ok bool) {
	fields := strings.Split(line, ",")
	if len(fields) < 3 {
		return l, false
	}
	ms, err := strconv.ParseInt(strings.TrimSpace(fields[0]), 10, 64)
	dir := parseCount(fields[2])
	return logLine{ms, float64(parseCount(fields[1])), int(dir)}, err == nil && ms >= 0 && ms < maxMS && dir < jobfile.Dirs
}

// firstIO is when the first job began, on the monotonic clock: one interval (and the
// ramp, of which nothing is logged) before the end of the first that was logged. fio
// itself takes a tenth of a second to start, in an emulated guest more than one.
func (f *fioRun) firstIO(logs fioLogs, unixOffset int64) int64 {
	began := f.x.began.Load()
	first := int64(math.MaxInt64)
	for _, j := range f.plan.Jobs {
		for _, lines := range logs[j.Number] {
			if len(lines) > 0 && j.Phase == 0 {
				first = min(first, lines[0].unixMS*1e6-j.RampTime.Nanoseconds())
			}
		}
	}
	if first == math.MaxInt64 {
		return began
	}
	return max(began, first-f.interval()*1e6-unixOffset)
}

// unixOffset is the time of day minus the monotonic clock. The reading that was
// disturbed least counts.
func unixOffset() int64 {
	offset, width := int64(0), int64(math.MaxInt64)
	for range 5 {
		before := Monotonic()
		now := time.Now().UnixNano()
		if took := Monotonic() - before; took < width {
			offset, width = now-before-took/2, took
		}
	}
	return offset
}

// amount is how much of what a line of a log stands for.
type amount struct {
	atNS int64 // of the time of day
	kind int   // 0: bytes, 1: I/Os
	dir  int
	n    float64
}

// amounts of a log. A line is of the time since the one before; where none is near,
// nothing was done in between, and it is of one interval.
func amounts(lines []logLine, kind int, step int64) []amount {
	var all []amount
	var last [jobfile.Dirs]int64
	for _, l := range lines {
		at := l.unixMS * 1e6
		span := at - last[l.dir]
		if span > 2*step {
			span = step
		}
		last[l.dir] = at
		n := l.value * float64(span) / 1e9
		if kind == 0 {
			n *= 1024
		}
		all = append(all, amount{at, kind, l.dir, n})
	}
	return all
}

// points adds the logs of the jobs of an entry up: lines within half an interval are
// of the same one, since fio looks after all jobs in turn. origin is the time of day
// that they are since.
func (f *fioRun) points(jobs reported, logs fioLogs, origin int64) []Point {
	step := f.interval() * 1e6
	var list []amount
	for _, j := range jobs {
		for kind, lines := range logs[j.Number] {
			list = append(list, amounts(lines, kind, step)...)
		}
	}
	slices.SortFunc(list, func(a, b amount) int { return cmp.Compare(a.atNS, b.atNS) })
	var all []Point
	began := int64(0)
	for _, a := range list {
		at := max(a.atNS-origin, 0)
		if len(all) == 0 || at-began > step/2 {
			took := step
			if n := len(all); n > 0 && at-all[n-1].AtNS <= 2*step {
				took = at - all[n-1].AtNS
			}
			all = append(all, Point{TookNS: took})
			began = at
		}
		p := &all[len(all)-1]
		p.TookNS += at - max(p.AtNS, began)
		p.AtNS = at
		if a.kind == 0 {
			p.Bytes[a.dir] += whole(a.n)
		} else {
			p.IOs[a.dir] += whole(a.n)
		}
	}
	return all
}

// settle makes the points add up to what the job did: fio logs no last interval that
// is shorter than the others.
func (r *JobResult) settle() {
	var sum Point
	for _, p := range r.Points {
		sum = sum.plus(p)
	}
	for d, dir := range r.Dirs {
		if sum.IOs[d] == 0 && sum.Bytes[d] == 0 && dir.IOs > 0 {
			p := Point{AtNS: dir.RuntimeNS, TookNS: dir.RuntimeNS}
			p.IOs[d], p.Bytes[d] = dir.IOs, dir.Bytes
			r.Points = append(r.Points, p)
			continue
		}
		for i := range r.Points {
			scale(&r.Points[i].IOs[d], dir.IOs, sum.IOs[d])
			scale(&r.Points[i].Bytes[d], dir.Bytes, sum.Bytes[d])
		}
	}
	slices.SortStableFunc(r.Points, func(a, b Point) int { return cmp.Compare(a.AtNS, b.AtNS) })
}

func scale(n *uint64, to, from uint64) {
	if from > 0 {
		*n = whole(float64(*n) * float64(to) / float64(from))
	}
}

// whole rounds an amount, as far as there are numbers.
func whole(n float64) uint64 { return uint64(math.Round(min(max(n, 0), math.MaxInt64))) }

// stallGap is the shortest gap in fio's logs that counts as a stall.
const stallGap = time.Second

// gaps are times without any I/O in the logs, after the first.
func gaps(points []Point) []Stall {
	var all []Stall
	for i := 1; i < len(points); i++ {
		before, p := points[i-1].AtNS, points[i]
		if gap := p.AtNS - p.TookNS - before; gap >= int64(stallGap) {
			all = append(all, Stall{AtNS: before, TookNS: gap})
		}
	}
	return all
}
