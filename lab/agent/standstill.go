package agent

import (
	"cmp"
	"slices"
)

// activity is one job's time line: from its first I/O to its end, and its stalls.
type activity struct {
	begin, end int64
	stalls     []Stall
}

// standstills are the times in which every job that was at work stood still: what a
// user of the node sees as a lock-up. One slow job beside others that go on is
// none. shortest is the least length that counts.
func standstills(jobs []activity, shortest int64) []Stall {
	type edge struct {
		at             int64
		active, halted int
	}
	var edges []edge
	for _, j := range jobs {
		edges = append(edges, edge{j.begin, 1, 0}, edge{j.end, -1, 0})
		for _, s := range j.stalls {
			from, to := max(s.AtNS, j.begin), min(s.AtNS+s.TookNS, j.end)
			if to > from {
				edges = append(edges, edge{from, 0, 1}, edge{to, 0, -1})
			}
		}
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Compare(a.at, b.at) })
	var out []Stall
	active, halted, since := 0, 0, int64(-1)
	for i, e := range edges {
		active += e.active
		halted += e.halted
		if i+1 < len(edges) && edges[i+1].at == e.at {
			continue // what happens at the same time is one change
		}
		still := halted > 0 && halted == active
		switch {
		case still && since < 0:
			since = e.at
		case !still && since >= 0:
			if e.at-since >= shortest {
				out = append(out, Stall{AtNS: since, TookNS: e.at - since})
			}
			since = -1
		}
	}
	return out
}
