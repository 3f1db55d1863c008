package qcow2_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/vmdisk/vmdisk/format/qcow2"
)

// What is written over an image with internal snapshots, or with compressed clusters, leaves the
// snapshots what they were and the image sound.
func TestWritesBesideSnapshots(t *testing.T) {
	const size = 3<<20 + 1024
	for name, options := range map[string]string{"v2": "compat=0.10", "v3": "compat=1.1", "extended": "compat=1.1,extended_l2=on",
		"4K": "compat=1.1,cluster_size=4k", "512, 4 bits": "compat=1.1,cluster_size=512,refcount_bits=4"} {
		for _, compress := range []bool{false, true} {
			if compress && name == "512, 4 bits" {
				continue // small clusters are shared by more compressed ones than a snapshot leaves room for, in QEMU too
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				path, raw := filepath.Join(dir, "image"), filepath.Join(dir, "raw")
				want := mixed(size, 11)
				if err := os.WriteFile(raw, want, 0o600); err != nil {
					t.Fatal(err)
				}
				args := []string{"convert", "-f", "raw", "-O", "qcow2", "-o", options}
				if compress {
					args = append(args, "-c")
				}
				qemuImg(t, append(args, raw, path)...)
				rnd := rand.New(rand.NewPCG(size, 3))
				scribbleFile(t, path, want, rnd)
				sound(t, path, raw, want)
				qemuImg(t, "snapshot", "-c", "one", path)
				one := bytes.Clone(want)
				scribbleFile(t, path, want, rnd)
				sound(t, path, raw, want)
				qemuImg(t, "snapshot", "-c", "two", path)
				two := bytes.Clone(want)
				scribbleFile(t, path, want, rnd)
				sound(t, path, raw, want)
				qemuImg(t, "snapshot", "-a", "one", path)
				sound(t, path, raw, one)
				qemuImg(t, "snapshot", "-d", "one", path)
				qemuImg(t, "snapshot", "-a", "two", path)
				sound(t, path, raw, two)
			})
		}
	}
}

func scribbleFile(tb testing.TB, path string, want []byte, rnd *rand.Rand) {
	tb.Helper()
	d := openFile(tb, path, qcow2.Options{})
	scribble(tb, d, want, rnd, 30)
	if err := d.Close(); err != nil {
		tb.Fatal(err)
	}
}
