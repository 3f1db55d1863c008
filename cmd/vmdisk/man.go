package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newMan() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIRECTORY",
		Short: "Write the manual pages",
		Long:  "Write the manual pages of this program and of each command into DIRECTORY, which is made if need be.",
		Args:  args(1, 1, "one DIRECTORY"),
		RunE: func(c *cobra.Command, a []string) error {
			if err := os.MkdirAll(a[0], 0o777); err != nil {
				return fmt.Errorf("manual pages: %w", err)
			}
			root := c.Root()
			root.DisableAutoGenTag = true
			// The same pages from the same program, whenever it is run.
			date := time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)
			header := &doc.GenManHeader{Section: "1", Source: "vmdisk", Manual: "User Commands", Date: &date}
			err := doc.GenManTree(root, header, a[0])
			if err == nil {
				err = writeManPages(root, a[0])
			}
			if err != nil {
				return fmt.Errorf("manual pages: %w", err)
			}
			return nil
		},
	}
}
