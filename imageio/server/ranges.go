package server

import "github.com/tidwall/btree"

// rangeSet is a union of byte ranges that knows its size: what a transfer has
// moved, counted once however often a range was sent again. Adding costs
// O(log n) amortized, since every range that is swallowed was once added.
type rangeSet struct {
	tree btree.Map[int64, int64] // start -> end; disjoint, not touching
	sum  int64
}

// add adds [start, end).
func (s *rangeSet) add(start, end int64) {
	if start >= end {
		return
	}
	s.tree.Descend(start, func(lo, hi int64) bool {
		if hi >= start {
			start, end = lo, max(hi, end)
		}
		return false
	})
	for {
		lo, hi, found := s.firstFrom(start)
		if !found || lo > end {
			break
		}
		end = max(end, hi)
		s.tree.Delete(lo)
		s.sum -= hi - lo
	}
	s.tree.Set(start, end)
	s.sum += end - start
}

func (s *rangeSet) firstFrom(start int64) (lo, hi int64, found bool) {
	s.tree.Ascend(start, func(l, h int64) bool {
		lo, hi, found = l, h, true
		return false
	})
	return lo, hi, found
}

// sumWith is the size of the union with ranges, which are not added.
func (s *rangeSet) sumWith(more [][2]int64) int64 {
	if len(more) == 0 {
		return s.sum
	}
	var extra rangeSet
	for _, r := range more {
		extra.add(r[0], r[1])
	}
	total := s.sum + extra.sum
	extra.tree.Scan(func(lo, hi int64) bool {
		total -= s.overlap(lo, hi)
		return true
	})
	return total
}

// overlap is the number of bytes of [lo, hi) in the set.
func (s *rangeSet) overlap(lo, hi int64) (n int64) {
	s.tree.Descend(lo, func(start, end int64) bool {
		if start < lo {
			n += max(min(end, hi)-lo, 0)
		}
		return false
	})
	s.tree.Ascend(lo, func(start, end int64) bool {
		if start >= hi {
			return false
		}
		n += min(end, hi) - start
		return true
	})
	return n
}
