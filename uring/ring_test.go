package uring

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ownedRing returns a ring owned by the test's goroutine.
func ownedRing(t testing.TB, entries int) *Ring {
	t.Helper()
	runtime.LockOSThread()
	r, err := New(entries)
	if err != nil {
		t.Fatalf("io_uring is needed here: %v", err)
	}
	t.Cleanup(func() {
		r.Close()
		runtime.UnlockOSThread()
	})
	return r
}

// nop queues an operation that does nothing.
func (r *Ring) nop(user uint64) bool { return r.next(opNop, Target{FD: -1}, user) != nil }

func tempFile(t testing.TB, content []byte) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	return f
}

// wait submits and collects exactly n completions, by user.
func wait(t testing.TB, r *Ring, n int) map[uint64]Completion {
	t.Helper()
	got := map[uint64]Completion{}
	var buf [16]Completion
	for deadline := time.Now().Add(30 * time.Second); len(got) < n; {
		if err := r.Wait(1); err != nil {
			t.Fatal(err)
		}
		k, err := r.Reap(buf[:])
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range buf[:k] {
			got[c.User] = c
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d completions after 30 s", len(got), n)
		}
	}
	return got
}

func wantRes(t testing.TB, got map[uint64]Completion, user uint64, res int32) {
	t.Helper()
	if c, ok := got[user]; !ok || c.Res != res {
		t.Errorf("operation %d: got %+v, present %v, want result %d", user, c, ok, res)
	}
}

func TestReadWriteEveryWay(t *testing.T) {
	data := make([]byte, 64<<10)
	for i := range data {
		data[i] = byte(i * 7)
	}
	f := tempFile(t, data)
	r := ownedRing(t, 16)
	mem, err := Alloc(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Free(mem) })
	bufs := Carve(mem, 64<<10)
	if len(bufs) != 16 {
		t.Fatalf("Carve gave %d buffers, want 16", len(bufs))
	}
	if err := r.RegisterFiles(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
	if err := r.RegisterBuffers([][]byte{mem}); err != nil {
		t.Fatal(err)
	}
	fixed, plain := Target{FD: 0, Fixed: true}, Target{FD: int(f.Fd())}

	r.ReadFixed(fixed, bufs[0][:4096], 0, 4096, 0, 1)
	r.Read(plain, bufs[1][:4096], 8192, 0, 2)
	r.Readv(fixed, [][]byte{bufs[2][:100], bufs[3][:200]}, 50, 0, 3)
	got := wait(t, r, 3)
	wantRes(t, got, 1, 4096)
	wantRes(t, got, 2, 4096)
	wantRes(t, got, 3, 300)
	if !bytes.Equal(bufs[0][:4096], data[4096:8192]) || !bytes.Equal(bufs[1][:4096], data[8192:12288]) ||
		!bytes.Equal(bufs[2][:100], data[50:150]) || !bytes.Equal(bufs[3][:200], data[150:350]) {
		t.Error("a read returned other bytes than the file's")
	}

	copy(bufs[4], "fixed")
	copy(bufs[5], "plain")
	r.WriteFixed(fixed, bufs[4][:5], 0, 0, unix.RWF_DSYNC, 4)
	r.Write(plain, bufs[5][:5], 1000, 0, 5)
	r.Writev(plain, [][]byte{[]byte("vec"), []byte("tor")}, 2000, 0, 6)
	got = wait(t, r, 3)
	wantRes(t, got, 4, 5)
	wantRes(t, got, 5, 5)
	wantRes(t, got, 6, 6)
	r.Fsync(fixed, true, 7)
	r.Fallocate(fixed, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 16384, 4096, 8)
	got = wait(t, r, 2)
	wantRes(t, got, 7, 0)
	wantRes(t, got, 8, 0)

	copy(data, "fixed")
	copy(data[1000:], "plain")
	copy(data[2000:], "vector")
	clear(data[16384 : 16384+4096])
	if now, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(now, data) {
		t.Errorf("the file differs from what was written (%v)", err)
	}
}

func TestErrorsComeBackAsErrno(t *testing.T) {
	r := ownedRing(t, 4)
	r.Read(Target{FD: 1 << 20}, make([]byte, 512), 0, 0, 1)
	got := wait(t, r, 1)
	if !errors.Is(got[1].Err(), unix.EBADF) {
		t.Errorf("got %v, want EBADF", got[1].Err())
	}
}

func TestFullRingRefusesUntilSubmit(t *testing.T) {
	r := ownedRing(t, 4)
	for i := range uint64(4) {
		if !r.nop(i) {
			t.Fatalf("operation %d was refused in a ring of 4", i)
		}
	}
	if r.nop(9) {
		t.Fatal("a fifth operation was accepted in a ring of 4")
	}
	if got := wait(t, r, 4); len(got) != 4 {
		t.Fatalf("got %v", got)
	}
	if !r.nop(9) || len(wait(t, r, 1)) != 1 {
		t.Fatal("the ring takes nothing after a Submit")
	}
}

