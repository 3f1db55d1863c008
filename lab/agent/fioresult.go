package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vmdisk/vmdisk/bench/hist"
	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// fioOutput is what matters of fio's JSON+.
type fioOutput struct {
	Jobs []fioJob `json:"jobs"`
}

type fioJob struct {
	Name    string            `json:"jobname"`
	Group   int               `json:"groupid"`
	Error   int               `json:"error"`
	Options map[string]string `json:"job options"`
	Read    fioDir            `json:"read"`
	Write   fioDir            `json:"write"`
	Trim    fioDir            `json:"trim"`
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
	// fio prints notes before its JSON.
	at := bytes.IndexByte(text, '{')
	if at < 0 {
		return nil, errors.New("no JSON")
	}
	var out fioOutput
	if err := json.Unmarshal(text[at:], &out); err != nil {
		return nil, err
	}
	res := &Result{}
	if len(text) < maxLine/4 {
		res.JSON = text[at:]
	}
	taken := map[int]bool{}
	var all []activity
	for _, j := range out.Jobs {
		r := JobResult{Name: j.Name, Group: j.Group, Jobs: max(1, atoi(j.Options["numjobs"]))}
		if j.Error != 0 {
			r.Err = fmt.Sprintf("fio reports error %d", j.Error)
		}
		for d, dir := range [jobfile.Dirs]fioDir{j.Read, j.Write, j.Trim} {
			r.Dirs[d] = dir.convert()
		}
		// The logs of all clones of a section go to the first job of that name.
		if i := slices.Index(f.sections, j.Name); i >= 0 && !taken[i] {
			taken[i] = true
			var err error
			if r.Points, err = f.points(i); err != nil {
				return nil, err
			}
			r.Stalls = gaps(r.Points)
		}
		res.Jobs = append(res.Jobs, r)
		if n := len(r.Points); n > 0 {
			all = append(all, activity{end: r.Points[n-1].AtNS, stalls: r.Stalls})
		}
	}
	res.Stalls = standstills(all, int64(stallGap))
	return res, nil
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 1
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
	slices.SortFunc(l.Bins, func(a, b hist.Bin) int { return int(min(max(a.Value-b.Value, -1), 1)) })
	return DirResult{IOs: d.IOs, Bytes: d.Bytes, RuntimeNS: d.Runtime * 1e6, IOPS: d.IOPS, BW: d.BW, Clat: l}
}

// points reads the bandwidth and IOPS logs of a section and adds its clones up,
// interval by interval.
func (f *fioRun) points(section int) ([]Point, error) {
	step := f.interval() * 1e6
	at := map[int64]*Point{}
	for _, kind := range []string{"bw", "iops"} {
		files, err := filepath.Glob(filepath.Join(f.dir, fmt.Sprintf("log%d_%s.*.log", section, kind)))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			for line := range strings.Lines(string(text)) {
				addLogLine(at, line, kind, step)
			}
		}
	}
	all := make([]Point, 0, len(at))
	for _, p := range at {
		all = append(all, *p)
	}
	slices.SortFunc(all, func(a, b Point) int { return int(min(max(a.AtNS-b.AtNS, -1), 1)) })
	return all, nil
}

// addLogLine adds "ms, value, direction, bs, prio" to the interval that it is of.
// The last line of a log may be of a shorter interval; that it counts as a whole
// one is fio's own error.
func addLogLine(at map[int64]*Point, line, kind string, step int64) {
	fields := strings.Split(line, ",")
	if len(fields) < 3 {
		return
	}
	var n [3]int64
	for i := range n {
		v, err := strconv.ParseInt(strings.TrimSpace(fields[i]), 10, 64)
		if err != nil {
			return
		}
		n[i] = v
	}
	if n[2] < 0 || n[2] >= jobfile.Dirs {
		return
	}
	end := (n[0]*1e6 + step/2) / step * step // clones are some ms apart
	p := at[end]
	if p == nil {
		p = &Point{AtNS: end, TookNS: step}
		at[end] = p
	}
	amount := float64(n[1]) * float64(step) / 1e9
	if kind == "bw" {
		p.Bytes[n[2]] += uint64(amount * 1024)
	} else {
		p.IOs[n[2]] += uint64(amount)
	}
}

// gaps are times without any I/O in the logs.
func gaps(points []Point) []Stall {
	var all []Stall
	for i, p := range points {
		before := int64(0)
		if i > 0 {
			before = points[i-1].AtNS
		}
		if gap := p.AtNS - p.TookNS - before; gap >= int64(stallGap) {
			all = append(all, Stall{AtNS: before, TookNS: gap})
		}
	}
	return all
}
