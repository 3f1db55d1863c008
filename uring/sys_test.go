package uring

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestWritev writes as many buffers as fit, and empty ones, without garbage.
func TestWritev(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var vec [][]byte
	var want []byte
	for i := range MaxWritev {
		p := bytes.Repeat([]byte{byte(i)}, i)
		vec, want = append(vec, p), append(want, p...)
	}
	fd := int(f.Fd())
	if n, err := Writev(fd, vec); n != len(want) || err != nil {
		t.Fatalf("%d, %v; want %d", n, err, len(want))
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("wrong content, %v", err)
	}
	if _, err := Writev(fd, append(vec, nil)); err != unix.EINVAL {
		t.Errorf("one buffer too many: %v", err)
	}
	if _, err := Writev(-1, vec); err != unix.EBADF {
		t.Errorf("no descriptor: %v", err)
	}
}