func TestIovecArenaIsFreedBySubmit(t *testing.T) {
	f := tempFile(t, make([]byte, 4096))
	r := ownedRing(t, 64)
	vec := make([][]byte, MaxIovecs)
	for i := range vec {
		vec[i] = make([]byte, 1)
	}
	for round := range 3 {
		for i := range uint64(iovArena / MaxIovecs) {
			if !r.Readv(Target{FD: int(f.Fd())}, vec, 0, 0, i) {
				t.Fatalf("round %d: operation %d was refused", round, i)
			}
		}
		if r.Readv(Target{FD: int(f.Fd())}, vec, 0, 0, 99) {
			t.Fatal("more iovecs were accepted than there is room for")
		}
		for _, c := range wait(t, r, iovArena/MaxIovecs) {
			if c.Res != MaxIovecs {
				t.Fatalf("round %d: %+v", round, c)
			}
		}
	}
}

// TestOlderKernels runs a ring with each set of flags.
func TestOlderKernels(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	f := tempFile(t, []byte("hello"))
	for i, flags := range setupFlags {
		r, err := newRing(4, setupFlags[i:i+1])
		if err != nil {
			t.Fatalf("flags %#x: %v", flags, err)
		}
		p := make([]byte, 5)
		r.Read(Target{FD: int(f.Fd())}, p, 0, 0, 1)
		wantRes(t, wait(t, r, 1), 1, 5)
		go r.Wake()
		if err := r.Wait(1); err != nil { // hangs if Wake does nothing
			t.Fatal(err)
		}
		if string(p) != "hello" || r.flags&flags != flags {
			t.Errorf("flags %#x: read %q, flags in force %#x", flags, p, r.flags)
		}
		r.Close()
	}
	if _, err := newRing(4, []uint32{1 << 31}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("flags that no kernel knows: %v", err)
	}
}

