// Package suggest finds the known name that a mistyped one was meant to be.
package suggest

// longest is the longest name, in bytes, that is looked at: names are short, and
// the comparison's time grows with the square.
const longest = 64

// Nearest returns the known name that takes the fewest edits to make name into
// it, "" if all are too far to be what was meant. An edit is a byte more, less,
// changed, or two neighbours swapped. Of equally near ones it is the first.
func Nearest(name string, known []string) string {
	if len(name) > longest {
		return ""
	}
	best, limit := "", min(1+len(name)/4, 3) // more edits make another word
	for _, k := range known {
		if len(k) > longest {
			continue
		}
		if d := distance(name, k); d <= limit && d < len(k) {
			best, limit = k, d-1
		}
	}
	return best
}

// distance is Levenshtein's with swaps of neighbours (optimal string alignment).
func distance(a, b string) int {
	var before []int // the row before the last
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			change := last[j]
			if a[i] != b[j] {
				change++
			}
			row[j+1] = min(change, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
