package client

import "slices"

// span is a range of bytes.
type span struct{ from, to int64 }

// spans is a set of bytes as sorted ranges that neither overlap nor touch. A
// server that answers in order makes one.
type spans []span

// maxSpans bounds the memory that a server can make a read take.
const maxSpans = 1 << 14

func (s *spans) reset() { *s = (*s)[:0] }

// add adds [from, to), which must not be empty; false if some of it is there
// already or there are too many ranges.
func (s *spans) add(from, to int64) bool {
	list := *s
	i := len(list)
	if i > 0 && list[i-1].to > from {
		i, _ = slices.BinarySearchFunc(list, from, func(e span, at int64) int {
			if e.from < at {
				return -1
			}
			return 1
		})
	}
	left, right := i > 0 && list[i-1].to == from, i < len(list) && list[i].from == to
	switch {
	case i > 0 && list[i-1].to > from, i < len(list) && list[i].from < to:
		return false
	case left && right:
		list[i-1].to = list[i].to
		*s = slices.Delete(list, i, i+1)
	case left:
		list[i-1].to = to
	case right:
		list[i].from = from
	case len(list) >= maxSpans:
		return false
	default:
		*s = slices.Insert(list, i, span{from, to})
	}
	return true
}

// full reports whether the set is [0, n).
func (s spans) full(n int64) bool { return len(s) == 1 && s[0] == span{0, n} }
