package spec

import (
	"fmt"
	"strings"
)

// NodeName is the name of the i-th node, from 0: a, b, c …
func NodeName(i int) string { return string(rune('a' + i)) }

// Writes is how many bytes of a node's disk one run of the cell can write at most: what
// its backing may have to store beside what it began with.
func (s *Spec) Writes(c Cell) int64 {
	size := s.Disk.Size
	w := s.Workload(c.Workload)
	if w == nil || w.Precondition != "none" || c.Setup.Pass == "second" {
		return size
	}
	plan, err := w.plan(c.Options, c.FileSystem == noFileSystem)
	if err != nil {
		return size // Cells has said so
	}
	var files, end int64
	names := map[string]int64{}
	for _, j := range plan.Jobs {
		// On a file system files are written before they are read.
		if c.FileSystem != noFileSystem {
			for _, name := range j.Filenames {
				each := max(capped(j.Size, size)/int64(max(j.Files, 1)), capped(j.FileSize[1], size))
				names[name] = max(names[name], each)
			}
			continue
		}
		if !j.Mode.Write {
			continue
		}
		length := capped(j.Size, size)
		if length == 0 {
			return size
		}
		end = max(end, capped(j.Offset, size)+capped(j.OffsetIncrement, size)*int64(j.Clone)+length)
	}
	for _, n := range names {
		files += n
	}
	// Metadata and journal.
	if files > 0 {
		files += files/16 + 64<<20
	}
	return min(size, max(files, end))
}

// Text is the experiment as it was read, with what was set since.
func (s *Spec) Text() string {
	var b strings.Builder
	b.WriteString(s.source)
	for _, set := range s.sets {
		fmt.Fprintf(&b, "# --set %s\n", set)
	}
	return b.String()
}
