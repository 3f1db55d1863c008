package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/diskurl"
)

// ddOperands are the KEY=VALUE arguments of dd.
type ddOperands struct {
	in, out string
	block   int64
	count   int64 // -1: all
	skip    int64
}

func newDD() *cobra.Command {
	var src, dst diskurl.Options
	c := &cobra.Command{
		Use:   "dd if=DISK of=FILE [bs=SIZE] [count=N] [skip=N]",
		Short: "Copy a part of a disk to a new image, as qemu-img dd does",
		Long: `Copy a part of a disk to a new image, as qemu-img dd does: up to block count (of bs, 512 bytes if
it is not given), and without the first skip blocks of that. So count, unlike that of dd(1), counts
the blocks that are skipped. A file that exists is replaced once the new one is complete.`,
		Example: "  vmdisk dd if=disk.raw of=head.raw bs=1M count=16",
		Args:    args(2, 5, "if= and of="),
		RunE: func(c *cobra.Command, a []string) (err error) {
			p, err := parseDD(a)
			if err != nil {
				return err
			}
			src.ReadOnly, src.FormatFlag, dst.FormatFlag = true, "-f", "-O"
			src.TLS, dst.TLS = src.TLS.Split(p.in, p.out)
			dst.ServerOptions.Timeout = src.Timeout
			whole, err := diskurl.Open(c.Context(), p.in, src)
			if err != nil {
				return fmt.Errorf("source: %w", err)
			}
			from, size := p.part(whole.Size())
			if err := whole.Close(); err != nil {
				return err
			}
			var sources []window
			if size > 0 {
				src.Filters = []string{fmt.Sprintf("limit:offset=%d,size=%d", from, size)}
				var d *disk.Disk
				if d, err = diskurl.Open(c.Context(), p.in, src); err != nil {
					return fmt.Errorf("source: %w", err)
				}
				defer func() { err = errors.Join(err, d.Close()) }()
				sources = append(sources, window{d, p.in})
			}
			w := imageWriter{target: dst}
			return w.write(c.Context(), sources, p.out)
		},
	}
	c.Flags().StringVarP(&src.Format, "format", "f", "", "format of if=: raw or qcow2")
	c.Flags().StringVarP(&dst.Format, "target-format", "O", diskurl.FormatRaw, "format of of=: raw")
	registerShared(c.Flags(), &src)
	return c
}

func parseDD(operands []string) (ddOperands, error) {
	p := ddOperands{block: sector, count: -1}
	var seen []string
	for _, a := range operands {
		key, value, ok := strings.Cut(a, "=")
		if !ok || slices.Contains(seen, key) {
			return p, usagef("%q: want if=, of=, bs=, count= and skip=, each once", a)
		}
		seen = append(seen, key)
		var err error
		switch key {
		case "if":
			p.in = value
		case "of":
			p.out = value
		case "bs":
			p.block, err = diskurl.ParseSize(value)
			if err == nil && (p.block < 1 || p.block > math.MaxInt32) {
				err = fmt.Errorf("a block has 1 to %d bytes", math.MaxInt32)
			}
		case "count":
			p.count, err = diskurl.ParseSize(value)
		case "skip":
			p.skip, err = diskurl.ParseSize(value)
		default:
			err = fmt.Errorf("there is no such operand: want if=, of=, bs=, count= and skip=")
		}
		if err != nil {
			return p, usagef("%s: %w", a, err)
		}
	}
	if p.in == "" || p.out == "" {
		return p, usagef("want both if= and of=")
	}
	return p, nil
}

// part is what of a disk of a size is copied.
func (p *ddOperands) part(size int64) (from, n int64) {
	if p.count >= 0 && p.count <= math.MaxInt64/p.block {
		size = min(size, p.count*p.block)
	}
	if p.skip > math.MaxInt64/p.block || p.skip*p.block > size {
		return 0, 0
	}
	return p.skip * p.block, size - p.skip*p.block
}
