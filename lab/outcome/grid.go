package outcome

import (
	"math"

	"github.com/vmdisk/vmdisk/report"
)

// grid is the time line of a chart. The nodes' own intervals begin at different times
// and vary in length; on one grid their lines can be compared and tabulated.
type grid struct {
	step int64 // ns
	n    int
}

// gridSteps is how many points a line has at most: more can't be seen, and pages with
// sixty cells must load.
const gridSteps = 240

func newGrid(run *Run) grid {
	var end, step int64
	for _, n := range run.Nodes {
		if n.Result == nil {
			continue
		}
		for _, j := range n.Result.Jobs {
			for _, p := range j.Points {
				end = max(end, n.AtNS+p.AtNS)
				step = max(step, p.TookNS)
			}
		}
	}
	if end <= 0 {
		return grid{}
	}
	// A long interval is one in which the node was stopped; a second is the usual.
	step = max(min(step, 1e9), end/gridSteps, 1e8)
	return grid{step, int((end + step - 1) / step)}
}

// bandwidth is the node's in MiB/s, all jobs and directions together: an interval
// that lies in several steps counts in each in proportion.
func (g grid) bandwidth(n *Node) []report.Point {
	if g.n == 0 || n.Result == nil {
		return nil
	}
	bytes := make([]float64, g.n)
	from, to := int64(math.MaxInt64), int64(0)
	for _, j := range n.Result.Jobs {
		for _, p := range j.Points {
			end := n.AtNS + p.AtNS
			begin := max(end-p.TookNS, 0)
			from, to = min(from, begin), max(to, end)
			sum := float64(p.Bytes[0] + p.Bytes[1] + p.Bytes[2])
			g.spread(bytes, begin, end, sum)
		}
	}
	var out []report.Point
	for i, b := range bytes {
		at := int64(i) * g.step
		// The steps at the edges hold only a part of the node's time.
		covered := min(at+g.step, to) - max(at, from)
		if covered*2 < g.step {
			continue
		}
		out = append(out, report.Point{X: float64(at+g.step) / 1e9, Y: b / float64(covered) * 1e9 / (1 << 20)})
	}
	return out
}

func (g grid) spread(into []float64, begin, end int64, sum float64) {
	if end <= begin {
		return
	}
	for i := begin / g.step; i < int64(g.n) && i*g.step < end; i++ {
		part := min(end, (i+1)*g.step) - max(begin, i*g.step)
		into[i] += sum * float64(part) / float64(end-begin)
	}
}
