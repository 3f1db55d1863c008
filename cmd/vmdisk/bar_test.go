package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/diskcopy"
)

// TestBar: the line says how much, how fast, how long and how long yet, and none of it
// before it can be known; it fits any terminal.
func TestBar(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	at, width := time.Unix(1000, 0), 100
	b := &bar{w: &out, now: func() time.Time { return at }, width: func() int { return width }}
	draw := func(after time.Duration, p diskcopy.Progress) string {
		out.Reset()
		at = at.Add(after)
		b.draw(p)
		text := strings.TrimSuffix(strings.TrimPrefix(out.String(), "\r"), toEnd)
		if len(text) >= width || strings.ContainsAny(text, "\r\n\x1b") {
			t.Errorf("%d characters on a terminal of %d: %q", len(text), width, text)
		}
		return text
	}
	const g = 1 << 30
	p := diskcopy.Progress{Phase: "copy", Done: g / 2, Total: 2 * g} // resumed at 512M
	if got := draw(0, p); !strings.HasPrefix(got, "copy  25 % [") || !strings.HasSuffix(got, "]  512M of 2G  0:00") {
		t.Errorf("at first: %q", got)
	}
	p.Done = g
	if got := draw(100*time.Millisecond, p); strings.Contains(got, "/s") || strings.Contains(got, "left") {
		t.Errorf("a rate after 0.1 s: %q", got)
	}
	if got := draw(3900*time.Millisecond, p); !strings.HasSuffix(got, "]  1G of 2G  128M/s  0:04, 0:08 left") {
		t.Errorf("after 4 s: %q", got)
	}
	p.WaitingFor, p.WaitingSeconds = "nbd://host", 7
	if got := draw(0, p); !strings.HasSuffix(got, "]  waiting for nbd://host for 7 s") {
		t.Errorf("waiting: %q", got)
	}
	if got := draw(0, diskcopy.Progress{Phase: "copy", Done: 3 << 20}); got != "copy 3M  0:04" {
		t.Errorf("without a total: %q", got)
	}
	for width = 0; width < 90; width++ {
		if width > 0 {
			draw(0, p)
		}
	}
	out.Reset()
	b.clear()
	b.clear()
	if out.String() != "\r"+toEnd {
		t.Errorf("cleared by %q", out.String())
	}
}

func TestAboutText(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0", 1000: "1000 bytes", 1024: "1K", 1536: "1.5K", 77594624: "74M", 1000000: "976.6K", 1<<40 - 1: "1T", 3 << 39: "1.5T"} {
		if got := aboutText(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	if got := clockText(3725.9); got != "1:02:05" {
		t.Error(got)
	}
}
