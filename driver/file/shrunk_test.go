package file

import (
	"errors"
	"os"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
)

// TestShrunkIsNoHole: a file that was cut short after it was opened does not read as zeros where it was,
// neither by reading nor by its map; a hole at the end still is one.
func TestShrunkIsNoHole(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	path := newFile(t, t.TempDir(), size)
	f := openFile(t, path, Options{ForceShare: true, ReadOnly: true})
	dst := make([]disk.Extent, 0, 8)
	if got, err := f.Extents(bg, disk.Allocation, 0, size, dst); err != nil || len(got) != 1 || got[0].Len != size {
		t.Fatalf("a file that is a hole: %v, %v", got, err)
	}
	if err := os.Truncate(path, size/2); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Extents(bg, disk.Allocation, 0, size, dst[:0]); !errors.Is(err, errShrunk) {
		t.Errorf("a file that was cut in half: %v, %v", got, err)
	}
}
