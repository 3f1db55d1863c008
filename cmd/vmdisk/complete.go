package main

import (
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vmdisk/vmdisk/diskurl"
)

// completeFlags has shells complete what the tables of diskurl know, in every verb.
func completeFlags(c *cobra.Command) {
	c.Flags().VisitAll(func(f *pflag.Flag) {
		var complete func(string) []string
		switch f.Name {
		case "filter", "src-filter", "dst-filter":
			complete = diskurl.CompleteFilter
		case "format", "target-format":
			complete = func(string) []string { return diskurl.Formats() }
		default:
			return
		}
		_ = c.RegisterFlagCompletionFunc(f.Name, func(_ *cobra.Command, _ []string, text string) ([]cobra.Completion, cobra.ShellCompDirective) {
			directive := cobra.ShellCompDirectiveNoFileComp
			if slices.Contains([]string{"filter", "src-filter", "dst-filter"}, f.Name) {
				directive |= cobra.ShellCompDirectiveNoSpace
			}
			return complete(text), directive
		}) // it fails only for a flag that is not there, or has a completion already
	})
}
