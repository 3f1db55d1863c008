package file

import (
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest/hostfs"
)

const holeFlags = disk.ExtentZero | disk.ExtentHole

// walk collects all extents, batch at a time, and merges neighbours alike.
func walk(t testing.TB, f *File, batch int) []disk.Extent {
	t.Helper()
	var all []disk.Extent
	size := f.size.Load()
	for off := int64(0); off < size; {
		got, err := f.Extents(bg, disk.Allocation, off, size-off, make([]disk.Extent, 0, batch))
		if err != nil || len(got) == 0 || len(got) > batch {
			t.Fatalf("extents at %d: %d of at most %d, %v", off, len(got), batch, err)
		}
		for _, e := range got {
			if n := len(all); n > 0 && all[n-1].Flags == e.Flags {
				all[n-1].Len += e.Len
			} else {
				all = append(all, e)
			}
			off += e.Len
		}
	}
	return all
}

// TestExtentsStayLinear counts the calls of a walk over alternating pages of data
// and holes: one for each extent, whatever the batch, and none for questions
// about the inside of an extent that was just seen.
func TestExtentsStayLinear(t *testing.T) {
	t.Parallel()
	hostfs.RequireRoot(t)
	count := 100_000
	if testing.Short() {
		count = 2_000
	}
	dir := hostfs.Mount(t, hostfs.Tmpfs, hostfs.Options{Size: 1 << 30})
	f := openFile(t, newFile(t, dir, int64(count)*4096), Options{})
	page := random(4096, 1)
	for i := 0; i < count; i += 2 {
		if err := writeFull(f.fd, page, int64(i)*4096, 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, batch := range []int{1, 64, 4096} {
		f.changed() // forget what was seen
		before := f.seen.calls.Load()
		if n := len(walk(t, f, batch)); n != count {
			t.Fatalf("batches of %d: %d extents, want %d", batch, n, count)
		}
		calls := f.seen.calls.Load() - before
		if most := uint64(count + 2*count/batch + 4); calls > most {
			t.Errorf("batches of %d: %d calls of lseek, want at most %d", batch, calls, most)
		}
	}
}

func TestExtentsRememberTheLast(t *testing.T) {
	t.Parallel()
	hostfs.RequireRoot(t)
	dir := hostfs.Mount(t, hostfs.Tmpfs, hostfs.Options{})
	f := openFile(t, newFile(t, dir, 64<<20), Options{})
	if err := writeFull(f.fd, random(16<<20, 1), 16<<20, 0); err != nil {
		t.Fatal(err)
	}
	before := f.seen.calls.Load()
	for off := int64(0); off < 64<<20; off += 64 << 10 { // as a server that is asked 64 KiB at a time
		got, err := f.Extents(bg, disk.Allocation, off, 64<<10, make([]disk.Extent, 0, 1))
		hole := off < 16<<20 || off >= 32<<20
		if err != nil || len(got) != 1 || (got[0].Flags == holeFlags) != hole {
			t.Fatalf("at %d: %+v, %v", off, got, err)
		}
	}
	if calls := f.seen.calls.Load() - before; calls > 5 {
		t.Errorf("%d calls of lseek for three extents", calls)
	}
}

// TestExtentsNeverOutdated: what changed since the last look is seen, by every
// way to change a disk.
func TestExtentsNeverOutdated(t *testing.T) {
	t.Parallel()
	f := openFile(t, newFile(t, t.TempDir(), 4<<20), Options{AIO: IOUring})
	q := newQueue(t, f, 4)
	p := random(4096, 1)
	isHole := func() bool {
		got, err := f.Extents(bg, disk.Allocation, 1<<20, 4096, make([]disk.Extent, 0, 1))
		if err != nil || len(got) != 1 {
			t.Fatalf("%+v, %v", got, err)
		}
		return got[0].Flags == holeFlags
	}
	punch := func() error { return f.Zero(bg, 1<<20, 4096, disk.MayTrim) }
	for name, write := range map[string]func() error{
		"write":  func() error { return f.WriteAt(bg, p, 1<<20, 0) },
		"writev": func() error { return f.Writev(bg, [][]byte{p[:8], p[8:]}, 1<<20, 0) },
		"inline": func() error { return f.TryWrite(p, 1<<20, 0) },
		"queue": func() error {
			return finish(t, q, disk.Op{Kind: disk.Write, Off: 1 << 20, Len: 4096, Vec: [][]byte{p}})[0]
		},
		"lent": func() error {
			r, _ := f.FileRange(1<<20, 4096, true)
			defer r.Release()
			isHole() // a look while it is lent must not be remembered
			_, err := unix.Pwrite(r.FD, p, r.Off)
			return err
		},
	} {
		for range 3 {
			if err := punch(); err != nil || !isHole() {
				t.Fatalf("%s: after punching: %v, hole %v", name, err, isHole())
			}
			if err := write(); err != nil || isHole() {
				t.Fatalf("after %s: %v, hole %v", name, err, isHole())
			}
		}
	}
	if err := f.Trim(bg, 1<<20, 4096, 0); err != nil || !isHole() {
		t.Errorf("after trim: %v, hole %v", err, isHole())
	}
}

// TestExtentsUnderWrites: readers walk while others write; a page whose write has
// returned is data for everyone from then on.
func TestExtentsUnderWrites(t *testing.T) {
	t.Parallel()
	f := openFile(t, newFile(t, t.TempDir(), 16<<20), Options{})
	var group sync.WaitGroup
	for w := range int64(4) {
		group.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			p := random(4096, uint64(w))
			for range 300 {
				off := (r.Int64N(1024)*4 + w) * 4096
				if err := f.WriteAt(bg, p, off, 0); err != nil {
					t.Error(err)
					return
				}
				got, err := f.Extents(bg, disk.Allocation, off, 4096, make([]disk.Extent, 0, 4))
				if err != nil || got[0].Flags != 0 {
					t.Errorf("a page just written: %+v, %v", got, err)
					return
				}
			}
		})
	}
	group.Wait()
}

func TestKnownZero(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := newFile(t, dir, 1<<20)
	for _, c := range []struct {
		o    Options
		want bool
	}{{Options{}, true}, {Options{ReadOnly: true}, true}, {Options{ForceShare: true}, false}} {
		f := openFile(t, path, c.o)
		if f.Info().KnownZero != c.want {
			t.Errorf("%+v: known zero %v, want %v", c.o, !c.want, c.want)
		}
		f.Close()
	}
	f := openFile(t, path, Options{})
	if err := f.Zero(bg, 0, 1<<20, disk.MayTrim); err != nil || !f.Info().KnownZero {
		t.Errorf("zeroing made a disk of zeros something else (%v)", err)
	}
	lent, ok := f.FileRange(0, 4096, true)
	if !ok || f.Info().KnownZero {
		t.Error("a disk that was lent for writing counts as zero")
	}
	if lent.Turn != &f.turn {
		t.Error("who writes to a lent range does not take turns with the other writers")
	}
	f.Close()
	if err := os.WriteFile(path, make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	if f := openFile(t, path, Options{}); f.Info().KnownZero {
		t.Error("a file with data counts as zero")
	}
}
