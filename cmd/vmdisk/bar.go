package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/diskcopy"
)

// bar is the last line of a terminal, which shows how far long work has come.
type bar struct {
	w   io.Writer
	now func() time.Time
	// width of the terminal. One that does not know its size, such as a serial console or
	// a new pseudo-terminal, has that of all old ones.
	width func() int

	phase string
	began time.Time
	first int64 // what was done when the phase began
	drawn bool
}

const plainWidth = 80

func newBar(w io.Writer) *bar {
	return &bar{w: w, now: time.Now, width: func() int { return terminalWidth(w) }}
}

func terminalWidth(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
			return int(size.Col)
		}
	}
	return plainWidth
}

// toEnd clears what is right of the cursor, in the language of all terminals.
const toEnd = "\x1b[K"

// draw shows the state, over the last one.
func (b *bar) draw(p diskcopy.Progress) {
	if p.Phase != b.phase {
		b.phase, b.began, b.first = p.Phase, b.now(), p.Done
	}
	b.drawn = true
	_, _ = io.WriteString(b.w, "\r"+b.line(p, b.now().Sub(b.began), b.width()-1)+toEnd) // a terminal that is gone misses nothing
}

// clear takes the bar, and what was typed into it (^C), off the terminal.
func (b *bar) clear() {
	if b.drawn {
		b.drawn = false
		_, _ = io.WriteString(b.w, "\r"+toEnd)
	}
}

// knownAfter is how long a rate takes to mean something.
const knownAfter = 500 * time.Millisecond

// barLeast and barMost are the widths of the part that grows.
const (
	barLeast = 10
	barMost  = 40
)

// line is what fits into width, the most important first.
func (b *bar) line(p diskcopy.Progress, took time.Duration, width int) string {
	fraction := 0.0
	head := fmt.Sprintf("%s %s", p.Phase, aboutText(p.Done))
	if p.Total > 0 {
		fraction = min(float64(p.Done)/float64(p.Total), 1)
		head = fmt.Sprintf("%s %3d %%", p.Phase, int(fraction*100))
	}
	tail := b.tail(p, took)
	if p.WaitingFor != "" {
		tail = fmt.Sprintf("  waiting for %s for %d s", p.WaitingFor, p.WaitingSeconds)
	}
	graph := ""
	if n := min(width-len(head)-len(tail)-3, barMost); p.Total > 0 && n >= barLeast {
		full := int(fraction * float64(n))
		graph = " [" + strings.Repeat("#", full) + strings.Repeat(".", n-full) + "]"
	}
	line := head + graph + tail
	return line[:min(len(line), max(width, 0))]
}

// tail is how much, how fast, how long, and how long it will take.
func (b *bar) tail(p diskcopy.Progress, took time.Duration) string {
	var parts []string
	if p.Total > 0 {
		parts = append(parts, aboutText(p.Done)+" of "+aboutText(p.Total))
	}
	left := ""
	if moved := p.Done - b.first; took >= knownAfter && moved > 0 {
		rate := float64(moved) / took.Seconds()
		parts = append(parts, aboutText(int64(rate))+"/s")
		if p.Total > p.Done {
			left = ", " + clockText(float64(p.Total-p.Done)/rate) + " left"
		}
	}
	return "  " + strings.Join(append(parts, clockText(took.Seconds())+left), "  ")
}

// clockText is a time as clocks show it.
func clockText(seconds float64) string {
	s := int64(min(seconds, 1e9))
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}
