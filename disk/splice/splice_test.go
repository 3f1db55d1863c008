package splice

import (
	"os"
	"path/filepath"
	"testing"
)

// TestSpliceKinds: splice is for regular files alone.
func TestSpliceKinds(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if !Regular(int(f.Fd())) || Regular(int(null.Fd())) || Regular(-1) {
		t.Error("a file, a device or a closed file is taken for something else")
	}
}
