package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
	"github.com/vmdisk/vmdisk/disk/disktest/hostfs"
)

func TestMain(m *testing.M) { os.Exit(hostfs.Main(m)) }

// storage is one row of the matrix: where a disk lies, and which rung serves
// each kind of zeroing there, by flags. A missing entry means ErrNotFast.
type storage struct {
	name   string
	path   func(t testing.TB) string // a new disk of storageSize bytes
	refuse []mode                    // modes switched off, to reach the rungs below
	zero   map[disk.Flags]Rung
	trim   Rung // numRungs: none
}

const (
	storageSize = 4 << 20
	fastTrim    = disk.FastOnly | disk.MayTrim
)

// matrix lists the storages; fixtures are shared and live as long as t.
func matrix(t testing.TB) []storage {
	t.Helper()
	native := map[disk.Flags]Rung{0: ZeroRange, disk.MayTrim: PunchHole, disk.FastOnly: ZeroRange, fastTrim: PunchHole}
	below := func(keep, trim Rung) map[disk.Flags]Rung {
		return map[disk.Flags]Rung{0: keep, disk.MayTrim: trim}
	}
	with := func(m map[disk.Flags]Rung, fast Rung) map[disk.Flags]Rung {
		m[fastTrim] = fast
		return m
	}
	// Images in RAM: what takes time on a real disk is waiting for fsync.
	ram := hostfs.Options{Dir: hostfs.Mount(t, hostfs.Tmpfs, hostfs.Options{Size: 2 << 30})}
	ram4096 := hostfs.Options{Dir: ram.Dir, Sector: 4096}
	rows := []storage{
		{name: "ext4", path: onFS(t, hostfs.Ext4, ram), zero: native},
		{name: "xfs", path: onFS(t, hostfs.XFS, ram), zero: native},
		{name: "xfs4096", path: onFS(t, hostfs.XFS, ram4096), zero: native},
		{name: "btrfs", path: onFS(t, hostfs.Btrfs, ram), zero: native},
		{name: "tmpfs", path: onFS(t, hostfs.Tmpfs, hostfs.Options{}), zero: with(below(PunchAllocate, PunchHole), PunchHole)},
		{name: "ext2", path: onFS(t, hostfs.Ext2, ram), zero: with(below(WriteZeros, PunchHole), PunchHole)},
		{name: "ramfs", path: onFS(t, hostfs.Ramfs, hostfs.Options{}), zero: below(WriteZeros, WriteZeros), trim: numRungs},
		{name: "loop512", path: onLoop(hostfs.Options{}), zero: native, trim: Discard},
		{name: "loop4096", path: onLoop(hostfs.Options{Sector: 4096}), zero: native, trim: Discard},
		// A device that offloads nothing: the kernel writes.
		{name: "loop-ramfs", path: onLoop(hostfs.Options{Dir: hostfs.Mount(t, hostfs.Ramfs, hostfs.Options{})}),
			zero: below(ZeroRange, ZeroRange), trim: numRungs},
	}
	// The same ladders with their upper rungs refused, as older kernels and other
	// storages do.
	byName := func(name string) storage {
		for _, r := range rows {
			if r.name == name {
				return r
			}
		}
		panic(name)
	}
	refused := func(name string, zero map[disk.Flags]Rung, modes ...mode) storage {
		r := byName(name)
		r.name, r.refuse, r.zero = fmt.Sprintf("%s-without-%v", name, modes), modes, zero
		return r
	}
	return append(rows,
		refused("ext4", with(below(PunchAllocate, PunchHole), PunchHole), modeZeroRange),
		refused("xfs", with(below(PunchAllocate, PunchHole), PunchHole), modeZeroRange),
		refused("xfs", with(below(WriteZeros, PunchHole), PunchHole), modeZeroRange, modeAllocate),
		refused("loop512", with(below(Zeroout, PunchHole), PunchHole), modeZeroRange),
		refused("loop4096", below(Zeroout, Zeroout), modeZeroRange, modePunch),
		refused("loop512", below(WriteZeros, WriteZeros), modeZeroRange, modePunch, modeZeroout),
	)
}

