package uring

import (
	"bytes"
	"errors"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// polledRing returns a polled ring owned by the test's goroutine, and a file whose
// first 64 KiB are allocated and unwritten. The first write to such a block, and
// every read before, can be queued on a polled ring whether or not the device has
// queues for polling; with data in it Linux refuses without them from 6.14 on.
func polledRing(t testing.TB, entries int) (*Ring, Target) {
	t.Helper()
	fd := directFile(t, t.TempDir())
	runtime.LockOSThread()
	r, err := NewPolled(entries)
	if err != nil {
		t.Fatalf("a polled ring is needed here: %v", err)
	}
	t.Cleanup(func() {
		r.Close()
		runtime.UnlockOSThread()
	})
	target := Target{FD: fd}
	r.Write(target, page(t), 60<<10, 0, 1)
	if c := wait(t, r, 1)[1]; c.Err() == unix.EOPNOTSUPP {
		t.Skipf("%s cannot be polled: %v", t.TempDir(), c.Err())
	}
	return r, target
}

func directFile(t testing.TB, dir string) int {
	t.Helper()
	fd, err := unix.Open(filepath.Join(dir, "direct"), unix.O_CREAT|unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Skipf("no O_DIRECT in %s: %v", dir, err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Fallocate(fd, 0, 0, 64<<10); err != nil {
		t.Skipf("no fallocate in %s: %v", dir, err)
	}
	return fd
}

func page(t testing.TB) []byte {
	t.Helper()
	mem, err := Alloc(4096)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Free(mem) })
	return mem
}

func TestPolledReadsAndWrites(t *testing.T) {
	r, target := polledRing(t, 8)
	if r.flags&setupIOPoll == 0 || r.Polling() {
		t.Fatalf("flags %#x, polling with nothing in flight %v", r.flags, r.Polling())
	}
	a, b, c, d := page(t), page(t), page(t), page(t)
	copy(a, "write")
	copy(b, "write")
	copy(c, "v")
	r.Write(target, a, 4096, 0, 1)
	r.Writev(target, [][]byte{b, c}, 8192, 0, 2)
	r.Read(target, d, 0, 0, 3)
	if !r.Polling() {
		t.Error("three operations are prepared, and the ring does not poll")
	}
	d[0] = 1
	got := wait(t, r, 3)
	wantRes(t, got, 1, 4096)
	wantRes(t, got, 2, 8192)
	wantRes(t, got, 3, 4096)
	if d[0] != 0 {
		t.Error("nothing was read")
	}
	for i, want := range []string{"write", "write", "v"} {
		if _, err := unix.Pread(target.FD, d, int64(i+1)*4096); err != nil || !bytes.HasPrefix(d, []byte(want+"\x00")) {
			t.Errorf("the block at %d holds %q, %v", (i+1)*4096, d[:6], err)
		}
	}
	r.Fsync(target, true, 4)
	if c := wait(t, r, 1)[4]; !errors.Is(c.Err(), unix.EINVAL) {
		t.Errorf("fsync: %+v, want EINVAL", c)
	}
	if r.Polling() {
		t.Error("polling with nothing in flight")
	}
}

// TestPolledOlderKernels runs a polled ring with each set of flags.
func TestPolledOlderKernels(t *testing.T) {
	_, target := polledRing(t, 1)
	mem := page(t)
	for _, flags := range setupFlags {
		r, err := newPolled(4, []uint32{flags | setupIOPoll})
		if err != nil {
			t.Fatalf("flags %#x: %v", flags, err)
		}
		r.Read(target, mem, 4096, 0, 1)
		wantRes(t, wait(t, r, 1), 1, 4096)
		r.Close()
	}
}

// TestPolledIsRefused: a file that is read through the page cache, and one that
// lies in memory.
func TestPolledIsRefused(t *testing.T) {
	r, _ := polledRing(t, 4)
	f := tempFile(t, make([]byte, 4096))
	r.Read(Target{FD: int(f.Fd())}, page(t), 0, 0, 1)
	if c := wait(t, r, 1)[1]; !errors.Is(c.Err(), unix.EOPNOTSUPP) {
		t.Errorf("buffered: %+v, want EOPNOTSUPP", c)
	}
	memfd, err := unix.MemfdCreate("memory", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(memfd)
	r.Read(Target{FD: memfd}, page(t), 0, 0, 2)
	if c := wait(t, r, 1)[2]; !errors.Is(c.Err(), unix.EOPNOTSUPP) {
		t.Errorf("in memory: %+v, want EOPNOTSUPP", c)
	}
}

// TestPolledIsWoken: with nothing in flight Wake and watched descriptors end a
// Wait; with reads in flight, Reap finds both.
func TestPolledIsWoken(t *testing.T) {
	r, target := polledRing(t, 4)
	for range 3 {
		go r.Wake()
		if err := r.Wait(1); err != nil { // hangs if Wake does nothing
			t.Fatal(err)
		}
	}
	efd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(efd)
	if !r.Poll(efd, 77) {
		t.Fatal("Poll was refused")
	}
	mem, one := page(t), []byte{1, 0, 0, 0, 0, 0, 0, 0}
	for round := range 3 {
		go unix.Write(efd, one)
		if c := wait(t, r, 1)[77]; c.Last || c.Res&unix.POLLIN == 0 {
			t.Fatalf("round %d: %+v", round, c)
		}
		if _, err := unix.Write(efd, one); err != nil {
			t.Fatal(err)
		}
		r.Read(target, mem, 0, 0, 5)
		if got := wait(t, r, 2); got[5].Res != 4096 || got[77].Res&unix.POLLIN == 0 {
			t.Fatalf("round %d: %+v", round, got)
		}
	}
	if r.Cancel(77); len(r.seen) > 0 {
		t.Errorf("left over: %+v", r.seen)
	}
	r.Poll(1<<20, 6)
	if c := wait(t, r, 1)[6]; !errors.Is(c.Err(), unix.EBADF) || !c.Last {
		t.Errorf("a descriptor that is not open: %+v", c)
	}
}

// TestPolledEventsWait: more events than Reap has room for come with the next.
func TestPolledEventsWait(t *testing.T) {
	r, _ := polledRing(t, 4)
	for i := range uint64(5) {
		efd, err := unix.Eventfd(1, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(efd)
		r.Poll(efd, i)
	}
	seen := map[uint64]bool{}
	var dst [2]Completion
	for deadline := time.Now().Add(30 * time.Second); len(seen) < 5 && time.Now().Before(deadline); {
		n, err := r.Reap(dst[:])
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range dst[:n] {
			seen[c.User] = true
		}
	}
	if len(seen) != 5 {
		t.Errorf("events of %v, want all five", seen)
	}
}

func TestPolledAllocatesNothing(t *testing.T) {
	r, target := polledRing(t, 16)
	mem, err := Alloc(16 * 4096)
	if err != nil {
		t.Fatal(err)
	}
	defer Free(mem)
	bufs := Carve(mem, 4096)
	if err := errors.Join(r.RegisterFiles(target.FD), r.RegisterBuffers([][]byte{mem})); err != nil {
		t.Fatal(err)
	}
	out := make([]Completion, 16)
	if a := testing.AllocsPerRun(20, func() { batch(t, r, bufs, out) }); a != 0 {
		t.Errorf("%v allocations per batch", a)
	}
}
