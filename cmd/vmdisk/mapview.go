package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/vmdisk/vmdisk/disk"
	wire "github.com/vmdisk/vmdisk/nbd"
)

// mapFlag is the value of --map.
type mapFlag disk.MapName

// String returns the name as we have it.
func (m *mapFlag) String() string { return string(*m) }

// Type names the value in the help.
func (m *mapFlag) Type() string { return "NAME" }

// Set takes our names and those of NBD.
func (m *mapFlag) Set(s string) error {
	if name, ok := strings.CutPrefix(s, wire.ContextDirtyPrefix); ok {
		s = disk.DirtyPrefix + name
	}
	switch {
	case s == string(disk.Allocation), s == wire.ContextAllocation:
		*m = mapFlag(disk.Allocation)
	case s == string(disk.Depth), s == wire.ContextDepth:
		*m = mapFlag(disk.Depth)
	case strings.HasPrefix(s, disk.DirtyPrefix) && len(s) > len(disk.DirtyPrefix):
		*m = mapFlag(s)
	default:
		return fmt.Errorf("unknown map: use %s, %sNAME or %s", disk.Allocation, disk.DirtyPrefix, disk.Depth)
	}
	return nil
}

// wanted is what a server is asked for besides the allocation map.
func (m mapFlag) wanted() []disk.MapName {
	if m == mapFlag(disk.Allocation) {
		return nil
	}
	return []disk.MapName{disk.MapName(m)}
}

// check fails where d does not have the map. Without an allocation map, all of a
// disk is data.
func (m mapFlag) check(d *disk.Disk) error {
	if info := d.Info(); m == mapFlag(disk.Allocation) || info.HasMap(disk.MapName(m)) {
		return nil
	}
	return fmt.Errorf("%s has no map %s: see that the bitmap exists and that the server exports it (qemu-nbd --bitmap=NAME)", d, string(m))
}

// mapsFlag is a repeatable --map.
type mapsFlag []disk.MapName

func (m *mapsFlag) String() string {
	var list []string
	for _, name := range *m {
		list = append(list, string(name))
	}
	return strings.Join(list, ",")
}

// Type names the value in the help.
func (m *mapsFlag) Type() string { return "NAME" }

// Set adds a map.
func (m *mapsFlag) Set(s string) error {
	var one mapFlag
	if err := one.Set(s); err != nil {
		return err
	}
	*m = append(*m, disk.MapName(one))
	return nil
}

// check fails where d lacks one of the maps.
func (m mapsFlag) check(d *disk.Disk) error {
	for _, name := range m {
		if err := mapFlag(name).check(d); err != nil {
			return err
		}
	}
	return nil
}

// segment is a run of the disk of one kind.
type segment struct {
	off, length int64
	flags       disk.ExtentFlags
	value       uint32
}

func (s *segment) zero() bool { return s.flags&disk.ExtentZero != 0 }

// view is how the segments of a map are told apart and shown.
type view struct {
	name   disk.MapName
	kind   func(s *segment) string
	record func(s *segment) any // for JSON
	// The part that is shown.
	from, most int64
}

func (m mapFlag) view() view {
	switch name := disk.MapName(m); {
	case name == disk.Depth:
		return view{name: name, kind: depthKind, record: depthRecord, most: math.MaxInt64}
	case strings.HasPrefix(string(m), disk.DirtyPrefix):
		return view{name: name, kind: dirtyKind, record: dirtyRecord, most: math.MaxInt64}
	}
	return view{name: disk.Allocation, kind: allocationKind, record: allocationRecord, most: math.MaxInt64}
}

func allocationKind(s *segment) string {
	zero, hole := s.zero(), s.flags&disk.ExtentHole != 0
	switch {
	case s.flags&disk.ExtentBacking != 0:
		return "backing"
	case hole && zero:
		return "hole"
	case hole:
		return "unallocated"
	case zero:
		return "zero"
	}
	return "data"
}

func allocationRecord(s *segment) any {
	return struct {
		Offset  int64 `json:"offset"`
		Length  int64 `json:"length"`
		Zero    bool  `json:"zero"`
		Hole    bool  `json:"hole"`
		Backing bool  `json:"backing"`
	}{s.off, s.length, s.zero(), s.flags&disk.ExtentHole != 0, s.flags&disk.ExtentBacking != 0}
}

func dirtyKind(s *segment) string {
	if s.value != 0 {
		return "dirty"
	}
	return "clean"
}

func dirtyRecord(s *segment) any {
	return struct {
		Offset int64 `json:"offset"`
		Length int64 `json:"length"`
		Dirty  bool  `json:"dirty"`
	}{s.off, s.length, s.value != 0}
}

func depthKind(s *segment) string { return fmt.Sprint("depth ", s.value) }

func depthRecord(s *segment) any {
	return struct {
		Offset int64  `json:"offset"`
		Length int64  `json:"length"`
		Depth  uint32 `json:"depth"`
	}{s.off, s.length, s.value}
}

// walk calls f with each segment of the disk, neighbours of one kind joined.
func (v *view) walk(ctx context.Context, d *disk.Disk, f func(segment) error) error {
	var run segment
	batch := make([]disk.Extent, 0, disk.ExtentBatch)
	size := d.Size()
	size = v.from + min(max(size-v.from, 0), v.most)
	for off := v.from; off < size; {
		extents, err := d.Extents(ctx, v.name, off, size-off, batch[:0])
		if err != nil {
			return err
		}
		for _, e := range extents {
			next := segment{off, min(e.Len, size-off), e.Flags, e.Value}
			off += next.length
			if run.length > 0 && v.kind(&run) == v.kind(&next) {
				run.length += next.length
				continue
			}
			if run.length > 0 {
				if err := f(run); err != nil {
					return err
				}
			}
			run = next
		}
	}
	if run.length == 0 {
		return nil
	}
	return f(run)
}

func (v *view) text(ctx context.Context, w io.Writer, d *disk.Disk) error {
	if _, err := fmt.Fprintf(w, "%20s %20s  type\n", "offset", "length"); err != nil {
		return err
	}
	return v.walk(ctx, d, func(s segment) error {
		_, err := fmt.Fprintf(w, "%20d %20d  %s\n", s.off, s.length, v.kind(&s))
		return err
	})
}

// json prints an array, a line per segment, as it goes.
func (v *view) json(ctx context.Context, w io.Writer, d *disk.Disk) error {
	sep := "[\n  "
	if err := v.walk(ctx, d, func(s segment) error {
		line, err := json.Marshal(v.record(&s))
		if err == nil {
			_, err = fmt.Fprintf(w, "%s%s", sep, line)
		}
		sep = ",\n  "
		return err
	}); err != nil {
		return err
	}
	end := "\n]\n"
	if sep == "[\n  " {
		end = "[]\n"
	}
	_, err := io.WriteString(w, end)
	return err
}
