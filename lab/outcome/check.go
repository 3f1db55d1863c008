package outcome

import (
	"fmt"

	"github.com/vmdisk/vmdisk/lab/agent"
)

// Bounds of what a run can hold. Nodes are not trusted, and files may be damaged in
// ways that leave them JSON; figures beyond these would overflow in sums and squares.
const (
	maxTime = 1e17 // ns, three years
	maxRate = 1e15 // I/Os or bytes a second
)

// check returns an error if the run holds what cannot have been measured.
func (run *Run) check() error {
	h := &run.Host
	rates := []float64{float64(run.WindowNS), h.Busy, h.IOWait, h.Steal, h.Load[0], h.Load[1], h.Load[2]}
	for _, p := range h.Processes {
		rates = append(rates, p.CPUs)
	}
	for _, d := range h.Devices {
		rates = append(rates, d.Utilization)
	}
	for _, p := range h.Points {
		rates = append(rates, p.Busy, p.IOWait, p.Steal, p.Device, p.IOFull)
		if !inTime(p.AtNS, 0) {
			return fmt.Errorf("a sample of the host at %d ns", p.AtNS)
		}
	}
	for _, v := range rates {
		if !(v >= 0 && v <= maxTime) {
			return fmt.Errorf("a figure of the host or window of %g", v)
		}
	}
	for i := range run.Nodes {
		if err := run.Nodes[i].check(); err != nil {
			return fmt.Errorf("node %s: %w", run.Nodes[i].Name, err)
		}
	}
	return nil
}

func (n *Node) check() error {
	if !inTime(n.AtNS, 0) {
		return fmt.Errorf("it began at %d ns", n.AtNS)
	}
	for _, w := range n.Window {
		if !(w.IOPS >= 0 && w.IOPS <= maxRate && w.BW >= 0 && w.BW <= maxRate && w.IOs < maxTime && validLatency(w.Lat)) {
			return fmt.Errorf("%g IOPS of %g bytes/s, latency %g ns", w.IOPS, w.BW, w.Lat.Mean)
		}
	}
	if err := checkStalls(n.Silent); err != nil || n.Result == nil {
		return err
	}
	if b := n.Result.CPUBusy; !(b >= 0 && b <= 1e6) {
		return fmt.Errorf("CPUs busy %g", b)
	}
	for i := range n.Result.Jobs {
		if err := checkJob(&n.Result.Jobs[i]); err != nil {
			return fmt.Errorf("job %s: %w", n.Result.Jobs[i].Name, err)
		}
	}
	return checkStalls(n.Result.Stalls)
}

func checkJob(j *agent.JobResult) error {
	for _, d := range j.Dirs {
		if !(d.BW >= 0 && d.BW <= maxRate) {
			return fmt.Errorf("bandwidth %g", d.BW)
		}
	}
	for _, p := range j.Points {
		if !inTime(p.AtNS, p.TookNS) {
			return fmt.Errorf("a point at %d ns of %d ns", p.AtNS, p.TookNS)
		}
	}
	return checkStalls(j.Stalls)
}

// checkStalls: a silence may begin before the run does.
func checkStalls(list []agent.Stall) error {
	for _, s := range list {
		if !inTime(max(s.AtNS, -s.AtNS), s.TookNS) {
			return fmt.Errorf("a stall at %d ns of %d ns", s.AtNS, s.TookNS)
		}
	}
	return nil
}

func validLatency(l agent.Latency) bool {
	for _, b := range l.Bins {
		if b.Count > maxTime || b.Value < 0 {
			return false
		}
	}
	return l.Mean >= 0 && l.Mean <= maxTime && l.Stddev >= 0 && l.Stddev <= maxTime && l.Min >= 0 && l.Max >= 0
}

func inTime(at, took int64) bool { return at >= 0 && at <= maxTime && took >= 0 && took <= maxTime }
