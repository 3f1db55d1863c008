package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vmdisk/vmdisk/diskurl"
	"github.com/vmdisk/vmdisk/suggest"
)

// helpWidth is that of a terminal.
const helpWidth = 80

// setHelp gives the program its help: commands in groups, within the width of a terminal.
func setHelp(root *cobra.Command) {
	root.AddGroup(
		&cobra.Group{ID: groupImages, Title: "Images:"},
		&cobra.Group{ID: groupCopying, Title: "Copy and compare:"},
		&cobra.Group{ID: groupServing, Title: "Serve and transfer:"},
		&cobra.Group{ID: groupMeasures, Title: "Measure:"},
		&cobra.Group{ID: groupProgram, Title: "The program itself:"},
	)
	root.SetHelpCommand(newHelp())
	root.SetHelpCommandGroupID(groupProgram)
	root.SetCompletionCommandGroupID(groupProgram)
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages ", fmt.Sprintf(".FlagUsagesWrapped %d ", helpWidth-1)))
	root.SetHelpFunc(func(c *cobra.Command, _ []string) { printHelp(c.OutOrStdout(), c) })
}

func printHelp(w io.Writer, c *cobra.Command) {
	text := c.Long
	if text == "" {
		text = c.Short
	}
	lines := strings.Split(wrapped(text)+"\n\n"+c.UsageString(), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, " ")
	}
	_, _ = io.WriteString(w, strings.TrimRight(strings.Join(lines, "\n"), "\n")+"\n") // who does not read it needs no help
}

func wrapped(text string) string { return wrappedTo(text, helpWidth) }

// wrappedTo fills the paragraphs of a text anew; lines that begin with a blank stay as they are.
func wrappedTo(text string, width int) string {
	var out, words []string
	flush := func() {
		line := ""
		for _, w := range words {
			if line != "" && len(line)+1+len(w) > width {
				out, line = append(out, line), ""
			}
			line = strings.TrimPrefix(line+" "+w, " ")
		}
		if line != "" {
			out = append(out, line)
		}
		words = nil
	}
	for _, line := range strings.Split(text, "\n") {
		if line == "" || line[0] == ' ' {
			flush()
			out = append(out, line)
			continue
		}
		words = append(words, strings.Fields(line)...)
	}
	flush()
	return strings.Join(out, "\n")
}

// filterHelp lists the filters.
func filterHelp() string {
	var b strings.Builder
	for _, f := range diskurl.Filters() {
		lines := strings.Split(wrappedTo(f.Summary, helpWidth-13), "\n")
		fmt.Fprintf(&b, "  %-10s %s\n", f.Name, strings.Join(lines, "\n"+strings.Repeat(" ", 13)))
	}
	return strings.TrimRight(b.String(), "\n")
}

func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Explain the program, or a command",
		Args:  cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, a []string) error {
			of, rest, err := c.Root().Find(a)
			if err != nil {
				return usage(err)
			}
			if len(rest) > 0 {
				return unknownVerb(of, rest[0])
			}
			return of.Help()
		},
	}
}

// knownVerb refuses a command that does not exist, whatever flags come with it.
func knownVerb(root *cobra.Command, args []string) error {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd(args...)
	c, rest, err := root.Find(args)
	if err != nil || len(rest) == 0 || strings.HasPrefix(rest[0], "-") || strings.HasPrefix(rest[0], cobra.ShellCompRequestCmd) {
		return nil //nolint:nilerr // the parser says it, too
	}
	if !c.HasSubCommands() || c.DisableFlagParsing { // bench has arguments of its own
		return nil
	}
	return unknownVerb(c, rest[0])
}

// unknownVerb reports it in one line, with the nearest that exists.
func unknownVerb(c *cobra.Command, name string) error {
	if slices.Contains(qcow2Verbs, name) && !c.HasParent() {
		return usagef("%s is for qcow2 images, which this build only reads; see `vmdisk help`", name)
	}
	of, hint := "", ""
	if c.HasParent() {
		of = " of " + c.CommandPath()
	}
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(name); len(near) > 0 {
		hint = "; did you mean " + near[0] + "?"
	}
	return usagef("unknown command %q%s%s; `vmdisk help%s` lists them", name, of, hint, strings.TrimPrefix(c.CommandPath(), c.Root().Name()))
}

// flagError names the flag that a mistyped one was meant to be.
func flagError(c *cobra.Command, err error) error {
	text := err.Error()
	name, long := strings.CutPrefix(text, "unknown flag: --")
	if _, short, ok := strings.Cut(text, " in -"); ok && strings.HasPrefix(text, "unknown shorthand flag") {
		name, long = short, true // -json
	}
	if !long {
		return usage(err)
	}
	name, _, _ = strings.Cut(name, "=")
	var known []string
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			known = append(known, f.Name)
		}
	})
	near := suggest.Nearest(name, known)
	if slices.Contains(known, name) {
		near = name
	}
	if near == "" {
		return usagef("%w; see `%s --help`", err, c.CommandPath())
	}
	return usagef("%w; did you mean --%s?", err, near)
}
