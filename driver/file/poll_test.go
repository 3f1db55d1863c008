package file

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
	"github.com/vmdisk/vmdisk/disk/disktest/hostfs"
	"github.com/vmdisk/vmdisk/uring"
)

var (
	byRing  = disk.Polling{Percent: 100}
	byCalls = disk.Polling{Percent: 100, Calls: true}
)

// polling is a File whose every queue polls.
type polling struct {
	*File
	p disk.Polling
}

func (d polling) NewQueue(depth int) (disk.Queue, error) { return d.NewPollQueue(depth, d.p) }

func pollingOpener(dir string, size int64, o Options, p disk.Polling) disktest.Opener {
	return func(tb testing.TB) *disk.Disk {
		sub, err := os.MkdirTemp(dir, "")
		if err != nil {
			tb.Fatal(err)
		}
		return disk.New(polling{openFile(tb, newFile(tb, sub, size), o), p}, "polling")
	}
}

// pollQueue returns a polling queue owned by the test's goroutine.
func pollQueue(t testing.TB, f *File, p disk.Polling) *ringQueue {
	t.Helper()
	return newQueue(t, polling{f, p}, 4).(*ringQueue)
}

func TestPollConformance(t *testing.T) {
	t.Parallel()
	dir := quickDir(t)
	for name, c := range map[string]struct {
		size int64
		o    Options
		p    disk.Polling
	}{
		"ring":            {4 << 20, Options{Cache: None}, byRing},
		"ring-tail":       {4<<20 + 777, Options{Cache: None, AIO: IOUring}, byRing},
		"calls":           {4 << 20, Options{Cache: None}, byCalls},
		"calls-writeback": {4<<20 + 777, Options{}, disk.Polling{Calls: true, Percent: 50}},
	} {
		t.Run(name, func(t *testing.T) {
			disktest.Conformance(t, pollingOpener(dir, c.size, c.o, c.p), disktest.Options{Ops: 200})
		})
	}
}

func TestPollAllocations(t *testing.T) {
	for _, p := range []disk.Polling{byRing, byCalls} {
		d := pollingOpener(t.TempDir(), 1<<20, Options{Cache: None}, p)(t)
		disktest.Allocations(t, d)
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestPollQueueReapIsWoken(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]disk.Polling{"ring": byRing, "calls": byCalls} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := openFile(t, newFile(t, t.TempDir(), 1<<20), Options{Cache: None})
			reapIsWoken(t, pollQueue(t, f, p))
		})
	}
}

// TestPollLooksAround: a queue that polls for an operation sees a worker's end and
// a watched descriptor meanwhile.
func TestPollLooksAround(t *testing.T) {
	t.Parallel()
	f := openFile(t, newFile(t, t.TempDir(), 1<<20), Options{Cache: None})
	q := pollQueue(t, f, byRing)
	efd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(efd)
	if err := q.WatchFD(efd, 99); err != nil {
		t.Fatal(err)
	}
	mem := alloc(t, 4096)
	dst := make([]disk.Completion, 4)
	for range 50 {
		seen := map[uint64]bool{}
		n, err := q.Submit([]disk.Op{{Kind: disk.Read, Off: 64 << 10, Len: 4096, Vec: [][]byte{mem}, Tag: 1}, {Kind: disk.Zero, Len: 4096, Tag: 2}})
		if n != 2 || err != nil {
			t.Fatal(n, err)
		}
		if _, err := unix.Write(efd, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
			t.Fatal(err)
		}
		for len(seen) < 3 {
			n, err := q.Reap(bg, 1, dst)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range dst[:n] {
				seen[c.Tag] = true
				if c.Err != nil {
					t.Fatal(c)
				}
			}
		}
		if !seen[1] || !seen[2] || !seen[99] {
			t.Fatalf("completions of %v", seen)
		}
	}
}

func alloc(t testing.TB, n int) []byte {
	t.Helper()
	mem, err := uring.Alloc(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { uring.Free(mem) })
	return mem
}

// TestPollIsRefused: the kernel refuses to poll, as it does where the device has
// no queues for it; here because the file is no longer open for direct I/O. That
// is told once, what was asked is done all the same, and an ordinary ring goes on.
func TestPollIsRefused(t *testing.T) {
	t.Parallel()
	f := openFile(t, newFile(t, t.TempDir(), 1<<20), Options{Cache: None})
	var told []error
	p := byRing
	p.Refused = func(err error) { told = append(told, err) }
	q := pollQueue(t, f, p)
	efd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(efd)
	mem := alloc(t, 4*4096)
	if err := errors.Join(q.Register([][]byte{mem}), q.WatchFD(efd, 99)); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(f.fd), unix.F_SETFL, 0); err != nil {
		t.Fatal(err)
	}
	for round := range byte(3) {
		var ops []disk.Op
		for i, b := range uring.Carve(mem, 4096) {
			copy(b, bytes.Repeat([]byte{round*16 + byte(i) + 1}, 4096))
			ops = append(ops, disk.Op{Kind: disk.Write, Off: int64(i) * 4096, Len: 4096, Vec: [][]byte{b}, Buf: 1, Tag: uint64(i)})
		}
		for tag, err := range finish(t, q, ops...) {
			if err != nil {
				t.Errorf("round %d: write %d: %v", round, tag, err)
			}
		}
		got := make([]byte, len(mem))
		if _, err := unix.Pread(f.fd, got, 0); err != nil || !bytes.Equal(got, mem) {
			t.Fatalf("round %d: other bytes than were written (%v)", round, err)
		}
	}
	if len(told) != 1 || !errors.Is(told[0], unix.EOPNOTSUPP) || !strings.Contains(told[0].Error(), "refuses polled writes") {
		t.Errorf("told %v, want one refusal", told)
	}
	if q.polls != nil || !q.fixed || q.ring.Polling() {
		t.Error("the ring that polls is still in use")
	}
	dst := make([]disk.Completion, 1)
	if _, err := unix.Write(efd, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	if n, err := q.Reap(bg, 1, dst); n != 1 || err != nil || dst[0].Tag != 99 {
		t.Errorf("the watched descriptor was lost with the ring: %d, %v", n, err)
	}
}

