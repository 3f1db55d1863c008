package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLedgerOfOthers: what another user may have written is refused with a line that
// says why: root acts on devices and processes as the ledger says.
func TestLedgerOfOthers(t *testing.T) {
	t.Parallel()
	for want, spoil := range map[string]func(path string) error{
		"is a link": func(path string) error {
			return os.Rename(path, path+".real") // and then the link
		},
		"can be written by others (mode 0620)": func(path string) error { return os.Chmod(path, 0o620) },
		"can be written by others (mode 0602)": func(path string) error { return os.Chmod(path, 0o602) },
		"belongs to user 12345":                func(path string) error { return os.Chown(path, 12345, -1) },
		"has another name":                     func(path string) error { return os.Link(path, path+".too") },
		"is no regular file": func(path string) error {
			_ = os.Remove(path)
			return unix.Mkfifo(path, 0o600)
		},
	} {
		path := filepath.Join(t.TempDir(), "ledger.json")
		err := os.WriteFile(path, []byte("[]"), 0o600)
		if err == nil {
			err = spoil(path)
		}
		if err == nil && want == "is a link" {
			err = os.Symlink(path+".real", path)
		}
		if os.IsPermission(err) {
			continue // only root gives files away
		}
		if err != nil {
			t.Fatal(err)
		}
		_, err = openLedger(path)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "remove it") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestLedgerNotThroughLinks: a link in the place of the file that is written first leads
// nowhere.
func TestLedgerNotThroughLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, outside := filepath.Join(dir, "ledger.json"), filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(outside, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, path+".new"); err != nil {
		t.Fatal(err)
	}
	l, err := openLedger(path)
	if err == nil {
		_, err = l.add(entry{Kind: kindPath, Path: filepath.Join(dir, "a")})
	}
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(outside); err != nil || string(text) != "precious" {
		t.Errorf("it was written through the link: %q, %v", text, err)
	}
	if l, err = openLedger(path); err != nil || len(l.entries) != 1 {
		t.Errorf("%v", err)
	}
}

// TestUndoMountBeneath: a link in the folder, in the path or at its end, does not lead
// to mounts of others.
func TestUndoMountBeneath(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root mounts")
	}
	dir, outside := t.TempDir(), t.TempDir()
	for _, d := range []string{filepath.Join(outside, "m"), filepath.Join(dir, "m"), filepath.Join(dir, "a"), filepath.Join(dir, "a", "m")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
		if d == filepath.Join(dir, "a") {
			continue
		}
		if err := unix.Mount("none", d, "tmpfs", 0, "size=1m"); err != nil {
			t.Skip("no mounts here: ", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(d, unix.MNT_DETACH) })
	}
	for name, to := range map[string]string{"link": outside, "end": filepath.Join(outside, "m")} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s := &Store{o: Options{Dir: dir}}
	for name, undone := range map[string]bool{"m": true, "a/m": true, "missing": true, "missing/m": true, "link/m": false, "end": true} {
		if err := s.undoMount(t.Context(), filepath.Join(dir, name)); (err == nil) != undone {
			t.Errorf("%s: %v", name, err)
		}
	}
	for path, want := range map[string]int{outside: 1, dir: 0} {
		if left, err := mountsIn(path); err != nil || len(left) != want {
			t.Errorf("%d mounts are left in %s, want %d (%v)", len(left), path, want, err)
		}
	}
}
