package file

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk/disktest/hostfs"
)

// cached is how much of f the page cache holds, and how much of that is not written
// back, in bytes.
func cached(t *testing.T, f *File) (all, dirty int) {
	t.Helper()
	var st unix.Cachestat_t
	if err := unix.Cachestat(uint(f.fd), &unix.CachestatRange{}, &st, 0); err != nil {
		t.Skipf("this kernel does not tell what it caches: %v", err)
	}
	return int(st.Cache) * unix.Getpagesize(), int(st.Dirty+st.Writeback) * unix.Getpagesize()
}

// TestWriteBehind: what is dropped is written back and out of memory, the rest is as
// it was.
func TestWriteBehind(t *testing.T) {
	t.Parallel()
	const half = 4 << 20
	dir := hostfs.Mount(t, hostfs.Ext4, hostfs.Options{})
	f := openFile(t, newFile(t, dir, 2*half), Options{})
	for off := int64(0); off < 2*half; off += half / 4 {
		if err := f.WriteAt(bg, random(half/4, uint64(off)), off, 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []int64{0, half} {
		if err := f.WriteBehind(0, n, true); err != nil {
			t.Fatal(err)
		}
		all, dirty := cached(t, f)
		if want := 2*half - int(n); all != want || dirty > want {
			t.Errorf("%d bytes dropped: %d cached, %d of them dirty, want %d", n, all, dirty, want)
		}
	}
	if err := f.WriteBehind(half, half, false); err != nil {
		t.Fatal(err)
	}
	if all, _ := cached(t, f); all != half {
		t.Errorf("begun: %d cached, want %d", all, half)
	}
}

// TestNoWriteBehind: where there is no page cache, or nothing may be lost by
// keeping all in it.
func TestNoWriteBehind(t *testing.T) {
	t.Parallel()
	disks := map[string]*File{}
	mnt := hostfs.Mount(t, hostfs.Ext4, hostfs.Options{})
	for name, o := range map[string]Options{"none": {Cache: None}, "directsync": {Cache: Directsync}, "unsafe": {Cache: Unsafe}, "read-only": {ReadOnly: true}} {
		dir := filepath.Join(mnt, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		disks[name] = openFile(t, newFile(t, dir, 1<<20), o)
	}
	disks["tmpfs"] = openFile(t, newFile(t, hostfs.Mount(t, hostfs.Tmpfs, hostfs.Options{}), 1<<20), Options{})
	for name, f := range disks {
		for _, n := range []int64{0, 1 << 20} {
			if err := f.WriteBehind(0, n, false); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%s, %d bytes: %v", name, n, err)
			}
		}
	}
}
