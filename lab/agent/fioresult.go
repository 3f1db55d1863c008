package agent

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
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
	Read  fioDir `json:"read"`
	Write fioDir `json:"write"`
	Trim  fioDir `json:"trim"`
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
	res.StartNS = f.start(logs)
	for i, j := range out.Jobs {
		r := JobResult{Name: j.Name, Group: j.Group, Jobs: len(entries[i])}
		if j.Error != 0 {
			r.Err = fmt.Sprintf("fio reports error %d", j.Error)
		}
		for d, dir := range [jobfile.Dirs]fioDir{j.Read, j.Write, j.Trim} {
			r.Dirs[d] = dir.convert()
		}
		r.Points = f.points(entries[i], logs, res.StartNS)
		r.Stalls = gaps(r.Points)
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
	return logLine{ms, float64(parseCount(fields[1])), int(dir)}, err == nil && dir < jobfile.Dirs
}

// start is when the first job began, on the monotonic clock: one interval (and the
// ramp, of which nothing is logged) before the end of the first that was logged. fio
// itself takes a tenth of a second to start, in an emulated guest more than one.
func (f *fioRun) start(logs fioLogs) int64 {
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
	return max(began, first-f.interval()*1e6-unixOffset())
}

// unixOffset is the time of day minus the monotonic clock.
func unixOffset() int64 { return time.Now().UnixNano() - Monotonic() }

// points adds the logs of the jobs up, interval by interval. The last line of a log
// may be of a shorter interval; that it counts as a whole one is fio's own error.
func (f *fioRun) points(jobs reported, logs fioLogs, start int64) []Point {
	step := f.interval() * 1e6
	origin := start + unixOffset()
	at := map[int64]*Point{}
	for _, j := range jobs {
		for kind, lines := range logs[j.Number] {
			for _, l := range lines {
				end := (l.unixMS*1e6 - origin + step/2) / step * step // clones are some ms apart
				p := at[end]
				if p == nil {
					p = &Point{AtNS: end, TookNS: step}
					at[end] = p
				}
				amount := l.value * float64(step) / 1e9
				if kind == 0 {
					p.Bytes[l.dir] += uint64(math.Round(amount * 1024))
				} else {
					p.IOs[l.dir] += uint64(math.Round(amount))
				}
			}
		}
	}
	all := make([]Point, 0, len(at))
	for _, end := range slices.Sorted(maps.Keys(at)) {
		if end > 0 {
			all = append(all, *at[end])
		}
	}
	return all
}

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
