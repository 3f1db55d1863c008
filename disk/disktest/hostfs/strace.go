package hostfs

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Strace runs a program under strace and returns the system calls that it made, a
// line each, in the order in which they began. options are strace's, such as
// "-e", "trace=lseek". Where a call was in progress when another thread made one,
// strace writes it in two parts; here each thread has a file of its own, where that
// does not happen.
//
// The program has the environment of the test and env. It fails the test by its
// exit status; what it wrote to standard output is returned as well.
func Strace(tb testing.TB, env, options []string, program string, args ...string) (calls []string, output string) {
	tb.Helper()
	RequireTool(tb, "strace", "strace")
	prefix := filepath.Join(tb.TempDir(), "strace")
	options = append([]string{"-ff", "-qq", "-ttt", "-o", prefix}, options...)
	cmd := exec.CommandContext(tb.Context(), "strace", append(append(options, program), args...)...)
	cmd.Env = append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("%s: %v\n%s%s", cmd, err, out, &stderr)
	}
	files, err := filepath.Glob(prefix + ".*")
	if err != nil {
		tb.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			tb.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			calls = append(calls, strings.TrimSuffix(line, "\n"))
		}
	}
	// The seconds and microseconds in front of each have the same number of digits.
	slices.SortStableFunc(calls, func(a, b string) int {
		at, _, _ := strings.Cut(a, " ")
		bt, _, _ := strings.Cut(b, " ")
		return strings.Compare(at, bt)
	})
	for i, line := range calls {
		_, calls[i], _ = strings.Cut(line, " ")
	}
	return calls, string(out)
}
