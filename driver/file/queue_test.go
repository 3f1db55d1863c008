package file

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/uring"
)

// newQueue returns a driver queue owned by the test's goroutine.
func newQueue(t testing.TB, f disk.Queuer, depth int) disk.Queue {
	t.Helper()
	q, err := f.NewQueue(depth)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return q
}

// finish submits ops and returns the errors by tag.
func finish(t testing.TB, q disk.Queue, ops ...disk.Op) map[uint64]error {
	t.Helper()
	errs := map[uint64]error{}
	dst := make([]disk.Completion, 8)
	for sent := 0; len(errs) < len(ops); {
		n, err := q.Submit(ops[sent:])
		if err != nil {
			t.Fatal(err)
		}
		sent += n
		ctx, cancel := context.WithTimeout(bg, 30*time.Second)
		n, err = q.Reap(ctx, 1, dst)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range dst[:n] {
			errs[c.Tag] = c.Err
		}
	}
	return errs
}

// TestQueueHandsOver proves that what the ring cannot do is done all the same:
// memory that O_DIRECT does not take, the partial sector at the end, ranges past
// the end of a truncated file.
func TestQueueHandsOver(t *testing.T) {
	t.Parallel()
	const size = 1<<20 + 100
	f := openFile(t, newFile(t, t.TempDir(), size), Options{Cache: None, AIO: IOUring})
	q := newQueue(t, f, 8)
	odd := random(8193, 1)[1:]
	tail := random(100, 2)
	errs := finish(t, q,
		disk.Op{Kind: disk.Write, Off: 4096, Len: 8192, Vec: [][]byte{odd}, Tag: 1},
		disk.Op{Kind: disk.Write, Off: 1 << 20, Len: 100, Vec: [][]byte{tail}, Flags: disk.FUA, Tag: 2})
	if errs[1] != nil || errs[2] != nil {
		t.Fatal(errs)
	}
	got1, got2 := make([]byte, 8193)[1:], make([]byte, 100)
	errs = finish(t, q,
		disk.Op{Kind: disk.Read, Off: 4096, Len: 8192, Vec: [][]byte{got1[:1], got1[1:]}, Tag: 1},
		disk.Op{Kind: disk.Read, Off: 1 << 20, Len: 100, Vec: [][]byte{got2}, Tag: 2})
	if errs[1] != nil || errs[2] != nil || !bytes.Equal(got1, odd) || !bytes.Equal(got2, tail) {
		t.Fatalf("%v, or other bytes than were written", errs)
	}
	if err := unix.Ftruncate(f.fd, 4096); err != nil {
		t.Fatal(err)
	}
	mem, err := uring.Alloc(8192)
	if err != nil {
		t.Fatal(err)
	}
	defer uring.Free(mem)
	errs = finish(t, q, disk.Op{Kind: disk.Read, Off: 0, Len: 8192, Vec: [][]byte{mem}, Tag: 3})
	if !errors.Is(errs[3], errShrunk) {
		t.Errorf("a short read: %v", errs[3])
	}
}

func TestQueueKeepsErrno(t *testing.T) {
	t.Parallel()
	path := newFile(t, t.TempDir(), 1<<20)
	f := openFile(t, path, Options{ReadOnly: true, AIO: IOUring})
	q := newQueue(t, f, 2)
	errs := finish(t, q, disk.Op{Kind: disk.Write, Len: 512, Vec: [][]byte{make([]byte, 512)}, Tag: 1})
	if !errors.Is(errs[1], unix.EBADF) {
		t.Errorf("write through a read-only descriptor: %v", errs[1])
	}
}

// TestQueueReapIsWoken: a watched descriptor, a worker's end and a cancelled
// context each end a Reap that waits.
func TestQueueReapIsWoken(t *testing.T) {
	t.Parallel()
	f := openFile(t, newFile(t, t.TempDir(), 1<<20), Options{AIO: IOUring})
	reapIsWoken(t, newQueue(t, f, 4))
}

