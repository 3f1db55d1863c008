package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/diskurl"
)

func newMap() *cobra.Command {
	var d diskFlags
	var summary, asJSON bool
	name := mapFlag(disk.Allocation)
	output := newOutputFlag()
	var from sizeFlag
	var most sizeFlag = math.MaxInt64
	c := &cobra.Command{
		Use:   "map DISK",
		Short: "Show which parts of a disk hold data, zeros and holes",
		Long: `Show which parts of a disk hold data, zeros and holes, in order.

data: must be read; zero: reads as zeros, allocated; hole: reads as zeros, takes no space;
unallocated: takes no space, content unknown; backing: comes from the backing file.
A disk that cannot tell is data throughout. --summary counts runs that must be read
(data) and runs that read as zeros.

--map shows another map: dirty:NAME, a dirty bitmap (dirty, clean), or depth, the depth in the
backing chain that data comes from (1 is the image itself, 0 nowhere). NBD servers have them
by other names, which are taken, too: base:allocation, qemu:dirty-bitmap:NAME, qemu:allocation-depth.`,
		Args: args(1, 1, "one DISK"),
		RunE: func(c *cobra.Command, a []string) error {
			if output.value != "" && (summary || name != mapFlag(disk.Allocation)) {
				return usagef("--output is of the allocation map, without --summary")
			}
			if summary && name != mapFlag(disk.Allocation) {
				return usagef("--summary is of the allocation map, not of %s", &name)
			}
			o := d.opening(true)
			o.Maps = name.wanted()
			dk, err := diskurl.Open(c.Context(), a[0], o)
			if err != nil {
				return err
			}
			out := bufio.NewWriter(c.OutOrStdout())
			v := name.view()
			v.from, v.most = int64(from), int64(most)
			show := mapPrinter(v, summary, asJSON)
			switch output.value {
			case outputJSON:
				show = v.qemuJSON(o.Format == "" || o.Format == diskurl.FormatRaw)
			case outputHuman:
				show = v.qemuText(a[0])
			}
			if err = name.check(dk); err == nil {
				err = show(c.Context(), out, dk)
			}
			return errors.Join(err, out.Flush(), dk.Close())
		},
	}
	d.register(c)
	c.Flags().BoolVar(&summary, "summary", false, "count the segments and their sizes")
	c.Flags().Var(output, "output", outputHelp)
	c.Flags().VarP(&from, "start-offset", "s", "begin there")
	c.Flags().VarP(&most, "max-length", "l", "show this much at most")
	c.Flags().Lookup("max-length").DefValue = "all"
	c.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	c.Flags().Var(&name, "map", "the map to show: allocation, dirty:NAME or depth")
	return c
}

type mapShow func(ctx context.Context, w io.Writer, d *disk.Disk) error

// mapPrinter chooses the form.
func mapPrinter(v view, summary, asJSON bool) mapShow {
	switch {
	case summary && asJSON:
		return v.summaryJSON
	case summary:
		return v.summaryText
	case asJSON:
		return v.json
	}
	return v.text
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

func (v *view) summarize(ctx context.Context, d *disk.Disk) (mapSummary, error) {
	sum := mapSummary{Size: d.Size()}
	var run segment
	add := func() {
		switch {
		case run.length == 0:
			return
		case run.zero():
			sum.Zero.add(run.length)
		default:
			sum.Data.add(run.length)
		}
		sum.Total++
	}
	err := v.walk(ctx, d, func(s segment) error {
		if run.length > 0 && run.zero() == s.zero() {
			run.length += s.length
			return nil
		}
		add()
		run = s
		return nil
	})
	add()
	return sum, err
}

func (v *view) summaryJSON(ctx context.Context, w io.Writer, d *disk.Disk) error {
	s, err := v.summarize(ctx, d)
	if err != nil {
		return err
	}
	return writeJSON(w, s)
}

func (v *view) summaryText(ctx context.Context, w io.Writer, d *disk.Disk) error {
	s, err := v.summarize(ctx, d)
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
