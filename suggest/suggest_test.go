package suggest

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	t.Parallel()
	known := []string{"bs", "iodepth", "ioengine", "rwmixread", "raw", "qcow2", "write", "nbd", "preallocation", "io_uring"}
	for name, want := range map[string]string{
		"bss": "bs", "iodpeth": "iodepth", "ioengin": "ioengine", "rwmixraed": "rwmixread", "qcow": "qcow2",
		"wriet": "write", "ndb": "nbd", "prealocatoin": "preallocation", "io-uring": "io_uring", "raw": "raw",
		"": "", "x": "", "abc": "", "threads": "", "xs": "bs", strings.Repeat("bs", 50): "",
	} {
		if got := Nearest(name, known); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, got, want)
		}
	}
	if got := Nearest("aa", []string{strings.Repeat("a", 100), "ab", "ac"}); got != "ab" {
		t.Errorf("of two equally near names %q, want the first", got)
	}
}

func TestDistance(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"kitten", "sitting", 3}, {"ab", "ba", 1}, {"abcd", "badc", 2}, {"ca", "abc", 3}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
