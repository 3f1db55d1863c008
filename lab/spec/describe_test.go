package spec

import (
	"strings"
	"testing"
)

// TestDescribe: texts for people say what is run, not what the file's defaults would be.
func TestDescribe(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		sets []string
		want string
	}{
		{nil, "Disk backings under four write-heavy virtual machines"},
		{[]string{"client=host", "server=qemu-nbd", "nodes=2"}, "Disk backings under two write-heavy processes of this host"},
		{[]string{"nodes=1"}, "Disk backings under one write-heavy virtual machine"},
		{[]string{"nodes=20"}, "Disk backings under 20 write-heavy virtual machines"},
	} {
		s := load(t, "falcon-backing", c.sets...)
		if got := s.Describe(s.Title); !strings.HasPrefix(got, c.want) {
			t.Errorf("%v: %q, want %q", c.sets, got, c.want)
		}
	}
	s := load(t, "falcon-backing", "disk=2G", "workloads=512")
	if got := s.Describe(s.Summary); !strings.Contains(got, "a disk of 2 GiB each") || !strings.Contains(got, "512-byte random writes") || strings.Contains(got, "4 KiB") || strings.ContainsAny(got, "{}") {
		t.Error(got)
	}
	for _, name := range Builtin() {
		s := load(t, name)
		for _, text := range append([]string{s.Title, s.Summary}, sweepTexts(s)...) {
			if got := s.Describe(text); strings.ContainsAny(got, "{}") {
				t.Errorf("%s: %q", name, got)
			}
		}
	}
}

func sweepTexts(s *Spec) []string {
	var out []string
	for _, w := range s.Sweeps {
		out = append(out, w.Title, w.Text)
	}
	return out
}
