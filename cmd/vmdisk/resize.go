package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/diskurl"
)

type resizeResult struct {
	Disk    string `json:"disk"`
	OldSize int64  `json:"old_size"`
	Size    int64  `json:"size"`
}

func newResize() *cobra.Command {
	var d diskFlags
	var shrink, asJSON, quiet bool
	prealloc := newChoice("off", preallocations...)
	c := &cobra.Command{
		Use:   "resize DISK [+|-]SIZE",
		Short: "Change the size of a disk",
		Long: `Change the size of a disk to SIZE bytes, or by SIZE with a sign.

Shrinking cuts off the end and needs --shrink.`,
		Example: "  vmdisk resize disk.raw 20G\n  vmdisk resize disk.raw +512M\n  vmdisk resize --shrink disk.raw -1G",
		Args:    args(2, 2, "DISK and SIZE"),
		RunE: func(c *cobra.Command, a []string) error {
			dk, err := diskurl.Open(c.Context(), a[0], d.opening(false))
			if err != nil {
				return err
			}
			r, err := resize(c.Context(), dk, a[1], shrink)
			if err == nil && prealloc.value != "off" {
				err = r.allocate(c.Context(), dk, prealloc.value == "full")
			}
			if err = errors.Join(err, dk.Close()); err != nil {
				return err
			}
			if asJSON {
				return writeJSON(c.OutOrStdout(), r)
			}
			if quiet {
				return nil
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: from %s to %s\n", r.Disk, sizeText(r.OldSize), sizeText(r.Size))
			return err
		},
	}
	d.register(c)
	c.Flags().BoolVar(&shrink, "shrink", false, "allow the disk to become smaller; what is cut off is lost")
	c.Flags().Var(prealloc, "preallocation", "what is added: off: sparse; falloc: space reserved; full: zeros written")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print errors only")
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
}

// allocate gives what was added its storage.
func (r *resizeResult) allocate(ctx context.Context, d *disk.Disk, full bool) error {
	const step = 1 << 20
	zeros := make([]byte, step)
	if r.Size <= r.OldSize {
		return fmt.Errorf("%s: --preallocation is for growing", d)
	}
	if !full {
		return errors.Join(d.Zero(ctx, r.OldSize, r.Size-r.OldSize, 0), d.Flush(ctx))
	}
	for off := r.OldSize; off < r.Size; off += step {
		if err := d.WriteAt(ctx, zeros[:min(step, r.Size-off)], off, 0); err != nil {
			return err
		}
	}
	return d.Flush(ctx)
}

func resize(ctx context.Context, d *disk.Disk, text string, shrink bool) (resizeResult, error) {
	r := resizeResult{Disk: d.Name(), OldSize: d.Size()}
	n, err := diskurl.ParseSize(strings.TrimLeft(text, "+-"))
	if err != nil {
		return r, usage(err)
	}
	switch text[0] {
	case '+':
		r.Size = r.OldSize + n
	case '-':
		r.Size = r.OldSize - n
	default:
		r.Size = n
	}
	switch {
	case r.Size < 0:
		return r, usagef("%s of %d bytes is not above 0", text, r.OldSize)
	case r.Size < r.OldSize && !shrink:
		return r, fmt.Errorf("%s: %d bytes would be cut off; --shrink allows it", d, r.OldSize-r.Size)
	}
	if err := d.Resize(ctx, r.Size); err != nil {
		return r, err
	}
	return r, d.Flush(ctx)
}