// onFS makes one file system and returns what makes files on it.
func onFS(t testing.TB, kind hostfs.Kind, o hostfs.Options) func(testing.TB) string {
	t.Helper()
	dir := hostfs.Mount(t, kind, o)
	return func(t testing.TB) string {
		t.Helper()
		sub, err := os.MkdirTemp(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		return newFile(t, sub, storageSize)
	}
}

func onLoop(o hostfs.Options) func(testing.TB) string {
	o.Size = storageSize
	return func(t testing.TB) string {
		t.Helper()
		return hostfs.Loop(t, o)
	}
}

// allocated returns the bytes that the disk takes where it lies: a file's
// blocks, or those of the file behind a loop device; -1 where nobody counts.
func allocated(t testing.TB, f *File) int64 {
	t.Helper()
	path := f.path
	if f.blockDev {
		b, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(path), "loop/backing_file"))
		if err != nil {
			t.Fatal(err)
		}
		path = strings.TrimSpace(string(b))
	}
	var fs unix.Statfs_t
	var st unix.Stat_t
	if err := errors.Join(unix.Statfs(path, &fs), unix.Stat(path, &st)); err != nil {
		t.Fatal(err)
	}
	if fs.Type == unix.RAMFS_MAGIC {
		return -1
	}
	return st.Blocks * 512
}

// TestZeroMatrix proves for every storage, kind of zeroing and cache mode which
// rung served it, that exactly the range reads as zeros, and that it came out
// allocated, or not, as promised.
func TestZeroMatrix(t *testing.T) {
	t.Parallel()
	hostfs.RequireRoot(t)
	for _, row := range matrix(t) {
		for _, cache := range []Cache{Writeback, None} {
			if cache == None && row.name == "ramfs" {
				continue // ramfs has no O_DIRECT
			}
			t.Run(row.name+"/"+string(cache), func(t *testing.T) {
				t.Parallel()
				row.run(t, cache)
			})
		}
	}
}

func (row *storage) run(t *testing.T, cache Cache) {
	f := openFile(t, row.path(t), Options{Cache: cache})
	for _, m := range row.refuse {
		f.modes[m].refused.Store(uint32(unix.EOPNOTSUPP))
	}
	want := random(storageSize, 4)
	for _, fl := range []disk.Flags{0, disk.MayTrim, disk.FastOnly, fastTrim} {
		row.zeroOnce(t, f, want, fl)
	}
	row.trimOnce(t, f, want)
}

func (row *storage) zeroOnce(t *testing.T, f *File, fill []byte, fl disk.Flags) {
	t.Helper()
	const off, n = 1 << 20, 1 << 20
	mustWriteAll(t, f, fill)
	space, served := allocated(t, f), f.Served()
	want := bytes.Clone(fill)
	rung, works := row.zero[fl]
	err := f.Zero(bg, off, n, fl)
	if works && err != nil || !works && !errors.Is(err, disk.ErrNotFast) {
		t.Fatalf("flags %b: %v, expected to work: %v", fl, err, works)
	}
	if works {
		clear(want[off : off+n])
		served[rung]++
	}
	if now := f.Served(); !maps.Equal(now, served) {
		t.Errorf("flags %b: rungs that served: %v, want %v", fl, now, served)
	}
	if !bytes.Equal(readAll(t, f), want) {
		t.Errorf("flags %b: the disk does not read as expected", fl)
	}
	change := allocated(t, f) - space
	switch {
	case space < 0: // nobody counts
	case works && rung == PunchHole && change > -n:
		t.Errorf("flags %b: %d bytes given back, want %d", fl, -change, n)
	case (!works || rung != PunchHole) && change != 0:
		t.Errorf("flags %b: the allocation changed by %d bytes", fl, change)
	}
	if !f.blockDev && works && rung == PunchHole {
		if at, err := unix.Seek(f.fd, 0, unix.SEEK_HOLE); err != nil || at != off {
			t.Errorf("flags %b: the hole is at %d (%v), want %d", fl, at, err, int64(off))
		}
	}
}

