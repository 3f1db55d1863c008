package main

import (
	"fmt"
	"math"

	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/diskurl"
)

func newCreate() *cobra.Command {
	var o diskurl.CreateOptions
	var asJSON, quiet bool
	var options []string
	prealloc := newChoice("off", preallocations...)
	c := &cobra.Command{
		Use:   "create FILE [SIZE]",
		Short: "Make a disk image",
		Long: `Make a disk image of SIZE bytes (with K, M, G, T, P or E: powers of 1024).

An existing file is left alone unless --force is given; qemu-img create empties it.`,
		Example: "  vmdisk create disk.raw 10G\n  vmdisk create --preallocation falloc disk.raw 10G",
		Args:    args(1, 2, "FILE and SIZE"),
		RunE: func(c *cobra.Command, a []string) (err error) {
			if o.Size, err = imageSize(a, options, prealloc); err != nil {
				return err
			}
			o.Preallocation = prealloc.value
			if o.Size, err = wholeSectors(c, a[0], o.Size); err != nil {
				return err
			}
			if err := diskurl.Create(c.Context(), a[0], o); err != nil {
				return err
			}
			if asJSON {
				return writeJSON(c.OutOrStdout(), map[string]any{"disk": a[0], "format": "raw", "size": o.Size, "preallocation": o.Preallocation})
			}
			if quiet {
				return nil
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "created %s: raw, %s, preallocation %s\n", a[0], sizeText(o.Size), o.Preallocation)
			return err
		},
	}
	c.Flags().StringVarP(&o.Format, "format", "f", "", "format: raw")
	c.Flags().Var(prealloc, "preallocation", "off: sparse; falloc: space reserved; full: zeros written")
	c.Flags().BoolVar(&o.Replace, "force", false, "replace an existing file")
	c.Flags().StringArrayVarP(&options, "options", "o", nil, "KEY=VALUE[,...], as qemu-img has them: preallocation=off|falloc|full, size=SIZE")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print errors only")
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
}

// imageSize is the size of the arguments or of -o, which may also say how to allocate.
func imageSize(a, options []string, prealloc *choice) (int64, error) {
	o, err := parseImageOptions(options)
	if err != nil {
		return 0, err
	}
	if o.preallocation != "" {
		prealloc.value = o.preallocation
	}
	switch {
	case len(a) == 2 && o.size >= 0:
		return 0, usagef("the size is given twice, as %s and by -o", a[1])
	case len(a) == 1 && o.size < 0:
		return 0, usagef("want FILE and SIZE; see `vmdisk create --help`")
	case len(a) == 1:
		return o.size, nil
	}
	n, err := diskurl.ParseSize(a[1])
	return n, usage(err)
}

// sector is the unit of every guest's disk.
const sector = 512

// wholeSectors rounds a size up that no guest could use, and says so.
func wholeSectors(c *cobra.Command, name string, size int64) (int64, error) {
	if size > math.MaxInt64-sector+1 {
		return 0, usagef("%d bytes are no whole sectors of %d bytes, and cannot be rounded up", size, sector)
	}
	whole := (size + sector - 1) &^ (sector - 1)
	if whole != size {
		c.PrintErrf("vmdisk: create: %d bytes are no whole sectors of %d bytes: %s has %d\n", size, sector, name, whole)
	}
	return whole, nil
}
