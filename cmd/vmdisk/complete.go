package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vmdisk/vmdisk/diskurl"
	"github.com/vmdisk/vmdisk/lab"
)

// completeAll has shells complete the values of every verb's flags and arguments.
func completeAll(c *cobra.Command) {
	for _, sub := range c.Commands() {
		completeAll(sub)
	}
	completeFlags(c)
	switch path := c.CommandPath(); {
	case path == "vmdisk lab run" || path == "vmdisk lab list":
		c.ValidArgsFunction = completeExperiments
	case c.Flags().Lookup("force-share") != nil && c.ValidArgsFunction == nil:
		c.ValidArgsFunction = completeDisks
	}
}

// completeExperiments completes the built-in experiments, or the name of a file.
func completeExperiments(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []cobra.Completion
	for _, e := range lab.Experiments() {
		out = append(out, e.Name+"\t"+e.Summary)
	}
	return out, cobra.ShellCompDirectiveDefault
}

// completeParams completes the names of an experiment's parameters.
func completeParams(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	e, err := lab.Find(args[0])
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []cobra.Completion
	for _, p := range e.Params {
		out = append(out, p.Name+"=\t"+p.Help)
	}
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// completeDisks completes what a URL may begin with; files are completed besides.
func completeDisks(_ *cobra.Command, _ []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var out []cobra.Completion
	for _, prefix := range diskPrefixes {
		name, _, _ := strings.Cut(prefix, ":")
		if begun != "" && strings.HasPrefix(prefix, begun) && diskurl.Built(name) {
			out = append(out, prefix)
		}
	}
	if len(out) == 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return out, cobra.ShellCompDirectiveNoSpace
}

var diskPrefixes = []string{"file:", "raw:", "qcow2:", "nbd://", "nbds://", "nbd+unix:///?socket=", "nbds+unix:///?socket=",
	"nbd+vsock://", "nbds+vsock://", "http://", "https://", "mem:", "null:", "pattern:"}

// completeFlags has shells complete what the tables of diskurl know, in every verb.
func completeFlags(c *cobra.Command) {
	c.Flags().VisitAll(func(f *pflag.Flag) {
		var complete func(string) []string
		if words, ok := f.Value.(*choice); ok {
			_ = c.RegisterFlagCompletionFunc(f.Name, cobra.FixedCompletions(words.allowed, cobra.ShellCompDirectiveNoFileComp)) // as below
			return
		}
		if f.Name == "set" && c.CommandPath() == "vmdisk lab run" {
			_ = c.RegisterFlagCompletionFunc(f.Name, completeParams) // as below
			return
		}
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