func (row *storage) trimOnce(t *testing.T, f *File, fill []byte) {
	t.Helper()
	mustWriteAll(t, f, fill)
	space, served := allocated(t, f), f.Served()
	err := f.Trim(bg, 1<<20, 1<<20, 0)
	rung := row.trim
	if len(row.refuse) > 0 && !f.blockDev && f.modes[modePunch].refused.Load() != 0 {
		rung = numRungs
	}
	if rung == numRungs {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("trim where there is none: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatalf("trim: %v", err)
	}
	served[rung]++
	if now := f.Served(); !maps.Equal(now, served) {
		t.Errorf("trim: rungs that served: %v, want %v", now, served)
	}
	if given := space - allocated(t, f); space >= 0 && given < 1<<20 {
		t.Errorf("trim gave back %d bytes", given)
	}
	got := readAll(t, f)
	if !bytes.Equal(got[:1<<20], fill[:1<<20]) || !bytes.Equal(got[2<<20:], fill[2<<20:]) {
		t.Error("trim changed its surroundings")
	}
}

func mustWriteAll(t testing.TB, f *File, p []byte) {
	t.Helper()
	if err := errors.Join(f.WriteAt(bg, p, 0, 0), f.Flush(bg)); err != nil {
		t.Fatal(err)
	}
}

func readAll(t testing.TB, f *File) []byte {
	t.Helper()
	p := make([]byte, f.size.Load())
	if err := f.ReadAt(bg, p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestUnalignedZeroOnDevice: within a sector of a block device, and around
// whole ones.
func TestUnalignedZeroOnDevice(t *testing.T) {
	t.Parallel()
	for _, sector := range []int{512, 4096} {
		f := openFile(t, hostfs.Loop(t, hostfs.Options{Size: 1 << 20, Sector: sector}), Options{})
		fill := random(1<<20, 8)
		for _, r := range [][2]int64{{100, 200}, {4000, 200}, {100, 9000}, {4095, 8194}, {0, 1}, {1<<20 - 5000, 5000}} {
			for _, fl := range []disk.Flags{0, disk.MayTrim, disk.FastOnly} {
				mustWriteAll(t, f, fill)
				want := bytes.Clone(fill)
				err := f.Zero(bg, r[0], r[1], fl)
				if err == nil {
					clear(want[r[0] : r[0]+r[1]])
				}
				within := r[1] < int64(sector)
				if fl == disk.FastOnly && within != errors.Is(err, disk.ErrNotFast) || fl != disk.FastOnly && err != nil {
					t.Errorf("sector %d, %d bytes at %d, flags %b: %v", sector, r[1], r[0], fl, err)
				}
				if !bytes.Equal(readAll(t, f), want) {
					t.Errorf("sector %d, %d bytes at %d, flags %b: wrong content (%v)", sector, r[1], r[0], fl, err)
				}
			}
		}
	}
}

// TestRefusals: which errnos are remembered, and which never.
func TestRefusals(t *testing.T) {
	t.Parallel()
	f := openFile(t, newFile(t, t.TempDir(), 1<<20), Options{})
	if err := f.call(modeZeroRange, -4096, 4096); !isRefusal(err, unix.EINVAL) || f.modes[modeZeroRange].refused.Load() != 0 {
		t.Errorf("EINVAL: %v, remembered %d", err, f.modes[modeZeroRange].refused.Load())
	}
	if err := f.call(modeZeroout, 0, 4096); !isRefusal(err, unix.ENOTTY) || f.modes[modeZeroout].refused.Load() != uint32(unix.ENOTTY) {
		t.Errorf("ENOTTY: %v, remembered %d", err, f.modes[modeZeroout].refused.Load())
	}
	if err := f.Zero(bg, 0, 4096, 0); err != nil {
		t.Errorf("zero after a refusal by EINVAL: %v", err)
	}
	ro := openFile(t, newFile(t, t.TempDir(), 1<<20), Options{ReadOnly: true})
	if err := ro.Zero(bg, 0, 4096, 0); !errors.Is(err, unix.EBADF) || errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("another errno must come through: %v", err)
	}
}

func isRefusal(err error, errno unix.Errno) bool {
	return errors.Is(err, errno) && errors.Is(err, errors.ErrUnsupported)
}

// TestDeviceWithoutOffload: FastZero and Trim are not offered, so nobody asks.
func TestDeviceWithoutOffload(t *testing.T) {
	t.Parallel()
	ram := hostfs.Mount(t, hostfs.Ramfs, hostfs.Options{})
	f := openFile(t, hostfs.Loop(t, hostfs.Options{Size: 1 << 20, Dir: ram}), Options{})
	if in := f.Info(); in.FastZero != disk.None || in.Trim != disk.None || in.Zero != disk.Native {
		t.Errorf("zero %v, fast zero %v, trim %v", in.Zero, in.FastZero, in.Trim)
	}
	f = openFile(t, hostfs.Loop(t, hostfs.Options{Size: 1 << 20}), Options{})
	if in := f.Info(); in.FastZero != disk.Native || in.Trim != disk.Native || in.Min > 1 || in.HasMap(disk.Allocation) {
		t.Errorf("a device with offload: %+v", in)
	}
}

// TestConformanceMatrix runs the suite on every storage.
func TestConformanceMatrix(t *testing.T) {
	if testing.Short() {
		t.Skip("slow")
	}
	t.Parallel()
	hostfs.RequireRoot(t)
	for _, row := range matrix(t) {
		if len(row.refuse) > 0 {
			continue
		}
		cache := Writeback
		if strings.HasPrefix(row.name, "loop") || strings.HasPrefix(row.name, "xfs") || row.name == "btrfs" {
			cache = None
		}
		t.Run(row.name, func(t *testing.T) {
			disktest.Conformance(t, func(tb testing.TB) *disk.Disk {
				d, err := OpenDisk(tb.Context(), row.path(tb), Options{Cache: cache})
				if err != nil {
					tb.Fatal(err)
				}
				return d
			}, disktest.Options{Ops: 100})
		})
	}
}

// cancelAfter is a context that ends by itself after being asked n times.
type cancelAfter struct {
	context.Context
	n int
}

func (c *cancelAfter) Err() error {
	if c.n--; c.n < 0 {
		return context.Canceled
	}
	return nil
}

// TestLongZeroIsCancelled: between the steps of a long zero, after which the
// beginning is zeroed and the rest as it was.
func TestLongZeroIsCancelled(t *testing.T) {
	t.Parallel()
	for _, fl := range []disk.Flags{disk.MayTrim, disk.MayTrim | disk.FastOnly} {
		f := openFile(t, newFile(t, t.TempDir(), 1<<30), Options{})
		last := int64(1<<30 - 4096)
		if err := errors.Join(f.WriteAt(bg, random(4096, 1), 0, 0), f.WriteAt(bg, random(4096, 2), last, 0)); err != nil {
			t.Fatal(err)
		}
		if err := f.Zero(&cancelAfter{bg, 2}, 0, 1<<30, fl); !errors.Is(err, context.Canceled) {
			t.Fatalf("flags %b: %v, want context canceled", fl, err)
		}
		p := make([]byte, 4096)
		if err := f.ReadAt(bg, p, 0); err != nil || !bytes.Equal(p, make([]byte, 4096)) {
			t.Errorf("flags %b: the first step was not made (%v)", fl, err)
		}
		if err := f.ReadAt(bg, p, last); err != nil || !bytes.Equal(p, random(4096, 2)) {
			t.Errorf("flags %b: the last step was made (%v)", fl, err)
		}
		if err := f.Zero(bg, 0, 1<<30, fl); err != nil || f.Served()[PunchHole] < 2 {
			t.Errorf("flags %b: %v, steps %v", fl, err, f.Served())
		}
	}
}

// TestStepsFollowTheStorage: slow calls make shorter steps, quick ones longer.
func TestStepsFollowTheStorage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		step, want int64
		took       time.Duration
	}{
		{firstStep, 2 * firstStep, time.Millisecond}, {firstStep, firstStep, 100 * time.Millisecond},
		{firstStep, firstStep / 2, time.Second}, {leastStep, leastStep, time.Minute}, {mostStep, mostStep, 0},
	} {
		if got := nextStep(c.step, c.took); got != c.want {
			t.Errorf("after a step of %d in %v: %d, want %d", c.step, c.took, got, c.want)
		}
	}
}

