package interop

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/interop/peer"
)

// mapped is a segment of a map; nbdinfo's type is a bitmap's bit, or a depth.
type mapped struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
	Dirty  bool  `json:"dirty"`
	Depth  int   `json:"depth"`
	Type   int   `json:"type"`
}

func segments(t *testing.T, text string) (list []mapped) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return list
}

// sameMap compares ours with nbdinfo's map of the same export.
func sameMap(t *testing.T, uri, name, context string) []mapped {
	t.Helper()
	mine := segments(t, ours(t, "map", "--json", "--map", name, uri))
	if wire := segments(t, ours(t, "map", "--json", "--map", context, uri)); !slices.Equal(wire, mine) {
		t.Errorf("%s: %+v, %s: %+v", name, mine, context, wire)
	}
	var typed []mapped
	for _, s := range mine {
		s.Type = s.Depth
		if s.Dirty {
			s.Type = 1
		}
		s.Dirty, s.Depth = false, 0
		typed = append(typed, s)
	}
	if want := segments(t, run(t, "nbdinfo", "--map="+context, "--json", uri)); !slices.Equal(typed, want) {
		t.Errorf("%s: %+v, nbdinfo: %+v", name, typed, want)
	}
	return mine
}

func dirtyBytes(list []mapped) (n int64) {
	for _, s := range list {
		if s.Dirty {
			n += s.Length
		}
	}
	return n
}

const bitmapContext = "qemu:dirty-bitmap:backup.1"

// bitmapImage is a qcow2 image with a bitmap that has seen 320 KiB of writes.
func bitmapImage(t *testing.T) string {
	t.Helper()
	image := filepath.Join(tempDir(t), "qcow2")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", image, "16M")
	run(t, "qemu-io", "-f", "qcow2", "-c", "write 4M 64k", image) // before the bitmap: not in it
	run(t, "qemu-img", "bitmap", "--add", "-g", "64k", image, "backup.1")
	run(t, "qemu-io", "-f", "qcow2", "-c", "write 1M 256k", "-c", "write 9M 4k", image)
	return image
}

// TestDirtyBitmap: our client shows a bitmap of qemu-nbd as nbdinfo does, what is
// written meanwhile comes in, and our server passes it on.
func TestDirtyBitmap(t *testing.T) {
	t.Parallel()
	s := qemuNBD(t, "-f", "qcow2", "-B", "backup.1", bitmapImage(t))
	list := sameMap(t, s.URI(), "dirty:backup.1", bitmapContext)
	if n := dirtyBytes(list); n != 320<<10 || len(list) != 5 || list[1] != (mapped{Offset: 1 << 20, Length: 256 << 10, Dirty: true}) {
		t.Errorf("%d dirty bytes: %+v", n, list)
	}
	if text := ours(t, "map", "--map", "dirty:backup.1", s.URI()); !strings.Contains(text, "1048576               262144  dirty\n") {
		t.Error(text)
	}
	run(t, "qemu-io", "-f", "raw", "-c", "write 12M 128k", s.URI())
	if n := dirtyBytes(sameMap(t, s.URI(), "dirty:backup.1", bitmapContext)); n != 448<<10 {
		t.Errorf("%d dirty bytes after another write of 128 KiB", n)
	}
	again := serve(t, "--map", "dirty:backup.1", s.URI())
	if n := dirtyBytes(sameMap(t, again.URI(), "dirty:backup.1", bitmapContext)); n != 448<<10 {
		t.Errorf("%d dirty bytes through our server", n)
	}
}

// TestStorageDaemonBitmap: the same of qemu-storage-daemon, which exports the
// bitmap of a read-only disk.
func TestStorageDaemonBitmap(t *testing.T) {
	t.Parallel()
	need(t, "qemu-storage-daemon")
	image := bitmapImage(t)
	run(t, "qemu-img", "bitmap", "--disable", image, "backup.1") // a read-only export demands it
	socket := filepath.Join(tempDir(t), "sock")
	p, err := peer.Start("qemu-storage-daemon", []string{"qemu-storage-daemon",
		"--blockdev", "driver=file,node-name=f0,read-only=on,filename=" + image,
		"--blockdev", "driver=qcow2,node-name=q0,read-only=on,file=f0",
		"--nbd-server", "addr.type=unix,addr.path=" + socket,
		"--export", "type=nbd,id=e0,node-name=q0,name=disk,bitmaps.0=backup.1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Kill() })
	eventually(t, "qemu-storage-daemon greets", func() bool { return peer.Greeted(t.Context(), "unix", socket) == nil })
	list := sameMap(t, peer.UnixURI(socket, "disk"), "dirty:backup.1", bitmapContext)
	if n := dirtyBytes(list); n != 320<<10 {
		t.Errorf("%d dirty bytes: %+v", n, list)
	}
}

// TestDepthMap: how deep in the backing chain data lies.
func TestDepthMap(t *testing.T) {
	t.Parallel()
	base := bitmapImage(t)
	top := filepath.Join(filepath.Dir(base), "top")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top)
	run(t, "qemu-io", "-f", "qcow2", "-c", "write 2M 1M", top)
	s := qemuNBD(t, "-f", "qcow2", "-A", top)
	list := sameMap(t, s.URI(), "depth", "qemu:allocation-depth")
	if !slices.Contains(list, mapped{Offset: 2 << 20, Length: 1 << 20, Depth: 1}) || !slices.Contains(list, mapped{Offset: 1 << 20, Length: 256 << 10, Depth: 2}) {
		t.Errorf("%+v", list)
	}
}

// TestNoSuchMap: one clear line.
func TestNoSuchMap(t *testing.T) {
	t.Parallel()
	s := qemuNBD(t, "-f", "qcow2", "-B", "backup.1", bitmapImage(t))
	for _, verb := range []string{"map", "serve"} {
		text := fail(t, 1, bin(t), verb, "--map", "dirty:other", s.URI())
		if !strings.Contains(text, "has no map dirty:other") || strings.Count(text, "\n") != 1 {
			t.Error(text)
		}
	}
}
