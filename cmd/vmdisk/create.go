package main

import (
	"fmt"
	"math"

	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/diskurl"
)

func newCreate() *cobra.Command {
	var o diskurl.CreateOptions
	var asJSON bool
	prealloc := newChoice("off", "off", "falloc", "full")
	c := &cobra.Command{
		Use:   "create FILE SIZE",
		Short: "Make a disk image",
		Long: `Make a disk image of SIZE bytes (with K, M, G, T, P or E: powers of 1024).

An existing file is left alone unless --force is given.`,
		Example: "  vmdisk create disk.raw 10G\n  vmdisk create --preallocation falloc disk.raw 10G",
		Args:    args(2, 2, "FILE and SIZE"),
		RunE: func(c *cobra.Command, a []string) (err error) {
			if o.Size, err = diskurl.ParseSize(a[1]); err != nil {
				return usage(err)
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
			_, err = fmt.Fprintf(c.OutOrStdout(), "created %s: raw, %s, preallocation %s\n", a[0], sizeText(o.Size), o.Preallocation)
			return err
		},
	}
	c.Flags().StringVarP(&o.Format, "format", "f", "", "format: raw")
	c.Flags().Var(prealloc, "preallocation", "off: sparse; falloc: space reserved; full: zeros written")
	c.Flags().BoolVar(&o.Replace, "force", false, "replace an existing file")
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
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