func reapIsWoken(t *testing.T, q disk.Queue) {
	t.Helper()
	dst := make([]disk.Completion, 4)
	if n, err := q.Reap(bg, 1, dst); n != 0 || err != nil {
		t.Fatalf("Reap with nothing to wait for: %d, %v", n, err)
	}
	efd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(efd)
	if err := q.WatchFD(efd, 99); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		go unix.Write(efd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		if n, err := q.Reap(bg, 1, dst); n != 1 || err != nil || dst[0].Tag != 99 {
			t.Fatalf("watched descriptor: %d, %v, %+v", n, err, dst[0])
		}
		if _, err := unix.Read(efd, make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range uint64(100) { // with a descriptor watched, only the wake-up ends the wait
		if n, err := q.Submit([]disk.Op{{Kind: disk.Zero, Len: 4096, Flags: disk.MayTrim, Tag: i}}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if n, err := q.Reap(bg, 1, dst); n != 1 || err != nil || dst[0] != (disk.Completion{Tag: i}) {
			t.Fatalf("worker's operation: %d, %v, %+v", n, err, dst[0])
		}
	}
	ctx, cancel := context.WithCancel(bg)
	time.AfterFunc(20*time.Millisecond, cancel)
	if n, err := q.Reap(ctx, 1, dst); n != 0 || !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled Reap: %d, %v", n, err)
	}
}

// TestQueueCancel: a cancelled operation completes, done or cancelled, and its
// slot serves the next one.
func TestQueueCancel(t *testing.T) {
	t.Parallel()
	f := openFile(t, newFile(t, t.TempDir(), 1<<20), Options{AIO: IOUring})
	q := newQueue(t, f, 1)
	buf := [][]byte{make([]byte, 4096)}
	dst := make([]disk.Completion, 4)
	for i := range uint64(50) {
		op := disk.Op{Kind: []disk.Kind{disk.Zero, disk.Flush, disk.Read}[i%3], Len: 4096, Vec: buf, Tag: i}
		if n, err := q.Submit([]disk.Op{op}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		q.Cancel(i)
		n, err := q.Reap(bg, 1, dst)
		if n != 1 || err != nil || dst[0].Tag != i || dst[0].Err != nil && !errors.Is(dst[0].Err, context.Canceled) {
			t.Fatalf("operation %d: %d, %v, %+v", i, n, err, dst[0])
		}
	}
}

func TestQueueModes(t *testing.T) {
	t.Parallel()
	path := newFile(t, t.TempDir(), 1<<20)
	f := openFile(t, path, Options{AIO: Threads})
	if _, err := f.NewQueue(4); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("AIO mode threads: %v", err)
	}
	f.Close()
	f = openFile(t, path, Options{Cache: Unsafe, AIO: IOUring})
	q := newQueue(t, f, 4)
	if errs := finish(t, q, disk.Op{Kind: disk.Flush, Tag: 1}); errs[1] != nil {
		t.Errorf("flush in cache mode unsafe: %v", errs[1])
	}
	if err := q.Register([][]byte{make([]byte, 4096)}); err != nil {
		t.Error(err)
	}
	if err := q.Register([][]byte{make([]byte, 4096)}); err == nil {
		t.Error("memory was registered twice")
	}
}

// TestQueueCloseWaits: Close returns only when no buffer is in use any more.
func TestQueueCloseWaits(t *testing.T) {
	t.Parallel()
	f := openFile(t, newFile(t, t.TempDir(), 8<<20), Options{Cache: None, AIO: IOUring})
	q, err := f.NewQueue(64)
	if err != nil {
		t.Fatal(err)
	}
	mem, err := uring.Alloc(8 << 20)
	if err != nil {
		t.Fatal(err)
	}
	copy(mem, random(len(mem), 5))
	var ops []disk.Op
	for i, b := range uring.Carve(mem, 128<<10) {
		ops = append(ops, disk.Op{Kind: disk.Write, Off: int64(i) * 128 << 10, Len: 128 << 10, Vec: [][]byte{b}, Tag: uint64(i)})
	}
	if n, err := q.Submit(ops); n != len(ops) || err != nil {
		t.Fatal(n, err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(mem)
	uring.Free(mem) // the kernel would now write garbage, or fail
	got := make([]byte, len(want))
	if err := f.ReadAt(bg, got, 0); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("after Close not all was written (%v)", err)
	}
}

// BenchmarkQueue32 reads (and writes) 4 KiB blocks of a cached file 32 at a time
// with registered file and buffers; compare with
//
//	fio --ioengine=io_uring --fixedbufs --registerfiles --iodepth=32 --rw=randread --bs=4k
func BenchmarkQueue32(b *testing.B) {
	for _, mode := range []struct {
		name string
		kind disk.Kind
		one  bool
		o    Options
	}{
		{"read-one-by-one", disk.Read, true, Options{Cache: Unsafe}}, {"read-batched", disk.Read, false, Options{Cache: Unsafe}},
		{"write-one-by-one", disk.Write, true, Options{Cache: Unsafe}},
		{"direct-read-one-by-one", disk.Read, true, Options{Cache: None}}, {"direct-write-one-by-one", disk.Write, true, Options{Cache: None}},
	} {
		b.Run(mode.name, func(b *testing.B) { benchQueue(b, mode.kind, mode.one, mode.o) })
	}
}

func benchQueue(b *testing.B, kind disk.Kind, oneByOne bool, o Options) {
	const size, depth = 256 << 20, 32
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	path := newFile(b, b.TempDir(), size)
	f := openFile(b, path, o)
	if err := f.writeZeros(bg, 0, size); err != nil {
		b.Fatal(err)
	}
	d := disk.New(f, path)
	q, err := d.NewQueue(depth)
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	mem, err := uring.Alloc(depth * 4096)
	if err != nil {
		b.Fatal(err)
	}
	defer uring.Free(mem)
	if err := q.Register([][]byte{mem}); err != nil {
		b.Fatal(err)
	}
	ops := make([]disk.Op, depth)
	for i, buf := range uring.Carve(mem, 4096) {
		ops[i] = disk.Op{Kind: kind, Len: 4096, Vec: [][]byte{buf}, Buf: 1, Tag: uint64(i)}
	}
	x := uint64(88172645463325252)
	next := func(op *disk.Op) {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		op.Off = int64(x%(size/4096)) * 4096
	}
	for i := range ops {
		next(&ops[i])
	}
	if _, err := q.Submit(ops); err != nil {
		b.Fatal(err)
	}
	again := make([]disk.Op, 0, depth)
	dst := make([]disk.Completion, depth)
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; {
		k, err := q.Reap(bg, 1, dst)
		if err != nil {
			b.Fatal(err)
		}
		n += k
		again = again[:0]
		for _, c := range dst[:k] {
			next(&ops[c.Tag])
			if again = append(again, ops[c.Tag]); oneByOne {
				if _, err := q.Submit(again); err != nil {
					b.Fatal(err)
				}
				again = again[:0]
			}
		}
		if _, err := q.Submit(again); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}

// BenchmarkInline measures the calls that a server makes on its reading
// goroutine, beside the ones they replace.
func BenchmarkInline(b *testing.B) {
	f := openFile(b, newFile(b, b.TempDir(), 1<<20), Options{Cache: Unsafe})
	p := make([]byte, 4096)
	for name, op := range map[string]func() error{
		"TryRead":  func() error { return f.TryRead(p, 8192) },
		"ReadAt":   func() error { return f.ReadAt(bg, p, 8192) },
		"TryWrite": func() error { return f.TryWrite(p, 8192, 0) },
		"WriteAt":  func() error { return f.WriteAt(bg, p, 8192, 0) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := op(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
