package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// protection is a row of docs/protections.md.
type protection struct {
	section, command, says string
}

const (
	sectionRefused  = "What is refused"
	sectionEnforced = "What is enforced"
)

func readProtections(t *testing.T) []protection {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(docsRoot, "docs", "protections.md"))
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("^\\| `(vmdisk .*)` \\| (.*) \\|$")
	var rows []protection
	section := ""
	for _, line := range strings.Split(string(text), "\n") {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			section = title
		}
		if m := row.FindStringSubmatch(line); m != nil {
			rows = append(rows, protection{section, m[1], m[2]})
		}
	}
	if len(rows) < 30 {
		t.Fatalf("only %d rows found in protections.md", len(rows))
	}
	return rows
}

// TestProtections runs every row of docs/protections.md: no option that asks for
// protection leads to less of it when it is given alone, empty or in contradiction.
func TestProtections(t *testing.T) {
	t.Parallel()
	pki := t.TempDir()
	if err := writeCerts(pki); err != nil {
		t.Fatal(err)
	}
	status := map[string]int{sectionRefused: statusUsage, sectionEnforced: statusFailed}
	for _, p := range readProtections(t) {
		want, ok := status[p.section]
		if !ok {
			continue // another test's rows
		}
		t.Run(p.command, func(t *testing.T) {
			dir := t.TempDir()
			for _, pem := range []string{"ca-cert", "server-cert", "server-key", "client-cert", "client-key"} {
				if err := os.Symlink(filepath.Join(pki, pem+".pem"), filepath.Join(dir, pem+".pem")); err != nil {
					t.Fatal(err)
				}
			}
			got, stderr := inShell(t, dir, p.command)
			if got != want || !strings.Contains(stderr, p.says) {
				t.Errorf("exit status %d, want %d; stderr, which should hold %q:\n%s", got, want, p.says, stderr)
			}
		})
	}
}

// inShell runs a command in dir. The status is -1 when it did not end by itself.
func inShell(t *testing.T, dir, command string) (status int, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sh := exec.CommandContext(ctx, "/bin/sh", "-c", "exec "+command)
	var out bytes.Buffer
	sh.Dir, sh.Stderr = dir, &out
	err := sh.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return sh.ProcessState.ExitCode(), out.String()
}

// asksForProtection are the flags' names that a row has to exist for.
var asksForProtection = regexp.MustCompile(`^(tls.*|cafile|read-only|socket-.*|user|group|sandbox|ops)$`)

// TestProtectionsComplete: every flag that asks for protection stands in the table,
// for every verb that does something of its own with it.
func TestProtectionsComplete(t *testing.T) {
	t.Parallel()
	var all strings.Builder
	for _, p := range readProtections(t) {
		all.WriteString(p.command + "\n")
	}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if !asksForProtection.MatchString(f.Name) || strings.HasPrefix(c.CommandPath(), "vmdisk lab") {
				return
			}
			if !regexp.MustCompile(`--` + f.Name + `\b`).MatchString(all.String()) {
				t.Errorf("%s --%s stands in no row of docs/protections.md", c.CommandPath(), f.Name)
			}
		})
		for _, below := range c.Commands() {
			walk(below)
		}
	}
	walk(newRoot())
}
