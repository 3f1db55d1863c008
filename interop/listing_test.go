package interop

import (
	"fmt"
	"strings"
	"testing"
)

// TestListing: clients that ask a server for its exports, and about each of them on the
// same connection, see all of 1,000.
func TestListing(t *testing.T) {
	t.Parallel()
	const n = 1000
	args := []string{"-D", "диск 7%2F8=the eighth"}
	for i := range n {
		args = append(args, fmt.Sprintf("диск %d%%2F8=null:1M", i))
	}
	s := serve(t, args...)
	last := fmt.Sprintf("диск %d/8", n-1)
	for _, c := range []struct {
		name, each string
		command    []string
	}{
		{"qemu-nbd", " export: '", []string{"qemu-nbd", "-L", "-k", s.Socket}},
		{"nbdinfo", "export=\"", []string{"nbdinfo", "--list", s.URI()}},
		{"vmdisk", "\"диск", []string{bin(t), "info", "--list", s.URI()}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := run(t, c.command...)
			if got := strings.Count(out, c.each); got != n {
				t.Errorf("%d exports are listed", got)
			}
			if !strings.Contains(out, last) || !strings.Contains(out, "the eighth") {
				t.Errorf("no %q, or no description, among them", last)
			}
		})
	}
	stop(t, s)
}
