package file

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/uring"
)

var bg = context.Background()

// newFile creates a sparse file and returns its path. Create would sync it, which
// takes longer than most tests.
func newFile(t testing.TB, dir string, size int64) string {
	t.Helper()
	path := filepath.Join(dir, "disk.raw")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
		t.Fatal(err)
	}
	return path
}

func openFile(t testing.TB, path string, o Options) *File {
	t.Helper()
	f, err := Open(bg, path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func random(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32()) | 1
	}
	return b
}

var allCaches = []Cache{Writeback, None, Writethrough, Directsync, Unsafe}

// TestRoundTrip writes and reads at every alignment, through the Disk, on a file
// whose size is no multiple of a sector, in every cache mode.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	const size = 3<<20 + 777
	for _, cache := range allCaches {
		t.Run(string(cache), func(t *testing.T) {
			t.Parallel()
			path := newFile(t, t.TempDir(), size)
			d := disk.New(openFile(t, path, Options{Cache: cache}), path)
			want := make([]byte, size)
			r := rand.New(rand.NewPCG(7, 7))
			for i := range 60 {
				off := r.Int64N(size)
				n := min(r.Int64N(200<<10)+1, size-off)
				if i%5 == 0 {
					n = size - off // up to the partial sector at the end
				}
				p := random(int(n), uint64(i))
				if err := d.WriteAt(bg, p, off, disk.Flags(i%2)*disk.FUA); err != nil {
					t.Fatal(err)
				}
				copy(want[off:], p)
			}
			got := make([]byte, size)
			if err := d.ReadAt(bg, got, 0); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Fatal("read back other bytes than were written")
			}
			if err := d.Flush(bg); err != nil {
				t.Fatal(err)
			}
			onDisk, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(onDisk, want) {
				t.Fatalf("the file holds other bytes than were written (%v)", err)
			}
		})
	}
}

func TestVectors(t *testing.T) {
	t.Parallel()
	for _, cache := range allCaches {
		path := newFile(t, t.TempDir(), 1<<20+100)
		f := openFile(t, path, Options{Cache: cache})
		mem, err := uring.Alloc(16384)
		if err != nil {
			t.Fatal(err)
		}
		defer uring.Free(mem)
		copy(mem, random(len(mem), 3))
		for name, vec := range map[string][][]byte{
			"aligned":   {mem[:4096], mem[8192:12288], mem[4096:8192]},
			"unaligned": {mem[:100], mem[4097:8000], mem[9000:9189]},
		} {
			if vecLen(vec)%4096 != 0 {
				vec = append(vec, mem[12289:12289+4096-vecLen(vec)%4096])
			}
			if err := f.Writev(bg, vec, 8192, disk.FUA); err != nil {
				t.Fatalf("%s %s: %v", cache, name, err)
			}
			got := make([]byte, vecLen(vec))
			if err := f.Readv(bg, [][]byte{got[:1], got[1:5000:5000], got[5000:]}, 8192); err != nil {
				t.Fatalf("%s %s: %v", cache, name, err)
			}
			if !bytes.Equal(got, bytes.Join(vec, nil)) {
				t.Errorf("%s %s: read back other bytes", cache, name)
			}
		}
	}
}

func TestInfo(t *testing.T) {
	t.Parallel()
	path := newFile(t, t.TempDir(), 1<<20)
	f := openFile(t, path, Options{})
	in := f.Info()
	if in.Size != 1<<20 || in.Min > 1 || !in.KnownZero || !in.Volatile || !in.MultiConn || !in.KernelIO || in.ReadOnly || in.ID == "" {
		t.Errorf("new file: %+v", in)
	}
	if err := f.WriteAt(bg, []byte{1}, 0, 0); err != nil {
		t.Fatal(err)
	}
	if now := f.Info(); now.KnownZero || now.Gen <= in.Gen {
		t.Errorf("after a write: %+v", now)
	}
}

func TestResize(t *testing.T) {
	t.Parallel()
	for _, cache := range []Cache{Writeback, None} {
		d, err := OpenDisk(bg, newFile(t, t.TempDir(), 4096), Options{Cache: cache})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		for _, size := range []int64{1 << 20, 5000, 100, 0, 12345} {
			if err := d.Resize(bg, size); err != nil || d.Size() != size {
				t.Fatalf("resize to %d: %v, size %d", size, err, d.Size())
			}
		}
		p := random(12345, 1)
		if err := d.WriteAt(bg, p, 0, 0); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 12345)
		if err := d.ReadAt(bg, got, 0); err != nil || !bytes.Equal(got, p) {
			t.Fatalf("after resize: %v", err)
		}
	}
}

