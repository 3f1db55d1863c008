package diskcopy

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest/hostfs"
	"github.com/vmdisk/vmdisk/driver/file"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("VMDISK_TEST_WALK"); path != "" {
		os.Exit(walkFile(path))
	}
	os.Exit(hostfs.Main(m))
}

func newFile(t testing.TB, path string, size int64) *disk.Disk {
	t.Helper()
	if err := file.Create(context.Background(), path, size, file.PreallocOff); err != nil {
		t.Fatal(err)
	}
	return openFile(t, path)
}

func openFile(t testing.TB, path string) *disk.Disk {
	t.Helper()
	d, err := file.OpenDisk(context.Background(), path, file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// freeSpace of the file system, all written back.
func freeSpace(t *testing.T, dir string) int64 {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Syncfs(fd); err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bfree) * st.Bsize
}

func allocated(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// TestFileCopies copies within each kind of file system: a reflink where there
// are such, and sparse everywhere.
func TestFileCopies(t *testing.T) {
	t.Parallel()
	for _, kind := range hostfs.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			dir := hostfs.Mount(t, kind, hostfs.Options{})
			const size = 40*mib + 4097
			src := newFile(t, filepath.Join(dir, "src"), size)
			for i := int64(0); i < 40; i += 2 {
				fill(t, src, i*mib, mib, i)
			}
			fill(t, src, size-1, 1, 1)
			reflink := kind == hostfs.XFS || kind == hostfs.Btrfs
			for _, o := range []Options{{Verify: true}, {NoClone: true, Verify: true}, {Allocate: true, Verify: true}} {
				free := freeSpace(t, dir)
				path := filepath.Join(dir, "dst")
				dst := newFile(t, path, size)
				st, err := Copy(context.Background(), dst, src, o)
				if err != nil {
					t.Fatalf("%+v: %v", o, err)
				}
				cloned := reflink && !o.NoClone && !o.Allocate
				if cloned != (st.Clone.Bytes == size) || cloned == (st.Write.Ops > 0) {
					t.Errorf("%+v: %+v", o, st)
				}
				used := allocated(t, path) / mib
				if cloned {
					used = (free - freeSpace(t, dir)) / mib
				}
				switch {
				case kind == hostfs.Ramfs: // all of a file stays allocated
				case cloned && used > 2:
					t.Errorf("a reflink took %d MiB", used)
				case !cloned && !o.Allocate && (used < 18 || used > 25):
					t.Errorf("a sparse copy of 20 MiB took %d MiB", used)
				case o.Allocate && used < 39:
					t.Errorf("an allocated copy took %d MiB", used)
				}
				mustEqual(t, src, dst)
				if err := dst.Close(); err != nil {
					t.Fatal(err)
				}
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestFileToDevice copies to block devices whose sectors do not match the source.
func TestFileToDevice(t *testing.T) {
	t.Parallel()
	for _, sector := range []int{512, 4096} {
		dev := hostfs.Loop(t, hostfs.Options{Sector: sector, Size: 48 * mib})
		src := memDisk(t, 40*mib+513)
		for i := int64(0); i < 39; i += 3 {
			fill(t, src, i*mib+512*(i%9), mib, i)
		}
		dst, err := file.OpenDisk(context.Background(), dev, file.Options{Cache: file.None})
		if err != nil {
			t.Fatal(err)
		}
		if err := dst.WriteAt(context.Background(), noise()[:2*mib], 0, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := Copy(context.Background(), dst, src, Options{Verify: true}); err != nil {
			t.Errorf("sector %d: %v", sector, err)
		}
		mustEqual(t, src, dst)
		if err := dst.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// walkFile is the child process of TestTmpfsIsLinear.
func walkFile(path string) int {
	ctx := context.Background()
	d, err := file.OpenDisk(ctx, path, file.Options{ReadOnly: true})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer d.Close()
	w, spans := newWalker(d, 0, d.Size(), mib, 4096), 0
	for s, err := w.next(ctx); s.n > 0 || err != nil; s, err = w.next(ctx) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		spans++
	}
	fmt.Println(spans)
	return 0
}

var asked = regexp.MustCompile(`^lseek\(\d+, (\d+), SEEK_(?:DATA|HOLE)`)

// TestTmpfsIsLinear counts the system calls that it takes to map a file of many
// extents on tmpfs, where SEEK_HOLE walks through the extent: they have to grow
// with the number of extents, and each offset may be asked about but twice.
func TestTmpfsIsLinear(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 400 MiB to RAM")
	}
	t.Parallel()
	dir := hostfs.Mount(t, hostfs.Tmpfs, hostfs.Options{Size: 700 * mib})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "extents")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	written := 0
	for _, extents := range []int{1_000, 10_000, 100_000} {
		for ; written < extents/2; written++ {
			if _, err := f.WriteAt(noise()[:4096], int64(written)*8192); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Truncate(int64(extents) * 4096); err != nil {
			t.Fatal(err)
		}
		lines, out := hostfs.Strace(t, []string{"VMDISK_TEST_WALK=" + path}, []string{"-e", "trace=lseek"}, self)
		if out != fmt.Sprintln(extents) {
			t.Fatalf("%q spans, want %d", out, extents)
		}
		calls, last := 0, int64(-1)
		for _, line := range lines {
			m := asked.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			calls++
			off, err := strconv.ParseInt(m[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			if off < last {
				t.Fatalf("asked about %d after %d: the walk went back", off, last)
			}
			last = off
		}
		if calls < extents || calls > extents+extents/100+16 {
			t.Errorf("%d extents took %d calls", extents, calls)
		}
	}
}
