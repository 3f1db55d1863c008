package gate

import (
	"fmt"
	"math"

	"github.com/vmdisk/vmdisk/bench/hist"
	"github.com/vmdisk/vmdisk/lab/agent"
	"github.com/vmdisk/vmdisk/lab/outcome"
)

// count fills in what follows from the nodes' results.
func count(run *outcome.Run, parts []*part, maxDriftPPM float64) {
	first, start, end := bounds(parts)
	run.SpreadNS = start - first
	run.WindowAtNS = start - first
	run.WindowNS = max(end-start, 0)
	for _, p := range parts {
		n := outcome.Node{Name: p.Name, Result: p.result, OffsetNS: p.before.OffsetNS, AtNS: p.start() - first}
		n.DriftPPM, _ = p.drift()
		n.Silent = silences(p.Conn.Silences(), first, p.end())
		for d := range n.Window {
			n.Window[d] = figures(p, d, start, end)
		}
		if why := p.broken(maxDriftPPM); why != "" && run.Discarded == "" {
			run.Discarded = fmt.Sprintf("node %s: %s", p.Name, why)
		}
		run.Nodes = append(run.Nodes, n)
	}
	if run.Discarded == "" && run.WindowNS == 0 {
		run.Discarded = fmt.Sprintf("the nodes never ran at the same time: the first had ended %.3f s before the last began", float64(start-end)/1e9)
	}
}

// bounds returns, on the host's clock, the first start, the last start and the
// first end of all nodes.
func bounds(parts []*part) (first, start, end int64) {
	first, start, end = math.MaxInt64, math.MinInt64, math.MaxInt64
	for _, p := range parts {
		first, start, end = min(first, p.start()), max(start, p.start()), min(end, p.end())
	}
	return first, start, end
}

// start and end of the node's run on the host's clock. The end goes by the clocks'
// offset after the run, so that a drift does not move it.
func (p *part) start() int64 { return p.result.StartNS + p.before.OffsetNS }
func (p *part) end() int64   { return p.result.EndNS + p.after.OffsetNS }

// drift is by how many millionths the node's clock ran faster than the host's.
// It is 0 where the two measurements of the offset are not fine enough to tell;
// sure is the part of it that no error of theirs explains.
func (p *part) drift() (ppm, sure float64) {
	moved := p.before.OffsetNS - p.after.OffsetNS // the offset is host minus node
	unsure := p.before.ErrNS + p.after.ErrNS
	span := p.after.AtNS - p.before.AtNS
	if abs(moved) <= unsure || span <= 0 {
		return 0, 0
	}
	return float64(moved) / float64(span) * 1e6, float64(abs(moved)-unsure) / float64(span) * 1e6
}

func abs(n int64) int64 { return max(n, -n) }

// broken says why the node's result does not count.
func (p *part) broken(maxDriftPPM float64) string {
	if ppm, sure := p.drift(); sure > maxDriftPPM {
		return fmt.Sprintf("its clock ran %+.2f %% against the host's", ppm/1e4)
	}
	if p.result.Err != "" {
		return p.result.Err
	}
	for _, j := range p.result.Jobs {
		if j.Err != "" {
			return fmt.Sprintf("job %s: %s", j.Name, j.Err)
		}
	}
	return ""
}

// silences keeps those that overlap the run, and makes them relative to its begin.
func silences(all []agent.Stall, first, end int64) []agent.Stall {
	var kept []agent.Stall
	for _, s := range all {
		if s.AtNS < end && s.AtNS+s.TookNS > first {
			kept = append(kept, agent.Stall{AtNS: s.AtNS - first, TookNS: s.TookNS})
		}
	}
	return kept
}

// figures are of one node and direction within the window [start, end) of the
// host's clock. An interval that lies in it partly counts in proportion.
func figures(p *part, dir int, start, end int64) outcome.Figures {
	var f outcome.Figures
	if end <= start {
		return f
	}
	begin := p.start()
	var ios, bytes, latency float64
	for _, j := range p.result.Jobs {
		for _, x := range j.Points {
			at := begin + x.AtNS
			share := overlap(at-x.TookNS, at, start, end)
			ios += share * float64(x.IOs[dir])
			bytes += share * float64(x.Bytes[dir])
			latency += share * float64(x.LatSumNS[dir])
		}
	}
	seconds := float64(end-start) / 1e9
	f.IOs, f.Bytes = uint64(math.Round(ios)), uint64(math.Round(bytes))
	f.IOPS, f.BW = ios/seconds, bytes/seconds
	f.Lat = latencies(p.result.Jobs, dir, begin, start, end)
	if f.Lat.N == 0 && ios > 0 {
		f.Lat.Mean = latency / ios
	}
	return f
}

// overlap is the share of [a, b) that lies in [from, to).
func overlap(a, b, from, to int64) float64 {
	if b <= a {
		return 0
	}
	return float64(max(min(b, to)-max(a, from), 0)) / float64(b-a)
}

// latencies merges the histograms of the intervals that lie in the window with half
// of their time or more: the last one of a node may end some microseconds after it. A
// job without intervals gives the histogram of its whole run.
func latencies(jobs []agent.JobResult, dir int, begin, start, end int64) agent.Latency {
	var h hist.Histogram
	for _, j := range jobs {
		if len(j.Hists) == 0 {
			merge(&h, j.Dirs[dir].Clat)
			continue
		}
		for _, x := range j.Hists {
			if at := begin + x.AtNS; int(x.Dir) == dir && overlap(at-x.TookNS, at, start, end) >= 0.5 {
				mergeBins(&h, x.Bins)
			}
		}
	}
	return agent.Latency{N: h.N(), Min: h.Min(), Max: h.Max(), Mean: h.Mean(), Stddev: h.Stddev(), Bins: h.Bins()}
}

// merge adds a histogram. One that contradicts itself comes from a node and is not
// trusted.
func merge(h *hist.Histogram, l agent.Latency) {
	if l.Min < 0 || l.Max < l.Min {
		return
	}
	if o, err := hist.FromBins(l.Bins, l.Min, l.Max, l.Mean, l.Stddev); err == nil {
		h.Merge(o)
	}
}

// mergeBins adds bins whose exact figures are not known: their middles stand for
// them.
func mergeBins(h *hist.Histogram, bins []hist.Bin) {
	var n uint64
	var sum float64
	for _, b := range bins {
		n += b.Count
		sum += float64(b.Value) * float64(b.Count)
	}
	if n == 0 {
		return
	}
	mean := sum / float64(n)
	var squares float64
	for _, b := range bins {
		squares += float64(b.Count) * (float64(b.Value) - mean) * (float64(b.Value) - mean)
	}
	stddev := 0.0
	if n > 1 {
		stddev = math.Sqrt(squares / float64(n-1))
	}
	merge(h, agent.Latency{N: n, Min: bins[0].Value, Max: bins[len(bins)-1].Value, Mean: mean, Stddev: stddev, Bins: bins})
}
