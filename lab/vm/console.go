package vm

import (
	"io"
	"os"
	"strings"
	"unicode"
)

const consoleName = "console"

// consoleLines is how much of a console is worth reading in a report: the registers
// and calls of a panic are 50 lines, and what it is about stands before them.
const consoleLines = 100

// consoleBytes is how much of the end of a console is looked at.
const consoleBytes = 64 << 10

// readConsole returns the end of what a guest's kernel printed.
func readConsole(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	if end, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(0, end-consoleBytes), io.SeekStart)
	}
	text, _ := io.ReadAll(io.LimitReader(f, consoleBytes))
	return lastLines(string(text), consoleLines)
}

// lastLines returns the end of a terminal's output as plain text: a guest decides
// what comes, and a terminal would obey it.
func lastLines(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return -1
	}, s)
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// telling picks the line of a console that says what went wrong.
func telling(console string) string {
	lines := strings.Split(console, "\n")
	for _, sign := range []string{"Kernel panic", "Oops", "BUG:", "Out of memory", "vmdisk:"} {
		for _, line := range lines {
			if strings.Contains(line, sign) {
				return strings.TrimSpace(line)
			}
		}
	}
	return strings.TrimSpace(lines[len(lines)-1])
}
