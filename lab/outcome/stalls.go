package outcome

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/lab/agent"
)

// Stalls sums up the times in which nodes had I/O in flight and none of it ended,
// wherever in the run they were.
type Stalls struct {
	Count     int   `json:"count"`
	LongestNS int64 `json:"longest_ns"`
	// Overlapping is how many of them met a stall of another node; OverlapNS the
	// longest time in which two or more nodes stood still together; Most the largest
	// number of nodes that did.
	Overlapping int   `json:"overlapping"`
	OverlapNS   int64 `json:"longest_overlap_ns"`
	Most        int   `json:"most_at_once"`
	// Held are the shorter times in which nodes of an overloaded host got nothing done; they
	// are not among the stalls. HeldNS is the longest of them.
	Held   int   `json:"held,omitempty"`
	HeldNS int64 `json:"longest_held_ns,omitempty"`
	// Lockups are times without a sign of life from a node's agent.
	Lockups         int   `json:"lockups"`
	LongestLockupNS int64 `json:"longest_lockup_ns"`
}

// add counts those of another run in.
func (s *Stalls) add(o Stalls) {
	s.Count += o.Count
	s.LongestNS = max(s.LongestNS, o.LongestNS)
	s.Overlapping += o.Overlapping
	s.OverlapNS = max(s.OverlapNS, o.OverlapNS)
	s.Most = max(s.Most, o.Most)
	s.Held += o.Held
	s.HeldNS = max(s.HeldNS, o.HeldNS)
	s.Lockups += o.Lockups
	s.LongestLockupNS = max(s.LongestLockupNS, o.LongestLockupNS)
}

// span is a stretch of time of a run, in nanoseconds since its earliest node's start.
type span struct{ from, to int64 }

// stalls are the node's, on the common time line.
func (n *Node) stalls() []span {
	var all []agent.Stall
	if n.Result != nil {
		for _, s := range n.Result.Stalls {
			all = append(all, agent.Stall{AtNS: s.AtNS + n.AtNS, TookNS: s.TookNS})
		}
	}
	return union(all)
}

// union joins what overlaps, in order of time.
func union(list []agent.Stall) []span {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b agent.Stall) int { return cmp.Compare(a.AtNS, b.AtNS) })
	var out []span
	for _, s := range list {
		end := s.AtNS + s.TookNS
		if last := len(out) - 1; last >= 0 && s.AtNS <= out[last].to {
			out[last].to = max(out[last].to, end)
			continue
		}
		out = append(out, span{s.AtNS, end})
	}
	return out
}

func sum(list []span) (n int, longest int64) {
	for _, s := range list {
		longest = max(longest, s.to-s.from)
	}
	return len(list), longest
}

// overloadedStall is how long a node of an overloaded host has to stand still for a stall. What has
// too few CPUs for all holds everybody up for tens and hundreds of milliseconds, again and
// again; four emulated guests on two CPUs had 300 such times in each run.
const overloadedStall = int64(time.Second)

// overloaded reports whether CPUs were used up, so that short times without a completion say nothing
// of the disks.
func (run *Run) overloaded() bool {
	busy := slices.ContainsFunc(run.Nodes, func(n Node) bool { return n.Result != nil && n.Result.CPUBusy >= guestFull })
	return busy || run.Host.Busy+run.Host.Steal >= hostFull
}

// stallsOf are the stalls of node i that stand out of what the host did to all alike, and the others.
func (run *Run) stallsOf(i int) (out, held []span) {
	all := run.Nodes[i].stalls()
	if !run.overloaded() {
		return all, nil
	}
	for _, s := range all {
		if s.to-s.from >= overloadedStall {
			out = append(out, s)
		} else {
			held = append(held, s)
		}
	}
	return out, held
}

func (run *Run) stalls() Stalls {
	var s Stalls
	nodes := make([][]span, len(run.Nodes))
	for i := range run.Nodes {
		n := &run.Nodes[i]
		var short []span
		nodes[i], short = run.stallsOf(i)
		held, longestHeld := sum(short)
		s.Held += held
		s.HeldNS = max(s.HeldNS, longestHeld)
		count, longest := sum(nodes[i])
		s.Count += count
		s.LongestNS = max(s.LongestNS, longest)
		lockups, longest := sum(union(n.Silent))
		s.Lockups += lockups
		s.LongestLockupNS = max(s.LongestLockupNS, longest)
	}
	s.Overlapping = overlapping(nodes)
	s.OverlapNS, s.Most = together(nodes)
	return s
}

// overlapping counts the stalls that meet one of another node.
func overlapping(nodes [][]span) int {
	count := 0
	for i, mine := range nodes {
		for _, a := range mine {
			for j, others := range nodes {
				if i != j && meets(a, others) {
					count++
					break
				}
			}
		}
	}
	return count
}

func meets(a span, list []span) bool {
	return slices.ContainsFunc(list, func(b span) bool { return a.from < b.to && b.from < a.to })
}

// together returns the longest time in which at least two nodes stood still, and
// how many did at most.
func together(nodes [][]span) (longest int64, most int) {
	type edge struct {
		at   int64
		step int
	}
	var edges []edge
	for _, list := range nodes {
		for _, s := range list {
			edges = append(edges, edge{s.from, 1}, edge{s.to, -1})
		}
	}
	// Where one ends as another begins they are not together.
	slices.SortFunc(edges, func(a, b edge) int {
		if a.at != b.at {
			return cmp.Compare(a.at, b.at)
		}
		return a.step - b.step
	})
	now, since := 0, int64(0)
	for _, e := range edges {
		if now >= 2 && now+e.step < 2 {
			longest = max(longest, e.at-since)
		}
		if now < 2 && now+e.step >= 2 {
			since = e.at
		}
		now += e.step
		most = max(most, now)
	}
	return longest, most
}

// class is what a process does in the I/O path, "" if nothing.
func class(process string) string {
	first, _, _ := strings.Cut(process, " ")
	if slices.Contains(costClasses, first) {
		return first
	}
	return ""
}
