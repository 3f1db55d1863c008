package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnits: the systemd units are understood by systemd without a word, and leave
// their services an exposure of 3 of 10 at most, by its own count.
func TestUnits(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Fatal("systemd-analyze is not installed: scripts/peers.sh does it")
	}
	units, err := filepath.Glob(filepath.Join(docsRoot, "packaging", "systemd", "*"))
	if err != nil || len(units) < 3 {
		t.Fatalf("units %v (%v)", units, err)
	}
	dir := t.TempDir()
	var services, all []string
	for _, u := range units {
		text, err := os.ReadFile(u)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, filepath.Base(u))
		// What is verified has to exist: the program is not installed here.
		if err := os.WriteFile(to, []byte(strings.ReplaceAll(string(text), "@PREFIX@/bin/vmdisk", "/bin/true")), 0o644); err != nil {
			t.Fatal(err)
		}
		if all = append(all, to); strings.HasSuffix(u, ".service") {
			services = append(services, to)
		}
	}
	for _, s := range services {
		if out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=30", "--no-pager", s).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", filepath.Base(s), err, out)
		}
	}
	out, err := exec.Command("systemd-analyze", append([]string{"verify", "--man=no"}, all...)...).CombinedOutput()
	if err != nil || strings.Contains(string(out), dir) {
		t.Errorf("verify: %v\n%s", err, out)
	}
}
