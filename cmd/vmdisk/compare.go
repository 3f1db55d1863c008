package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/diskcopy"
	"github.com/vmdisk/vmdisk/diskurl"
)

type compareFlags struct {
	a, b           string // the names of the disks, without a ticket
	options        diskurl.Options
	first, second  string
	cache          *choice
	aio            *choice
	depth          int
	strict, json   bool
	percent, quiet bool
	progress       *choice
}

func newCompare() *cobra.Command {
	f := compareFlags{cache: newCacheFlag(), aio: newAIOFlag(), progress: newProgressFlag()}
	c := &cobra.Command{
		Use:   "compare A B",
		Short: "Compare the content of two disks",
		Long: `Compare the content of two disks. What one has beyond the end of the other must read as
zeros, unless --strict.

Exit status: 0 equal, 1 different (the first differing offset is printed), 2 any error.`,
		Args: args(2, 2, "two disks"),
		RunE: func(c *cobra.Command, a []string) error {
			r, err := f.compare(c, a[0], a[1])
			if err != nil {
				return &statusError{statusUsage, err} // 1 means different here
			}
			if f.json {
				err = writeJSON(c.OutOrStdout(), r)
			} else if !f.quiet {
				err = f.print(c, r)
			}
			if err == nil && !r.Equal {
				err = &statusError{status: statusFailed}
			}
			return err
		},
	}
	fl := c.Flags()
	fl.StringVarP(&f.first, "format", "f", "", "format of A if it is a local file: raw or qcow2")
	fl.StringVarP(&f.second, "second-format", "F", "", "format of B if it is a local file: raw or qcow2")
	fl.VarP(f.cache, "cache", "T", "cache mode of local files, as QEMU names them")
	fl.Var(f.aio, "aio", "asynchronous I/O of local files")
	fl.IntVar(&f.depth, "queue-depth", 0, "pairs of requests in flight (0: the default)")
	fl.BoolVarP(&f.percent, "percent", "p", false, "show percents, as qemu-img does")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "print errors only: the exit status tells")
	fl.BoolVarP(&f.strict, "strict", "s", false, "disks of different size differ")
	fl.BoolVar(&f.json, "json", false, "print the result as JSON")
	fl.Var(f.progress, "progress", "progress: auto (a bar on a terminal), bar, json (lines on stdout), none, or a descriptor to write \"N/100\" lines to")
	registerShared(fl, &f.options)
	return c
}

func (f *compareFlags) compare(c *cobra.Command, nameA, nameB string) (r diskcopy.Comparison, err error) {
	o := f.options
	o.ReadOnly, o.Cache, o.AIO = true, f.cache.value, f.aio.value
	forA, forB := o.TLS.Split(nameA, nameB)
	o.Format, o.FormatFlag, o.TLS = f.first, "-f", forA
	a, err := diskurl.Open(c.Context(), nameA, o)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	o.Format, o.FormatFlag, o.TLS = f.second, "-F", forB
	b, err := diskurl.Open(c.Context(), nameB, o)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	f.a, f.b = shownName(nameA, a), shownName(nameB, b)
	p := newProgress(c, f.progress.value)
	if f.percent && !f.quiet {
		var end func()
		p.report, end = percentLines(c.OutOrStdout())
		defer end()
	}
	return f.run(c.Context(), p, a, b)
}

func (f *compareFlags) run(ctx context.Context, p *progress, a, b *disk.Disk) (diskcopy.Comparison, error) {
	defer p.end()
	r, err := diskcopy.Compare(ctx, a, b, diskcopy.CompareOptions{QueueDepth: f.depth, Strict: f.strict, Progress: p.report})
	var side *diskcopy.CopyError
	if errors.As(err, &side) {
		err = side.Err // source and target are a copy's words; the disk's name is in it
	}
	return r, err
}

func (f *compareFlags) print(c *cobra.Command, r diskcopy.Comparison) error {
	text := fmt.Sprintf("%s and %s are equal\n", f.a, f.b)
	if !r.Equal {
		text = fmt.Sprintf("%s and %s differ at offset %d\n", f.a, f.b, r.Offset)
	}
	_, err := fmt.Fprint(c.OutOrStdout(), text)
	return err
}
