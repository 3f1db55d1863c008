package file

import (
	"errors"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest/hostfs"
)

// lossy opens a device whose storage is full, writes into its page cache what
// cannot be written back, and waits until the kernel has found that out.
func lossy(t *testing.T) *File {
	t.Helper()
	hostfs.RequireRoot(t)
	dev := hostfs.Loop(t, hostfs.Options{Size: 8 << 20, Dir: hostfs.Mount(t, hostfs.Tmpfs, hostfs.Options{Size: 1 << 20})})
	f := openFile(t, dev, Options{AIO: IOUring})
	if err := errors.Join(f.WriteAt(bg, random(64<<10, 1), 0, 0), f.Flush(bg)); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteAt(bg, random(4<<20, 2), 2<<20, 0); err != nil {
		t.Fatal(err)
	}
	// The error is told once to each open file: this one is not f's.
	other, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Sync(); !errors.Is(err, unix.EIO) {
		t.Fatalf("writing back to full storage: %v, want EIO", err)
	}
	return f
}

// TestLostWriteIsTold: whatever else meets the kernel's one report of a lost
// write first, flushes fail, all of them, for ever.
func TestLostWriteIsTold(t *testing.T) {
	t.Parallel()
	write := disk.Op{Kind: disk.Write, Len: 4096, Vec: [][]byte{random(4096, 3)}, Flags: disk.FUA}
	for name, first := range map[string]func(t *testing.T, f *File){
		"FUA write":        func(_ *testing.T, f *File) { _ = f.WriteAt(bg, random(4096, 3), 0, disk.FUA) },
		"queued FUA write": func(t *testing.T, f *File) { finish(t, newQueue(t, f, 1), write) },
		"FUA zero":         func(_ *testing.T, f *File) { _ = f.Zero(bg, 0, 4096, disk.FUA) },
		"flush":            func(_ *testing.T, f *File) { _ = f.Flush(bg) },
		"write-behind":     func(_ *testing.T, f *File) { _ = f.WriteBehind(0, 8<<20, true) },
		"queued flush":     func(t *testing.T, f *File) { finish(t, newQueue(t, f, 1), disk.Op{Kind: disk.Flush}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := lossy(t)
			first(t, f)
			for range 2 {
				if err := f.Flush(bg); !errors.Is(err, unix.EIO) {
					t.Errorf("flush: %v, want EIO", err)
				}
				if err := finish(t, newQueue(t, f, 1), disk.Op{Kind: disk.Flush})[0]; !errors.Is(err, unix.EIO) {
					t.Errorf("queued flush: %v, want EIO", err)
				}
			}
		})
	}
}

// TestLostWriteIsToldToAll: of flushes at one time the kernel tells one.
func TestLostWriteIsToldToAll(t *testing.T) {
	t.Parallel()
	const count = 8
	f := lossy(t)
	q := newQueue(t, f, count)
	var ops []disk.Op
	for i := range count {
		ops = append(ops, disk.Op{Kind: disk.Flush, Tag: uint64(i)})
	}
	if n, err := q.Submit(ops); n != count || err != nil {
		t.Fatal(n, err)
	}
	var group sync.WaitGroup
	var errs [count]error
	for i := range errs {
		group.Go(func() { errs[i] = f.Flush(bg) })
	}
	group.Wait()
	done := make([]disk.Completion, count)
	if n, err := q.Reap(bg, count, done); n != count || err != nil {
		t.Fatal(n, err)
	}
	for i := range count {
		if !errors.Is(errs[i], unix.EIO) || !errors.Is(done[i].Err, unix.EIO) {
			t.Errorf("flush %d: %v; queued: %v; want EIO", i, errs[i], done[i].Err)
		}
	}
}
