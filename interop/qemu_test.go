package interop

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

// TestQemuImgReads: qemu-img sees our export's size, content and holes.
func TestQemuImgReads(t *testing.T) {
	t.Parallel()
	const size = 16 << 20
	image := holey(t, size, 1)
	s := serve(t, "--read-only", "raw:"+image)

	var info struct {
		Size int64 `json:"virtual-size"`
	}
	unmarshal(t, run(t, "qemu-img", "info", "--output=json", "-f", "raw", s.URI()), &info)
	if info.Size != size {
		t.Errorf("qemu-img info sees %d bytes, want %d", info.Size, size)
	}

	var extents []struct {
		Start, Length int64
		Zero, Data    bool
	}
	unmarshal(t, run(t, "qemu-img", "map", "--output=json", "-f", "raw", s.URI()), &extents)
	if len(extents) != size/piece {
		t.Fatalf("qemu-img map sees %d extents, want %d", len(extents), size/piece)
	}
	for i, e := range extents {
		hole := i%2 == 1
		if e.Start != int64(i)*piece || e.Length != piece || e.Zero != hole || e.Data == hole {
			t.Fatalf("extent %d is %+v", i, e)
		}
	}

	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", image, s.URI())
	out := filepath.Join(tempDir(t), "out")
	run(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", s.URI(), out)
	sameFiles(t, image, out)
	if a := allocated(t, out); a > size/2+1<<20 {
		t.Errorf("the copy takes %d bytes: its holes were lost", a)
	}
}

// TestQemuImgWrites: qemu-img converts into our export, from raw and qcow2; what
// it zeroes becomes holes.
func TestQemuImgWrites(t *testing.T) {
	t.Parallel()
	const size = 16 << 20
	image := holey(t, size, 2)
	qcow2 := filepath.Join(tempDir(t), "qcow2")
	run(t, "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", image, qcow2)
	for _, from := range [][]string{{"raw", image}, {"qcow2", qcow2}} {
		for _, extra := range [][]string{nil, {"-W"}, {"--target-is-zero"}, {"-t", "writeback"}, {"-m", "16", "-W"}} {
			target := empty(t, size)
			s := serve(t, "raw:"+target)
			argv := append([]string{"qemu-img", "convert", "-n", "-f", from[0], "-O", "raw"}, extra...)
			run(t, append(argv, from[1], s.URI())...)
			stop(t, s)
			sameFiles(t, image, target)
			if a := allocated(t, target); a > size/2+1<<20 {
				t.Errorf("%s %v: the target takes %d bytes, want about %d", from[0], extra, a, size/2)
			}
		}
	}
}

// TestQemuImgServed: qcow2 as the content of our raw export.
func TestQemuImgServed(t *testing.T) {
	t.Parallel()
	image := holey(t, 8<<20, 3)
	target := empty(t, 32<<20)
	s := serve(t, "raw:"+target)
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", s.URI(), "8M")
	run(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", image, s.URI())
	run(t, "qemu-img", "check", "-q", "-f", "qcow2", s.URI())
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", image, s.URI())
	stop(t, s)
	// Without saying so nobody gets it as raw: its content begins as qcow2's.
	if msg := fail(t, 1, bin(t), "map", target); !strings.Contains(msg, "-f") {
		t.Errorf("the refusal does not name the flag: %s", msg)
	}
}

// TestQemuIO: single requests with QEMU's flags.
func TestQemuIO(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	for _, cache := range []string{"writeback", "none", "writethrough", "directsync", "unsafe"} {
		t.Run(cache, func(t *testing.T) {
			t.Parallel()
			image := empty(t, size)
			s := serve(t, "--cache", cache, "raw:"+image)
			qemuIO(t, s.URI(),
				"write -P 0x11 0 2M",
				"write -z 256k 64k",
				"write -z -u 512k 64k",
				"write -f -P 0x22 4k 4k",
				"write -z -f 8k 4k",
				"discard 1M 64k",
				"write -P 0x33 1001 333",
				"aio_write -P 0x44 1100k 100k", "aio_write -P 0x55 1200k 100k", "aio_flush",
				"flush",
				"read -P 0 256k 64k",
				"read -P 0 512k 64k",
				"read -P 0x33 1001 333",
				"read -P 0x11 1334 2762",
				"read -P 0x22 4k 4k",
				"read -P 0 8k 4k",
				"read -P 0x44 1100k 100k",
				"read -P 0 2M 2M",
				"truncate 4M",
			)
			stop(t, s)
			want := make([]byte, size)
			for _, w := range []struct {
				off, n int
				b      byte
			}{
				{0, 2 << 20, 0x11}, {256 << 10, 64 << 10, 0}, {512 << 10, 64 << 10, 0}, {4 << 10, 4 << 10, 0x22},
				{8 << 10, 4 << 10, 0}, {1001, 333, 0x33}, {1100 << 10, 100 << 10, 0x44}, {1200 << 10, 100 << 10, 0x55},
			} {
				copy(want[w.off:], bytes.Repeat([]byte{w.b}, w.n))
			}
			got := readFile(t, image)
			clear(want[1<<20 : 1<<20+64<<10]) // discarded: any content
			clear(got[1<<20 : 1<<20+64<<10])
			if !bytes.Equal(want, got) {
				t.Error("the file is not what qemu-io wrote")
			}
		})
	}
}

// qemuIO runs commands of qemu-io, each of which must succeed.
func qemuIO(t *testing.T, uri string, commands ...string) {
	t.Helper()
	argv := []string{"qemu-io", "-f", "raw"}
	for _, c := range commands {
		argv = append(argv, "-c", c)
	}
	out := run(t, append(argv, uri)...)
	for line := range strings.Lines(out) {
		if strings.Contains(line, "failed") || strings.Contains(line, "error") {
			t.Errorf("qemu-io: %s", line)
		}
	}
}

// TestQemuIOReadOnly: nobody writes to a read-only export.
func TestQemuIOReadOnly(t *testing.T) {
	t.Parallel()
	image := holey(t, 1<<20, 4)
	s := serve(t, "--read-only", "raw:"+image)
	before := readFile(t, image)
	fail(t, 1, "qemu-io", "-f", "raw", "-c", "write -P 1 0 4k", s.URI())
	run(t, "qemu-io", "-r", "-f", "raw", "-c", "read 0 64k", s.URI())
	stop(t, s)
	if !bytes.Equal(before, readFile(t, image)) {
		t.Error("a read-only export was changed")
	}
}

// TestQemuLock: QEMU and vmdisk keep each other out of an image.
func TestQemuLock(t *testing.T) {
	t.Parallel()
	image := holey(t, 1<<20, 5)
	ours := serve(t, "raw:"+image)
	if msg := fail(t, 1, "qemu-io", "-f", "raw", "-c", "write 0 4k", image); !strings.Contains(msg, "lock") {
		t.Errorf("qemu-io does not complain of the lock: %s", msg)
	}
	run(t, "qemu-io", "-r", "-U", "-f", "raw", "-c", "read 0 4k", image)
	stop(t, ours)

	theirs := qemuNBD(t, "-f", "raw", image)
	out := filepath.Join(tempDir(t), "out")
	sparseFile(t, out, 1<<20)
	if msg := fail(t, 1, bin(t), "copy", "raw:"+out, "raw:"+image); strings.Count(msg, "\n") > 1 {
		t.Errorf("not one line: %s", msg)
	}
	stop(t, theirs)
}

func unmarshal(t *testing.T, text string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}