func TestCreate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, c := range []struct {
		mode      Preallocation
		allocated bool
	}{{PreallocOff, false}, {"", false}, {PreallocFalloc, true}, {PreallocFull, true}} {
		path := filepath.Join(dir, "disk"+string(c.mode))
		if err := Create(bg, path, 1<<20+5, c.mode); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		if st.Size != 1<<20+5 || (st.Blocks*512 >= st.Size) != c.allocated {
			t.Errorf("%q: size %d, allocated %d", c.mode, st.Size, st.Blocks*512)
		}
		if err := Create(bg, path, 1, c.mode); !errors.Is(err, os.ErrExist) {
			t.Errorf("created over an existing file: %v", err)
		}
	}
	for _, c := range []struct {
		size int64
		mode Preallocation
	}{{-1, PreallocOff}, {1 << 20, "lots"}, {1 << 62, PreallocOff}, {1 << 50, PreallocFull}} {
		path := filepath.Join(dir, "bad")
		if err := Create(bg, path, c.size, c.mode); err == nil {
			t.Errorf("created %d bytes, preallocation %q", c.size, c.mode)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("a failed Create of %d bytes left something behind: %v", c.size, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	path := newFile(t, dir, 4096)
	for _, c := range []struct {
		path string
		o    Options
		want string
	}{
		{dir, Options{}, "is a directory"},
		{fifo, Options{}, "neither a regular file nor a block device"},
		{"/dev/null", Options{}, "neither a regular file nor a block device"},
		{filepath.Join(dir, "none"), Options{}, "no such file"},
		{path, Options{Cache: "fast"}, "unknown cache mode"},
		{path, Options{AIO: "native"}, "unknown AIO mode"},
	} {
		f, err := Open(bg, c.path, c.o)
		if err == nil {
			f.Close()
		}
		if err == nil || !bytes.Contains([]byte(err.Error()), []byte(c.want)) {
			t.Errorf("open %s %+v: %v, want %q", c.path, c.o, err, c.want)
		}
	}
}

func TestOneWriterPerProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := newFile(t, dir, 4096)
	link := filepath.Join(dir, "link")
	if err := os.Link(path, link); err != nil {
		t.Fatal(err)
	}
	type open struct {
		o  Options
		ok bool
	}
	for _, c := range []struct {
		first Options
		then  []open
	}{
		{Options{}, []open{{Options{}, false}, {Options{ReadOnly: true}, false},
			{Options{ForceShare: true}, false}, {Options{ReadOnly: true, ForceShare: true}, true}}},
		{Options{ReadOnly: true}, []open{{Options{}, false}, {Options{ReadOnly: true}, true}, {Options{ForceShare: true}, true}}},
		{Options{ReadOnly: true, ForceShare: true}, []open{{Options{}, true}}},
	} {
		f, err := Open(bg, path, c.first)
		if err != nil {
			t.Fatal(err)
		}
		for _, second := range c.then {
			g, err := Open(bg, link, second.o)
			if second.ok != (err == nil) || err != nil && !errors.Is(err, ErrInUse) {
				t.Errorf("%+v, then %+v: %v", c.first, second.o, err)
			}
			if err == nil {
				g.Close()
			}
		}
		f.Close()
	}
	openFile(t, path, Options{}) // all released
	if _, left := opened.m[lockKey{}]; left {
		t.Error("an opening without identity was counted")
	}
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	f := openFile(t, newFile(t, t.TempDir(), 1<<20), Options{})
	ctx, cancel := context.WithCancel(bg)
	cancel()
	for name, err := range map[string]error{
		"read":  f.ReadAt(ctx, make([]byte, 10), 0),
		"write": f.WriteAt(ctx, make([]byte, 10), 0, 0),
		"zero":  f.Zero(ctx, 0, 1<<20, 0),
		"trim":  f.Trim(ctx, 0, 1<<20, 0),
		"flush": f.Flush(ctx),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want context canceled", name, err)
		}
	}
}

func TestTruncatedBehindOurBack(t *testing.T) {
	t.Parallel()
	path := newFile(t, t.TempDir(), 1<<20)
	f := openFile(t, path, Options{})
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	if err := f.ReadAt(bg, make([]byte, 8192), 0); !errors.Is(err, errShrunk) {
		t.Errorf("read past the new end: %v", err)
	}
}

