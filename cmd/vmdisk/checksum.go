package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/diskcopy"
	"github.com/vmdisk/vmdisk/diskurl"
)

func newChecksum() *cobra.Command {
	var d diskFlags
	var asJSON bool
	var blockSize sizeFlag = 4 << 20
	algorithm := newChoice(diskcopy.Algorithms()[0], diskcopy.Algorithms()...)
	shown := newProgressFlag()
	c := &cobra.Command{
		Use:   "checksum DISK",
		Short: "Compute a checksum of a disk's content",
		Long: `Compute a checksum of a disk's content, in parallel and without reading holes: sparse and
allocated images of the same content have the same checksum. It is the hash of the hashes of
the disk's blocks; the defaults are those of the oVirt transfer API.`,
		Args: args(1, 1, "one DISK"),
		RunE: func(c *cobra.Command, a []string) error {
			dk, err := diskurl.Open(c.Context(), a[0], d.opening(true))
			if err != nil {
				return err
			}
			p := newProgress(c, shown.value)
			sum, err := diskcopy.Checksum(c.Context(), dk, diskcopy.ChecksumOptions{
				Algorithm: algorithm.value, BlockSize: int64(blockSize), Progress: p.report,
			})
			p.end()
			if err = errors.Join(err, dk.Close()); err != nil {
				return err
			}
			if asJSON {
				return writeJSON(c.OutOrStdout(), sum)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s:%d %s  %s\n", sum.Algorithm, sum.BlockSize, sum.Checksum, shownName(a[0], dk))
			return err
		},
	}
	d.register(c)
	c.Flags().Var(algorithm, "algorithm", "hash: "+strings.Join(diskcopy.Algorithms(), ", "))
	c.Flags().Var(&blockSize, "block-size", "bytes hashed at a time; part of what the checksum means")
	c.Flags().Var(shown, "progress", "progress: auto (a bar on a terminal), bar, json (lines on stdout), none, or a descriptor to write \"N/100\" lines to")
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
}
