package file

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest/hostfs"
	"github.com/vmdisk/vmdisk/uring"
)

// TestFull: ENOSPC comes through by every way to write, what was written before
// stays, and zeroing that needs no space works.
func TestFull(t *testing.T) {
	t.Parallel()
	hostfs.RequireRoot(t)
	for _, kind := range []hostfs.Kind{hostfs.Tmpfs, hostfs.Ext4} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			dir := hostfs.Mount(t, kind, hostfs.Options{Size: 16 << 20})
			f := openFile(t, newFile(t, dir, 64<<20), Options{AIO: IOUring})
			q := newQueue(t, f, 4)
			keep := random(1<<20, 1)
			if err := errors.Join(f.WriteAt(bg, keep, 0, 0), f.Flush(bg)); err != nil {
				t.Fatal(err)
			}
			big := random(32<<20, 2)
			for name, err := range map[string]error{
				"write":     f.WriteAt(bg, big, 1<<20, 0),
				"writev":    f.Writev(bg, [][]byte{big[:1<<20], big[1<<20:]}, 1<<20, 0),
				"queue":     finish(t, q, disk.Op{Kind: disk.Write, Off: 1 << 20, Len: 32 << 20, Vec: [][]byte{big}})[0],
				"allocated": f.Zero(bg, 33<<20, 31<<20, 0),
			} {
				if !errors.Is(err, unix.ENOSPC) {
					t.Errorf("%s: %v, want ENOSPC", name, err)
				}
			}
			if err := f.Zero(bg, 1<<20, 63<<20, disk.MayTrim); err != nil {
				t.Errorf("giving space back on a full file system: %v", err)
			}
			got := make([]byte, 1<<20)
			if err := f.ReadAt(bg, got, 0); err != nil || !bytes.Equal(got, keep) {
				t.Errorf("what was written before is gone (%v)", err)
			}
			if err := Create(bg, filepath.Join(dir, "new"), 64<<20, PreallocFalloc); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("create: %v", err)
			}
			if _, err := os.Lstat(filepath.Join(dir, "new")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("half a file is left: %v", err)
			}
		})
	}
}

// TestEIO reads from a loop device whose image was cut off.
func TestEIO(t *testing.T) {
	t.Parallel()
	dev := hostfs.Loop(t, hostfs.Options{Size: 4 << 20})
	f := openFile(t, dev, Options{Cache: None, AIO: IOUring})
	q := newQueue(t, f, 4)
	backing, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(dev), "loop/backing_file"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(strings.TrimSpace(string(backing)), 1<<20); err != nil {
		t.Fatal(err)
	}
	mem, err := uring.Alloc(8192)
	if err != nil {
		t.Fatal(err)
	}
	defer uring.Free(mem)
	for name, err := range map[string]error{
		"read":      f.ReadAt(bg, mem, 2<<20),
		"unaligned": f.ReadAt(bg, make([]byte, 4097)[1:], 2<<20),
		"readv":     f.Readv(bg, [][]byte{mem[:4096], mem[4096:]}, 2<<20),
		"queue":     finish(t, q, disk.Op{Kind: disk.Read, Off: 2 << 20, Len: 8192, Vec: [][]byte{mem}})[0],
	} {
		if !errors.Is(err, unix.EIO) {
			t.Errorf("%s: %v, want EIO", name, err)
		}
	}
	if err := f.ReadAt(bg, mem, 0); err != nil {
		t.Errorf("the part that is there: %v", err)
	}
}

// TestVanishedMemory keeps the promise of Info.KernelIO: memory of a guest that
// the guest's process has truncated gives an error, where touching it in user
// space would end the process with SIGBUS.
func TestVanishedMemory(t *testing.T) {
	t.Parallel()
	memfd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(memfd)
	if err := unix.Ftruncate(memfd, 64<<10); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(memfd, 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	if err := unix.Ftruncate(memfd, 0); err != nil {
		t.Fatal(err)
	}
	for _, cache := range []Cache{Writeback, None} {
		f := openFile(t, newFile(t, t.TempDir(), 1<<20), Options{Cache: cache, AIO: IOUring})
		if !f.Info().KernelIO {
			t.Fatalf("%s: no KernelIO", cache)
		}
		q := newQueue(t, f, 4)
		for _, p := range [][]byte{mem[:4096], mem[1:4097]} {
			for name, err := range map[string]error{
				"read":        f.ReadAt(bg, p, 0),
				"write":       f.WriteAt(bg, p, 0, 0),
				"readv":       f.Readv(bg, [][]byte{p[:512], p[512:]}, 0),
				"writev":      f.Writev(bg, [][]byte{p[:512], p[512:]}, 0, disk.FUA),
				"queue read":  finish(t, q, disk.Op{Kind: disk.Read, Len: 4096, Vec: [][]byte{p}})[0],
				"queue write": finish(t, q, disk.Op{Kind: disk.Write, Len: 4096, Vec: [][]byte{p}})[0],
			} {
				if !errors.Is(err, unix.EFAULT) {
					t.Errorf("%s: %s: %v, want EFAULT", cache, name, err)
				}
			}
		}
	}
}
