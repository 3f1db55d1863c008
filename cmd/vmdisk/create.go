package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/diskurl"
)

func newCreate() *cobra.Command {
	o := diskurl.CreateOptions{FormatFlag: "-f"}
	var asJSON, quiet bool
	var options []string
	prealloc := newChoice("off", append([]string{"metadata"}, preallocations...)...)
	c := &cobra.Command{
		Use:   "create FILE [SIZE]",
		Short: "Make a disk image",
		Long: `Make a disk image of SIZE bytes (with K, M, G, T, P or E: powers of 1024).

An existing file is left alone unless --force is given; qemu-img create empties it.

Of a qcow2 image (-f qcow2) -o also takes, by the names of qemu-img: compat=1.1|0.10, cluster_size=SIZE,
refcount_bits=N, extended_l2=on|off, lazy_refcounts=on|off, compression_type=zlib|zstd. A backing
file (-b) is written down as it is given and not opened; to open the image again, --backing
allows it.`,
		Example: "  vmdisk create disk.raw 10G\n  vmdisk create --preallocation falloc disk.raw 10G\n  vmdisk create -f qcow2 -b base.qcow2 -F qcow2 -o extended_l2=on clone.qcow2",
		Args:    args(1, 2, "FILE and SIZE"),
		RunE: func(c *cobra.Command, a []string) (err error) {
			format, err := createdFormat(a[0], o.Format)
			if err != nil {
				return err
			}
			if format != diskurl.FormatRaw {
				options, o.Layout = formatOptions(options)
			}
			if o.Size, err = imageSize(a, options, prealloc); err != nil {
				return err
			}
			if o.Preallocation = prealloc.value; format == diskurl.FormatRaw && o.Preallocation == "metadata" {
				return usagef("--preallocation metadata is of qcow2 images; raw ones have none")
			}
			if o.Size, err = wholeSectors(c, a[0], o.Size); err != nil {
				return err
			}
			if err := diskurl.Create(c.Context(), a[0], o); errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("%w; --force replaces it", err)
			} else if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(c.OutOrStdout(), map[string]any{"disk": a[0], "format": format, "size": o.Size, "preallocation": o.Preallocation})
			}
			if quiet {
				return nil
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "created %s: %s, %s, preallocation %s\n", a[0], format, sizeText(o.Size), o.Preallocation)
			return err
		},
	}
	c.Flags().StringVarP(&o.Format, "format", "f", "", "format: raw or qcow2")
	c.Flags().StringVarP(&o.Backing, "backing-file", "b", "", "the backing file, as its name goes into the image")
	c.Flags().StringVarP(&o.BackingFormat, "backing-format", "F", "", "its format")
	c.Flags().Var(prealloc, "preallocation", "off: sparse; metadata: mapped, sparse; falloc: space reserved; full: zeros written")
	c.Flags().BoolVar(&o.Replace, "force", false, "replace an existing file")
	c.Flags().StringArrayVarP(&options, "options", "o", nil, "KEY=VALUE[,...], as qemu-img has them: preallocation=MODE, size=SIZE, and see above")
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

// createdFormat is the format of a new image.
func createdFormat(rawURL, flag string) (string, error) {
	u, err := diskurl.Parse(rawURL)
	switch {
	case err != nil:
		return "", err
	case flag != "":
		return flag, nil
	case u.Formats != "":
		return u.Formats, nil
	}
	return diskurl.FormatRaw, nil
}

// formatOptions takes the options apart that a format knows itself from the size.
func formatOptions(lists []string) (size, layout []string) {
	for _, list := range lists {
		for _, item := range strings.Split(list, ",") {
			if strings.HasPrefix(item, "size=") {
				size = append(size, item)
			} else {
				layout = append(layout, item)
			}
		}
	}
	return size, layout
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
