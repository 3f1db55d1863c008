package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/diskurl"
)

// segment is a run of the disk of one kind.
type segment struct {
	Offset  int64 `json:"offset"`
	Length  int64 `json:"length"`
	Zero    bool  `json:"zero"`
	Hole    bool  `json:"hole"`
	Backing bool  `json:"backing"`
}

func (s *segment) kind() string {
	switch {
	case s.Backing:
		return "backing"
	case s.Hole && s.Zero:
		return "hole"
	case s.Hole:
		return "unallocated"
	case s.Zero:
		return "zero"
	}
	return "data"
}

func newMap() *cobra.Command {
	var d diskFlags
	var summary, asJSON bool
	c := &cobra.Command{
		Use:   "map DISK",
		Short: "Show which parts of a disk hold data, zeros and holes",
		Long: `Show which parts of a disk hold data, zeros and holes, in order.

data: must be read; zero: reads as zeros, allocated; hole: reads as zeros, takes no space;
unallocated: takes no space, content unknown; backing: comes from the backing file.
A disk that cannot tell is data throughout. --summary counts runs that must be read
(data) and runs that read as zeros.`,
		Args: args(1, 1, "one DISK"),
		RunE: func(c *cobra.Command, a []string) error {
			dk, err := diskurl.Open(c.Context(), a[0], d.opening(true))
			if err != nil {
				return err
			}
			out := bufio.NewWriter(c.OutOrStdout())
			show := mapText
			switch {
			case summary && asJSON:
				show = mapSummaryJSON
			case summary:
				show = mapSummaryText
			case asJSON:
				show = mapJSON
			}
			return errors.Join(show(c.Context(), out, dk), out.Flush(), dk.Close())
		},
	}
	d.register(c)
	c.Flags().BoolVar(&summary, "summary", false, "count the segments and their sizes")
	c.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return c
}

// walk calls f with each segment of the disk, neighbours of one kind joined.
func walk(ctx context.Context, d *disk.Disk, f func(segment) error) error {
	var run segment
	batch := make([]disk.Extent, 0, 1024)
	size := d.Size()
	for off := int64(0); off < size; {
		extents, err := d.Extents(ctx, disk.Allocation, off, size-off, batch[:0])
		if err != nil {
			return err
		}
		for _, e := range extents {
			next := segment{
				Offset: off, Length: min(e.Len, size-off),
				Zero: e.Flags&disk.ExtentZero != 0, Hole: e.Flags&disk.ExtentHole != 0, Backing: e.Flags&disk.ExtentBacking != 0,
			}
			off += next.Length
			if run.Length > 0 && run.kind() == next.kind() {
				run.Length += next.Length
				continue
			}
			if run.Length > 0 {
				if err := f(run); err != nil {
					return err
				}
			}
			run = next
		}
	}
	if run.Length == 0 {
		return nil
	}
	return f(run)
}

func mapText(ctx context.Context, w io.Writer, d *disk.Disk) error {
	if _, err := fmt.Fprintf(w, "%20s %20s  type\n", "offset", "length"); err != nil {
		return err
	}
	return walk(ctx, d, func(s segment) error {
		_, err := fmt.Fprintf(w, "%20d %20d  %s\n", s.Offset, s.Length, s.kind())
		return err
	})
}

// mapJSON prints an array, a line per segment, as it goes.
func mapJSON(ctx context.Context, w io.Writer, d *disk.Disk) error {
	sep := "[\n  "
	if err := walk(ctx, d, func(s segment) error {
		line, err := json.Marshal(s)
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

// segments counts the runs of one kind.
type segments struct {
	Count int64 `json:"count"`
	Bytes int64 `json:"bytes"`
	Min   int64 `json:"min"`
	Max   int64 `json:"max"`
	Avg   int64 `json:"avg"`
}

func (s *segments) add(n int64) {
	if s.Count == 0 {
		s.Min = math.MaxInt64
	}
	s.Count++
	s.Bytes += n
	s.Min, s.Max, s.Avg = min(s.Min, n), max(s.Max, n), s.Bytes/s.Count
}

type mapSummary struct {
	Size  int64    `json:"size"`
	Total int64    `json:"total"`
	Data  segments `json:"data"`
	Zero  segments `json:"zero"`
}

func summarize(ctx context.Context, d *disk.Disk) (mapSummary, error) {
	sum := mapSummary{Size: d.Size()}
	var run segment
	add := func() {
		switch {
		case run.Length == 0:
			return
		case run.Zero:
			sum.Zero.add(run.Length)
		default:
			sum.Data.add(run.Length)
		}
		sum.Total++
	}
	err := walk(ctx, d, func(s segment) error {
		if run.Length > 0 && run.Zero == s.Zero {
			run.Length += s.Length
			return nil
		}
		add()
		run = s
		return nil
	})
	add()
	return sum, err
}

func mapSummaryJSON(ctx context.Context, w io.Writer, d *disk.Disk) error {
	s, err := summarize(ctx, d)
	if err != nil {
		return err
	}
	return writeJSON(w, s)
}

func mapSummaryText(ctx context.Context, w io.Writer, d *disk.Disk) error {
	s, err := summarize(ctx, d)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, `total segments: %d

data segments:  %d
min data:       %d
max data:       %d
avg data:       %d

zero segments: %d
min zero:       %d
max zero:       %d
avg zero:       %d
`, s.Total, s.Data.Count, s.Data.Min, s.Data.Max, s.Data.Avg, s.Zero.Count, s.Zero.Min, s.Zero.Max, s.Zero.Avg)
	return err
}
