package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestHelpFits: no line of any command's help is wider than a terminal.
func TestHelpFits(t *testing.T) {
	t.Parallel()
	seen := 0
	var look func(c *cobra.Command)
	look = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			look(sub)
		}
		if c.Name() == "completion" || c.HasParent() && c.Parent().Name() == "completion" {
			return // the library's
		}
		seen++
		var out bytes.Buffer
		printHelp(&out, c)
		for _, line := range strings.Split(out.String(), "\n") {
			if n := len([]rune(line)); n > helpWidth || strings.TrimRight(line, " ") != line {
				t.Errorf("%s: a line of %d characters: %q", c.CommandPath(), n, line)
			}
		}
	}
	look(newRoot())
	if seen < 20 {
		t.Errorf("only %d commands", seen)
	}
}