func TestPollIsMultishot(t *testing.T) {
	r := ownedRing(t, 4)
	efd, err := unix.Eventfd(0, unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(efd)
	r.Poll(efd, 77)
	one := []byte{1, 0, 0, 0, 0, 0, 0, 0}
	for round := range 3 {
		if _, err := unix.Write(efd, one); err != nil {
			t.Fatal(err)
		}
		c := wait(t, r, 1)[77]
		if c.Last || c.Res&unix.POLLIN == 0 {
			t.Fatalf("round %d: %+v", round, c)
		}
		if _, err := unix.Read(efd, make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCancelEndsAPoll(t *testing.T) {
	r := ownedRing(t, 4)
	efd, err := unix.Eventfd(0, unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(efd)
	r.Poll(efd, 5)
	if err := r.Submit(); err != nil {
		t.Fatal(err)
	}
	r.Cancel(5)
	if c := wait(t, r, 1)[5]; !errors.Is(c.Err(), unix.ECANCELED) || !c.Last {
		t.Fatalf("got %+v, want ECANCELED", c)
	}
}

func TestWakeEndsAWait(t *testing.T) {
	r := ownedRing(t, 4)
	for range 3 {
		go r.Wake()
		if err := r.Wait(1); err != nil { // hangs if Wake does nothing
			t.Fatal(err)
		}
		if n, err := r.Reap(make([]Completion, 4)); n != 0 || err != nil {
			t.Fatalf("Reap after Wake: %d, %v", n, err)
		}
	}
}

func TestWakeAfterClose(t *testing.T) {
	r, err := New(1)
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	efd, err := unix.Eventfd(0, unix.EFD_NONBLOCK) // most likely the number of the ring's
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(efd)
	r.Wake()
	if _, err := unix.Read(efd, make([]byte, 8)); err != unix.EAGAIN {
		t.Errorf("Wake after Close wrote to another file (%v)", err)
	}
}

func TestOtherThreadIsRefused(t *testing.T) {
	r := ownedRing(t, 4)
	r.nop(1)
	wait(t, r, 1)
	if r.flags&setupSingleIssuer == 0 {
		t.Skip("this kernel has no IORING_SETUP_SINGLE_ISSUER: any thread may use the ring")
	}
	got := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		r.nop(2)
		got <- r.Submit()
	}()
	if err := <-got; !errors.Is(err, ErrWrongThread) {
		t.Fatalf("got %v, want ErrWrongThread", err)
	}
}

func TestNewRefusesNonsense(t *testing.T) {
	for _, n := range []int{-1, 0, MaxEntries + 1} {
		if r, err := New(n); err == nil {
			r.Close()
			t.Errorf("New(%d) succeeded", n)
		}
	}
	r := ownedRing(t, 4)
	if err := r.RegisterBuffers([][]byte{nil}); err == nil {
		t.Error("an empty buffer was registered")
	}
	if err := r.RegisterFiles(1 << 20); !errors.Is(err, unix.EBADF) {
		t.Errorf("register a descriptor that is not open: %v", err)
	}
}

func TestProbeAndExplain(t *testing.T) {
	if err := Probe(); err != nil {
		t.Fatal(err)
	}
	for _, errno := range []unix.Errno{unix.ENOSYS, unix.EPERM, unix.ENOMEM, unix.EMFILE, unix.EINVAL} {
		if err := explain(errno); !errors.Is(err, errno) {
			t.Errorf("explain(%v) = %v loses the errno", errno, err)
		}
	}
}

func TestAligned(t *testing.T) {
	mem, err := Alloc(8192)
	if err != nil {
		t.Fatal(err)
	}
	defer Free(mem)
	for _, c := range []struct {
		p    []byte
		want bool
	}{{mem, true}, {mem[:512], true}, {mem[1:513], false}, {mem[:511], false}, {mem[512:1024], true}} {
		if got := Aligned(c.p, 512); got != c.want {
			t.Errorf("Aligned(offset %d, len %d) = %v", cap(mem)-cap(c.p), len(c.p), got)
		}
	}
	if _, err := Alloc(0); err == nil {
		t.Error("Alloc(0) succeeded")
	}
}

func TestPread2(t *testing.T) {
	f := tempFile(t, []byte("hello world"))
	buf := make([]byte, 5)
	for _, rwf := range []int{0, unix.RWF_NOWAIT} {
		if n, err := Pread2(int(f.Fd()), buf, 6, rwf); n != 5 || err != nil || string(buf) != "world" {
			t.Fatalf("flags %#x: %d, %v, %q", rwf, n, err, buf)
		}
	}
	if n, err := Pwrite2(int(f.Fd()), []byte("W"), 6, unix.RWF_DSYNC); n != 1 || err != nil {
		t.Fatalf("write: %d, %v", n, err)
	}
	if got, _ := os.ReadFile(f.Name()); string(got) != "hello World" {
		t.Fatalf("file holds %q", got)
	}
	fd := int(f.Fd())
	if a := testing.AllocsPerRun(100, func() { Pread2(fd, buf, 6, unix.RWF_NOWAIT) }); a != 0 {
		t.Errorf("%v allocations per Pread2", a)
	}
}

func TestNoAllocationPerOperation(t *testing.T) {
	f := tempFile(t, make([]byte, 1<<20))
	r := ownedRing(t, 32)
	mem, err := Alloc(32 * 4096)
	if err != nil {
		t.Fatal(err)
	}
	defer Free(mem)
	bufs := Carve(mem, 4096)
	if err := r.RegisterFiles(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
	if err := r.RegisterBuffers([][]byte{mem}); err != nil {
		t.Fatal(err)
	}
	out := make([]Completion, 32)
	if a := testing.AllocsPerRun(100, func() { batch(t, r, bufs, out) }); a != 0 {
		t.Errorf("%v allocations per batch", a)
	}
}

func batch(t testing.TB, r *Ring, bufs [][]byte, out []Completion) {
	for i, b := range bufs {
		if !r.ReadFixed(Target{Fixed: true}, b, 0, int64(i)*4096, 0, uint64(i)) {
			t.Fatal("ring full")
		}
	}
	if err := r.Submit(); err != nil {
		t.Fatal(err)
	}
	for left := len(bufs); left > 0; {
		n, err := r.Reap(out)
		if err != nil {
			t.Fatal(err)
		}
		if left -= n; n == 0 {
			if err := r.Wait(left); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func BenchmarkReadFixed4k(b *testing.B) {
	f := tempFile(b, make([]byte, 1<<20))
	r := ownedRing(b, 32)
	mem, err := Alloc(32 * 4096)
	if err != nil {
		b.Fatal(err)
	}
	defer Free(mem)
	bufs := Carve(mem, 4096)
	if err := r.RegisterFiles(int(f.Fd())); err != nil {
		b.Fatal(err)
	}
	if err := r.RegisterBuffers([][]byte{mem}); err != nil {
		b.Fatal(err)
	}
	out := make([]Completion, 32)
	b.ReportAllocs()
	for b.Loop() {
		batch(b, r, bufs, out)
	}
	b.ReportMetric(float64(b.N*32)/b.Elapsed().Seconds(), "reads/s")
}

func BenchmarkPread2NoWait(b *testing.B) {
	f := tempFile(b, make([]byte, 1<<20))
	buf := make([]byte, 4096)
	fd := int(f.Fd())
	b.ReportAllocs()
	for b.Loop() {
		if n, err := Pread2(fd, buf, 8192, unix.RWF_NOWAIT); n != 4096 || err != nil {
			b.Fatal(n, err)
		}
	}
}