// TestPollRefusedAlone: no ring can be had in the place of the refused one.
func TestPollRefusedAlone(t *testing.T) {
	t.Parallel()
	if !isChild() {
		underFaults(t, "io_uring_setup:error=EMFILE:when=2+")
		return
	}
	f := openFile(t, newFile(t, t.TempDir(), 1<<20), Options{Cache: None})
	q := pollQueue(t, f, byRing)
	if _, err := unix.FcntlInt(uintptr(f.fd), unix.F_SETFL, 0); err != nil {
		t.Fatal(err)
	}
	mem := alloc(t, 4096)
	for range 3 {
		if errs := finish(t, q, disk.Op{Kind: disk.Write, Len: 4096, Vec: [][]byte{mem}, Tag: 1}); errs[1] != nil {
			t.Fatal(errs[1])
		}
	}
	if q.polls == nil || !q.polls.alone {
		t.Error("the fault was not injected")
	}
}

func TestPollIsUnsupported(t *testing.T) {
	t.Parallel()
	path := newFile(t, t.TempDir(), 1<<20)
	for _, c := range []struct {
		o    Options
		p    disk.Polling
		want string
	}{
		{Options{}, byRing, "page cache"},
		{Options{Cache: None, AIO: Threads}, byRing, "threads"},
		{Options{AIO: Threads}, byCalls, "threads"},
	} {
		c.o.ForceShare, c.o.ReadOnly = true, true
		f := openFile(t, path, c.o)
		_, err := f.NewPollQueue(4, c.p)
		if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v, %+v: %v", c.o, c.p, err)
		}
	}
}

func TestPollingIsChecked(t *testing.T) {
	t.Parallel()
	d := disk.New(openFile(t, newFile(t, t.TempDir(), 1<<20), Options{Cache: None}), "disk")
	for _, c := range []struct {
		depth int
		p     disk.Polling
	}{{4, disk.Polling{}}, {4, disk.Polling{Percent: 50}}, {4, disk.Polling{Calls: true, Percent: 101}}, {0, byRing}} {
		if _, err := d.NewPollQueue(c.depth, c.p); err == nil || errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("depth %d, %+v: %v", c.depth, c.p, err)
		}
	}
}

// TestPolledCalls: strace tells how many calls ask the kernel to poll.
func TestPolledCalls(t *testing.T) {
	t.Parallel()
	if os.Getenv("VMDISK_POLLED_CALLS") != "" {
		polledCalls(t)
		return
	}
	lines, _ := hostfs.Strace(t, []string{"VMDISK_POLLED_CALLS=1"}, []string{"-e", "trace=preadv2,pwritev2"}, os.Args[0], "-test.run=^TestPolledCalls$")
	calls := map[string]int{}
	for _, line := range lines {
		for _, name := range []string{"preadv2(", "pwritev2("} {
			if !strings.Contains(line, name) {
				continue
			}
			flags := strings.SplitN(line[strings.LastIndex(line, ", ")+2:], ")", 2)[0]
			calls[name+flags]++
		}
	}
	if calls["preadv2(RWF_HIPRI"] != 100 || calls["pwritev2(RWF_HIPRI|RWF_DSYNC"]+calls["pwritev2(RWF_DSYNC|RWF_HIPRI"] != 100 {
		t.Errorf("of all: %v, want 100 of each", calls)
	}
	// 200 draws of one half: outside these bounds once in 10^12 runs.
	if n := calls["pwritev2(RWF_HIPRI"]; n < 50 || n > 150 || n+calls["pwritev2(0"] != 200 {
		t.Errorf("of half: %v", calls)
	}
}

// polledCalls is what the child does.
func polledCalls(t *testing.T) {
	f := openFile(t, newFile(t, t.TempDir(), 1<<20), Options{Cache: None})
	mem := alloc(t, 8192)
	both := [][]byte{mem[:4096], mem[4096:]}
	q := pollQueue(t, f, byCalls)
	half := pollQueue(t, f, disk.Polling{Calls: true, Percent: 50})
	do := func(q disk.Queue, times int, op disk.Op) {
		for range times {
			if errs := finish(t, q, op); errs[0] != nil {
				t.Fatal(errs[0])
			}
		}
	}
	do(q, 50, disk.Op{Kind: disk.Read, Len: 4096, Vec: both[:1]})
	do(q, 50, disk.Op{Kind: disk.Read, Len: 8192, Vec: both})
	do(q, 50, disk.Op{Kind: disk.Write, Len: 4096, Vec: both[:1], Flags: disk.FUA})
	do(q, 50, disk.Op{Kind: disk.Write, Len: 8192, Vec: both, Flags: disk.FUA})
	do(half, 200, disk.Op{Kind: disk.Write, Len: 4096, Vec: both[:1]})
	do(q, 1, disk.Op{Kind: disk.Flush})
}
