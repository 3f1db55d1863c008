package interop

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// piece is the unit of the test images: every other piece is a hole.
const piece = 64 << 10

// holey makes an image of size bytes that alternates data and holes, beginning
// with data. The data is random, the same for a seed.
func holey(t *testing.T, size int64, seed byte) string {
	t.Helper()
	path := filepath.Join(tempDir(t), "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.NewChaCha8([32]byte{seed})
	p := make([]byte, piece)
	for off := int64(0); off < size; off += 2 * piece {
		_, _ = rng.Read(p)
		if _, err := f.WriteAt(p[:min(piece, size-off)], off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// empty makes a sparse image.
func empty(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(tempDir(t), "image")
	sparseFile(t, path, size)
	return path
}

// sameFiles fails unless two files have the same content.
func sameFiles(t *testing.T, want, got string) {
	t.Helper()
	a, err := os.Open(want)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	b, err := os.Open(got)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	p, q := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); ; off += int64(len(p)) {
		n, errA := io.ReadFull(a, p)
		m, errB := io.ReadFull(b, q)
		if n != m || !bytes.Equal(p[:n], q[:m]) {
			t.Fatalf("%s and %s differ between %d and %d", want, got, off, off+int64(len(p)))
		}
		if errA != nil || errB != nil {
			return
		}
	}
}

// allocated is what a file takes on disk, in bytes.
func allocated(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
