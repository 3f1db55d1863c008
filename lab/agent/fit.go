package agent

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/vmdisk/vmdisk/bench/hist"
	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// Bins are a histogram's buckets that are not empty, ascending. In JSON they are
// one flat list, nanoseconds and count in turn: with objects an hour of latencies
// by the second takes 50 MB.
type Bins []hist.Bin

// MarshalJSON writes the flat list.
func (b Bins) MarshalJSON() ([]byte, error) {
	flat := make([]uint64, 0, 2*len(b))
	for _, bin := range b {
		flat = append(flat, uint64(max(bin.Value, 0)), bin.Count)
	}
	return json.Marshal(flat)
}

// UnmarshalJSON reads the flat list.
func (b *Bins) UnmarshalJSON(text []byte) error {
	var flat []uint64
	if err := json.Unmarshal(text, &flat); err != nil {
		return err
	}
	if len(flat)%2 != 0 {
		return errors.New("bins of a histogram: a value without a count")
	}
	*b = make(Bins, 0, len(flat)/2)
	for i := 0; i < len(flat); i += 2 {
		if flat[i] > 1<<62 {
			return fmt.Errorf("bins of a histogram: %d ns is no latency", flat[i])
		}
		*b = append(*b, hist.Bin{Value: int64(flat[i]), Count: flat[i+1]})
	}
	return nil
}

// plus adds the counts of o, ascending as b is.
func (b Bins) plus(o Bins) Bins {
	sum := make(Bins, 0, len(b)+len(o))
	for len(b) > 0 && len(o) > 0 {
		switch {
		case b[0].Value < o[0].Value:
			sum, b = append(sum, b[0]), b[1:]
		case b[0].Value > o[0].Value:
			sum, o = append(sum, o[0]), o[1:]
		default:
			sum = append(sum, hist.Bin{Value: b[0].Value, Count: b[0].Count + o[0].Count})
			b, o = b[1:], o[1:]
		}
	}
	return append(append(sum, b...), o...)
}

// fitLimit is how large a result may be: well below what a message may be, and
// small enough to be written three times over in a guest of 256 MiB.
const fitLimit = 16 << 20

// fit shortens a result that is larger than limit: first the engine's own report
// goes, then intervals are added up, two and two.
func (r *Result) fit(limit int) error {
	if err := r.drop(limit); err != nil {
		return err
	}
	for factor := 1; ; {
		size, err := r.size()
		if err != nil || size <= limit {
			return err
		}
		before := r.parts()
		for i := range r.Jobs {
			r.Jobs[i].coarsen()
		}
		if factor *= 2; factor == 2 {
			r.Notes = append(r.Notes, "the run has so many intervals that pairs of them were added up")
		}
		if r.parts() == before {
			return fmt.Errorf("the result of %d jobs has %d bytes, more than the %d that can be sent: run fewer jobs, or use group_reporting", len(r.Jobs), size, limit)
		}
	}
}

// drop removes the engine's own report if the result is too large with it.
func (r *Result) drop(limit int) error {
	size, err := r.size()
	if err != nil || size <= limit || len(r.JSON)+len(r.Text) == 0 {
		return err
	}
	r.JSON, r.Text = nil, ""
	r.Notes = append(r.Notes, "the engine's own report is too large to be kept")
	return nil
}

func (r *Result) size() (int, error) {
	text, err := json.Marshal(r)
	return len(text), err
}

// parts is how many intervals there are.
func (r *Result) parts() int {
	n := 0
	for _, j := range r.Jobs {
		n += len(j.Points) + len(j.Hists)
	}
	return n
}

// coarsen adds up the intervals of a job two and two.
func (j *JobResult) coarsen() {
	var points []Point
	for i := 0; i < len(j.Points); i++ {
		p := j.Points[i]
		if i+1 < len(j.Points) && adjacent(p, j.Points[i+1]) {
			i++
			p = p.plus(j.Points[i])
		}
		points = append(points, p)
	}
	j.Points = points
	var hists []HistPoint
	for dir := range uint8(jobfile.Dirs) {
		open := -1 // the one that waits for its second half
		for _, h := range j.Hists {
			switch {
			case h.Dir != dir:
			case open < 0:
				open = len(hists)
				hists = append(hists, h)
			default:
				sum := &hists[open]
				sum.TookNS += h.AtNS - sum.AtNS
				sum.AtNS, sum.Bins = h.AtNS, sum.Bins.plus(h.Bins)
				open = -1
			}
		}
	}
	j.Hists = hists
}

// adjacent: nothing lies between the two intervals, such as a ramp or a pause.
func adjacent(a, b Point) bool {
	const slack = int64(1e6)
	gap := b.AtNS - b.TookNS - a.AtNS
	return gap > -slack && gap < slack
}

func (p Point) plus(o Point) Point {
	p.AtNS, p.TookNS = o.AtNS, p.TookNS+o.TookNS
	for d := range p.IOs {
		p.IOs[d] += o.IOs[d]
		p.Bytes[d] += o.Bytes[d]
		p.LatSumNS[d] += o.LatSumNS[d]
	}
	return p
}
