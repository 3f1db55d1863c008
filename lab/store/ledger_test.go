package store

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestLedgerNumbers: entries with a number twice, or none, are refused: striking one would strike both.
func TestLedgerNumbers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger")
	for _, c := range []struct{ text, want string }{
		{`[{"id":1,"kind":"path"},{"id":1,"kind":"loop"}]`, "entry 2 has the number 1"},
		{`[{"kind":"path"}]`, "entry 1 has the number 0"},
		{`[{"id":2},{"id":-1}]`, "entry 2 has the number -1"},
		{`[{"id":9223372036854775807}]`, "entry 1 has the number 9223372036854775807"},
		{`{}`, "cannot unmarshal"},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openLedger(path); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "by hand") {
			t.Errorf("%s: %v, want %q", c.text, err, c.want)
		}
	}
}

// FuzzLedger: whatever the file of a killed run holds, it is refused, or what is in it
// is known by numbers of its own, is written again as it was, and is undone without
// touching anything outside of the folder, which the text calls DIR.
func FuzzLedger(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		root := t.TempDir()
		dir, outside := filepath.Join(root, "work"), filepath.Join(root, "outside")
		path := filepath.Join(dir, "ledger.json")
		for _, d := range []string{dir, filepath.Join(dir, "a"), outside, filepath.Join(outside, "keep")} {
			if err := os.Mkdir(d, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.ReplaceAll(text, []byte("DIR"), []byte(dir)), 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := openLedger(path)
		if err != nil {
			return
		}
		read := slices.Clone(l.entries)
		again(t, l, path, read)
		s := &Store{o: Options{Dir: dir}, ledger: l, used: map[string]bool{}}
		for _, e := range read {
			// Mounts and loop devices of these folders are none: only paths do something here.
			if e.Kind == kindPath {
				_ = s.undo(t.Context(), e)
			}
		}
		for _, d := range []string{dir, filepath.Join(outside, "keep")} {
			if _, err := os.Stat(d); err != nil {
				t.Errorf("undoing %q: %v", text, err)
			}
		}
	})
}

// again adds an entry, and reads the ledger as another process would.
func again(t *testing.T, l *ledger, path string, read []entry) {
	t.Helper()
	added, err := l.add(entry{Kind: kindPath})
	if err != nil {
		t.Fatal(err)
	}
	other, err := openLedger(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := append(slices.Clone(read), added); !slices.Equal(other.entries, want) {
		t.Errorf("read again: %+v, want %+v", other.entries, want)
	}
}