func TestInline(t *testing.T) {
	t.Parallel()
	path := newFile(t, t.TempDir(), 1<<20)
	f := openFile(t, path, Options{})
	p, got := random(4096, 9), make([]byte, 4096)
	if err := f.TryWrite(p, 8192, 0); err != nil {
		if !errors.Is(err, disk.ErrWouldBlock) {
			t.Fatal(err)
		}
		if err := f.WriteAt(bg, p, 8192, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.TryRead(got, 8192); err != nil || !bytes.Equal(got, p) {
		t.Fatalf("read of a page just written: %v", err)
	}
	if err := f.TryWrite(p, 0, disk.FUA); !errors.Is(err, disk.ErrWouldBlock) {
		t.Errorf("inline write with FUA: %v", err)
	}
	f.Close()
	g := openFile(t, path, Options{Cache: None})
	if err := g.TryRead(got, 8192); !errors.Is(err, disk.ErrWouldBlock) {
		t.Errorf("inline read past the page cache: %v", err)
	}
}

func TestNoAllocation(t *testing.T) { // AllocsPerRun allows no parallel tests
	for _, cache := range []Cache{Writeback, None} {
		f := openFile(t, newFile(t, t.TempDir(), 1<<20), Options{Cache: cache})
		p := make([]byte, 8193)[1:]
		vec, extents := [][]byte{p[:4096], p[4096:]}, make([]disk.Extent, 0, 16)
		for name, op := range map[string]func() error{
			"read":   func() error { return f.ReadAt(bg, p, 0) },
			"write":  func() error { return f.WriteAt(bg, p, 0, 0) },
			"fua":    func() error { return f.WriteAt(bg, p, 0, disk.FUA) },
			"readv":  func() error { return f.Readv(bg, vec, 0) },
			"writev": func() error { return f.Writev(bg, vec, 0, 0) },
			"zero":   func() error { return f.Zero(bg, 0, 8192, disk.MayTrim) },
			"trim":   func() error { return f.Trim(bg, 0, 8192, 0) },
			"flush":  func() error { return f.Flush(bg) },
			"extents": func() error {
				f.changed()
				_, err := f.Extents(bg, disk.Allocation, 0, 1<<20, extents)
				return err
			},
			"zero, refused": func() error {
				f.modes[modeZeroRange].refused.Store(uint32(unix.EOPNOTSUPP))
				defer f.modes[modeZeroRange].refused.Store(0)
				return f.Zero(bg, 0, 8192, 0)
			},
		} {
			var err error
			if a := testing.AllocsPerRun(20, func() { err = op() }); a != 0 || err != nil {
				t.Errorf("%s %s: %v allocations, %v", cache, name, a, err)
			}
		}
		if a := testing.AllocsPerRun(20, func() {
			f.Info()
			f.TryRead(p, 0)
			f.TryWrite(p, 0, 0)
			if r, ok := f.FileRange(0, 4096, true); ok {
				r.Release()
			}
		}); a != 0 {
			t.Errorf("%s: %v allocations per Info, TryRead, TryWrite and FileRange", cache, a)
		}
	}
}

func TestGrow(t *testing.T) {
	t.Parallel()
	for _, cache := range []Cache{Writeback, None} {
		path := newFile(t, t.TempDir(), 100)
		d, err := OpenDisk(bg, path, Options{Cache: cache})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		sector := max(d.Info().Min, 1)
		for _, size := range []int64{50, 1 << 20, 4096, 1<<20 + 1} {
			if err := d.Grow(bg, size); err != nil || d.Size() < size || d.Size()%sector != 0 && d.Size() != 100 {
				t.Fatalf("%s: grow to %d: %v, size %d", cache, size, err, d.Size())
			}
		}
		if err := os.Truncate(path, 8<<20); err != nil {
			t.Fatal(err)
		}
		if err := d.Grow(bg, 2<<20); err != nil || d.Size() != 8<<20 {
			t.Errorf("%s: a file that another program has made larger: %v, size %d", cache, err, d.Size())
		}
		if err := d.Grow(bg, math.MaxInt64); err == nil {
			t.Errorf("%s: grown beyond all bounds", cache)
		}
		ro, err := OpenDisk(bg, path, Options{ReadOnly: true, ForceShare: true, Cache: cache})
		if err != nil {
			t.Fatal(err)
		}
		defer ro.Close()
		if err := os.Truncate(path, 9<<20); err != nil {
			t.Fatal(err)
		}
		if err := ro.Grow(bg, 10<<20); err != nil || ro.Size() != 9<<20 {
			t.Errorf("%s: read-only: %v, size %d", cache, err, ro.Size())
		}
	}
}