// TestHugeSparse: a whole disk of 8 TiB is zeroed, trimmed and mapped in a few
// calls.
func TestHugeSparse(t *testing.T) {
	t.Parallel()
	const size = 8 << 40
	f := openFile(t, newFile(t, t.TempDir(), size), Options{})
	if err := errors.Join(f.Zero(bg, 0, size, disk.MayTrim|disk.FastOnly), f.Trim(bg, 0, size, 0)); err != nil {
		t.Fatal(err)
	}
	if n := f.Served()[PunchHole]; n > 400 {
		t.Errorf("%d calls", n)
	}
	if got := walk(t, f, 16); len(got) != 1 || got[0] != (disk.Extent{Len: size, Flags: holeFlags}) {
		t.Errorf("extents %+v", got)
	}
}

// TestInlineEverywhere: on every file system, after a few tries at most, pages in
// the cache are written and read without handing over.
func TestInlineEverywhere(t *testing.T) {
	t.Parallel()
	hostfs.RequireRoot(t)
	for _, kind := range hostfs.Kinds {
		f := openFile(t, onFS(t, kind, hostfs.Options{})(t), Options{})
		want, refused := random(1<<20, 3), 0
		for off := int64(0); off < 1<<20; off += 4096 {
			err := f.TryWrite(want[off:off+4096], off, 0)
			if errors.Is(err, disk.ErrWouldBlock) {
				refused++
				err = f.WriteAt(bg, want[off:off+4096], off, 0)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if refused > 2*uselessAfter {
			t.Errorf("%s: %d of 256 inline writes were refused", kind, refused)
		}
		got := make([]byte, 1<<20)
		refused = 0
		for off := int64(0); off < 1<<20; off += 4096 {
			err := f.TryRead(got[off:off+4096], off)
			if errors.Is(err, disk.ErrWouldBlock) {
				refused++
				err = f.ReadAt(bg, got[off:off+4096], off)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if refused > 64 {
			t.Errorf("%s: %d of 256 inline reads of pages just written were refused", kind, refused)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: read back other bytes than were written", kind)
		}
	}
}
