package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/diskurl"
)

// TestDefaultJournal: it lies in a place where it can be found again, and tells no ticket.
func TestDefaultJournal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	local := filepath.Join(dir, "disk.raw")
	if err := diskurl.Create(t.Context(), local, diskurl.CreateOptions{Size: 4096}); err != nil {
		t.Fatal(err)
	}
	parse := func(s string) diskurl.URL {
		u, err := diskurl.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	const ticket = "0b6bd5a9-3a0c-4d30-a3b2-2a6a7a2d9f11"
	one := defaultJournal(parse(local), parse("https://host:54322/images/"+ticket))
	if filepath.Dir(one) != dir || !strings.HasPrefix(filepath.Base(one), "disk.raw.to-https-host-54322-") || strings.Contains(one, ticket) {
		t.Errorf("beside a local source: %s", one)
	}
	if two := defaultJournal(parse(local), parse("https://host:54322/images/another")); two != one {
		t.Errorf("a new ticket has another journal: %s and %s", one, two)
	}
	seen := map[string]bool{one: true}
	for _, dst := range []string{"https://other:54322/images/x", "nbd://host/a", "nbd://host/b", "nbd+unix:///a?socket=/run/s", "/dev/vg/lv", "nbd://host/" + strings.Repeat("x", 3000)} {
		name := defaultJournal(parse("nbd://from/x"), parse(dst))
		if seen[name] || filepath.Dir(name) != "." || len(name) > 255 || strings.ContainsAny(name, "/?: ") {
			t.Errorf("to %.40s: %s", dst, name)
		}
		seen[name] = true
	}
}

// TestPartialIsTheOneWritten: a file that took the partial file's name while the copy went on neither
// becomes the target nor is removed.
func TestPartialIsTheOneWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	final := filepath.Join(dir, "disk.raw")
	c := &target{final: final, partial: final + ".partial"}
	if err := diskurl.Create(t.Context(), c.partial, diskurl.CreateOptions{Size: 4096}); err != nil {
		t.Fatal(err)
	}
	if err := c.lock(t.Context(), diskurl.File(c.partial), diskurl.Options{Format: diskurl.FormatRaw}); err != nil {
		t.Fatal(err)
	}
	defer c.disk.Close()
	if err := os.Rename(c.partial, filepath.Join(dir, "moved.raw")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.partial, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.publish(); err == nil || !strings.Contains(err.Error(), "disk.raw.partial is no longer the file that was written") {
		t.Errorf("publish: %v", err)
	}
	c.unnamed = nil
	if err := c.end(errors.New("failed"), true); err == nil || strings.Contains(err.Error(), "was removed") {
		t.Errorf("end: %v", err)
	}
	if text, err := os.ReadFile(c.partial); err != nil || string(text) != "another" {
		t.Errorf("another's file: %q, %v", text, err)
	}
	if _, err := os.Lstat(final); err == nil {
		t.Error("another's file became the target")
	}
}
