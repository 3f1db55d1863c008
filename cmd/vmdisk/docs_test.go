package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const docsRoot = "../.."

// command is one command of a document and what it says is printed.
type command struct {
	line int
	text string
	want []string
}

// TestDocs runs every command of the ```console blocks of the documents, in
// order and in one shell for each document, and compares what they print with
// what the document says, numbers apart. A line of "..." stands for any lines.
// The ```sh blocks may only hold make targets, which must exist.
func TestDocs(t *testing.T) {
	t.Parallel()
	docs, err := filepath.Glob(filepath.Join(docsRoot, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, doc := range append(docs, filepath.Join(docsRoot, "README.md")) {
		commands, makes := parseDoc(t, doc)
		ran += len(commands)
		t.Run(filepath.Base(doc), func(t *testing.T) {
			t.Parallel()
			for _, m := range makes {
				out, err := exec.Command("make", append([]string{"-n", "-C", docsRoot}, strings.Fields(m)[1:]...)...).CombinedOutput()
				if err != nil {
					t.Errorf("%s: %v\n%s", m, err, out)
				}
			}
			runDoc(t, doc, commands)
		})
	}
	if ran < 10 {
		t.Errorf("only %d commands found in the documents", ran)
	}
}

// parseDoc takes the commands out of a document.
func parseDoc(t *testing.T, path string) (commands []command, makes []string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	kind := ""
	for i, line := range strings.Split(string(text), "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && kind == "":
			kind = cmpOr(fence, "text")
		case isFence:
			kind = ""
		case kind == "sh" && strings.HasPrefix(line, "make "):
			makes = append(makes, line)
		case kind == "sh" && strings.TrimSpace(line) != "":
			t.Errorf("%s:%d: a command that no test runs: %s", path, i+1, line)
		case kind != "console":
		case strings.HasPrefix(line, "$ "):
			commands = append(commands, command{line: i + 1, text: line[2:]})
		case len(commands) == 0:
			t.Errorf("%s:%d: output before any command", path, i+1)
		case strings.HasPrefix(line, "> ") && len(commands[len(commands)-1].want) == 0:
			commands[len(commands)-1].text += "\n" + line[2:]
		default:
			last := &commands[len(commands)-1]
			last.want = append(last.want, line)
		}
	}
	return commands, makes
}

func cmpOr(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

const marker = "=== end of command"

func runDoc(t *testing.T, doc string, commands []command) {
	t.Helper()
	var script strings.Builder
	for i, c := range commands {
		fmt.Fprintf(&script, "%s\necho '%s' %d $?\n", c.text, marker, i)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	sh := exec.CommandContext(ctx, "/bin/sh", "-c", script.String())
	sh.Dir = t.TempDir()
	var out bytes.Buffer
	sh.Stdout, sh.Stderr = &out, &out
	if err := sh.Run(); err != nil {
		t.Errorf("%s: %v\n%s", doc, err, out.Bytes())
	}
	rest := out.String()
	for i, c := range commands {
		got, after, found := strings.Cut(rest, fmt.Sprintf("%s %d ", marker, i))
		if !found {
			t.Fatalf("%s:%d: `%s` did not end:\n%s", doc, c.line, c.text, rest)
		}
		status, remains, _ := strings.Cut(after, "\n")
		rest = remains
		if status != "0" {
			t.Errorf("%s:%d: `%s`: exit status %s:\n%s", doc, c.line, c.text, status, got)
		} else if !matches(masked(got), masked(strings.Join(c.want, "\n"))) {
			t.Errorf("%s:%d: `%s` prints\n%s\nand not\n%s", doc, c.line, c.text, got, strings.Join(c.want, "\n"))
		}
	}
}

var (
	numbers = regexp.MustCompile(`[0-9]+(\.[0-9]+)?`)
	blanks  = regexp.MustCompile(`[ \t]+`)
	rules   = regexp.MustCompile(`─+`)
)

// masked takes out of an output what differs from run to run.
func masked(s string) []string {
	var lines []string
	for _, line := range strings.Split(strings.TrimSpace(s), "\n") {
		line = numbers.ReplaceAllString(strings.TrimSpace(line), "N")
		line = rules.ReplaceAllString(blanks.ReplaceAllString(line, " "), "─")
		lines = append(lines, line)
	}
	return lines
}

// matches compares lines; "..." in want stands for any number of lines.
func matches(got, want []string) bool {
	for i, w := range want {
		if w == "..." {
			for skip := i; skip <= len(got); skip++ {
				if matches(got[skip:], want[i+1:]) {
					return true
				}
			}
			return false
		}
		if i >= len(got) || got[i] != w {
			return false
		}
	}
	return len(got) == len(want)
}

func TestMatches(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		got, want string
		equal     bool
	}{
		{"a 12.5 b\n", "a 3 b", true}, {"a\nb", "a", false}, {"a", "a\nb", false}, {"a\nb\nc", "a\n...\nc", true},
		{"a\nc", "a\n...\nc", true}, {"a\nb", "a\n...", true}, {"", "", true}, {"x", "", false}, {"a  b", "a b", true},
	} {
		if got := matches(masked(c.got), masked(c.want)); got != c.equal {
			t.Errorf("%q against %q: %v", c.got, c.want, got)
		}
	}
}

// TestManFresh: the manual pages in docs/man are those of this program.
func TestManFresh(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if status := run([]string{"man", dir}, os.Stdout, os.Stderr); status != 0 {
		t.Fatalf("exit status %d", status)
	}
	names := func(dir string) (names []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatalf("%v; `make man` writes the pages", err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	have := filepath.Join(docsRoot, "docs", "man")
	if got, want := names(have), names(dir); !slices.Equal(got, want) {
		t.Fatalf("docs/man holds %v and should hold %v; run `make man`", got, want)
	}
	for _, name := range names(dir) {
		got, errGot := os.ReadFile(filepath.Join(have, name))
		want, errWant := os.ReadFile(filepath.Join(dir, name))
		if errGot != nil || errWant != nil || !bytes.Equal(got, want) {
			t.Errorf("docs/man/%s is not what this program writes; run `make man`", name)
		}
	}
}
