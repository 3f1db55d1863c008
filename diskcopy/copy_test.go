package diskcopy

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/mem"
	"github.com/vmdisk/vmdisk/filter/noextents"
)

// TestRandomCopies copies random disks with random options to targets with old
// content; the end of a larger target stays as it was.
func TestRandomCopies(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 3))
		size := 1 + r.Int64N(9*mib)
		src, dst := memDisk(t, size), dirty(t, size+r.Int64N(2)*mib)
		for range r.IntN(12) {
			off := r.Int64N(size)
			fill(t, src, off, min(size-off, 1+r.Int64N(300<<10)), r.Int64N(100))
		}
		want := make([]byte, dst.Size()-size)
		if err := dst.ReadAt(context.Background(), want, size); err != nil {
			t.Fatal(err)
		}
		bits := r.IntN(13)
		from, to := src, disk.New(&shaped{remote{child: dst}, func(in *disk.Info) { in.Min = 1 << bits }}, "blocky")
		if r.IntN(2) == 0 {
			from = noextents.New(disk.New(&remote{child: src, keep: true}, "src"))
		}
		o := Options{
			RequestSize: 4096 << r.IntN(9), QueueDepth: 1 + r.IntN(20), Strategy: Strategies()[r.IntN(6)],
			Allocate: r.IntN(4) == 0, Verify: true,
		}
		if r.IntN(3) > 0 {
			o.SparseSize = min(512<<r.IntN(8), o.RequestSize)
		} else if r.IntN(2) == 0 {
			o.SparseSize = -1
		}
		if o.RequestSize < to.Info().Min {
			o.RequestSize = to.Info().Min
		}
		st, err := Copy(context.Background(), to, from, o)
		if err != nil {
			t.Fatalf("seed %d, %+v: %v", seed, o, err)
		}
		mustEqual(t, src, dst)
		tail := make([]byte, len(want))
		if err := dst.ReadAt(context.Background(), tail, size); err != nil || string(tail) != string(want) {
			t.Fatalf("seed %d: the target beyond the source's end changed", seed)
		}
		if !st.Verified || st.Size != size {
			t.Errorf("seed %d: %+v", seed, st)
		}
	}
}

// TestHuge copies an empty 8 TiB disk with one byte in it, to a target of each kind.
func TestHuge(t *testing.T) {
	t.Parallel()
	const size = 8 << 40
	src := memDisk(t, size)
	put(t, src, 5<<40, 1)
	for name, dst := range map[string]*disk.Disk{
		"known":     memDisk(t, size),
		"status":    disk.New(&remote{child: memDisk(t, size)}, "status"),
		"fast zero": noextents.New(disk.New(&remote{child: memDisk(t, size)}, "fast")),
		// As NBD without extended headers.
		"limited": noextents.New(disk.New(&shaped{remote{child: memDisk(t, size)}, func(in *disk.Info) { in.MaxZero = 4<<30 - 512 }}, "limited")),
	} {
		st, err := Copy(context.Background(), dst, src, Options{Verify: name == "known"})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if st.Read.Bytes > 2*mib || st.Zero.Ops > 4096 {
			t.Errorf("%s: %+v", name, st)
		}
		p := []byte{0}
		if err := dst.ReadAt(context.Background(), p, 5<<40); err != nil || p[0] != 1 {
			t.Errorf("%s: read %v, %v", name, p, err)
		}
	}
}

// TestSparse keeps holes of 4 KiB, and finds them in data.
func TestSparse(t *testing.T) {
	t.Parallel()
	src := memDisk(t, 8*mib)
	for off := int64(0); off < 8*mib; off += 64 << 10 {
		fill(t, src, off, 4096, off)
	}
	for name, from := range map[string]*disk.Disk{"map": src, "data": noextents.New(disk.New(&remote{child: src, keep: true}, "src"))} {
		dst := memDisk(t, 8*mib)
		st, err := Copy(context.Background(), dst, from, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if st.Write.Bytes != 128*4096 {
			t.Errorf("%s: %d bytes written, want 512 KiB", name, st.Write.Bytes)
		}
		mustEqual(t, src, dst)
	}
	st, err := Copy(context.Background(), memDisk(t, 8*mib), noextents.New(disk.New(&remote{child: src, keep: true}, "src")), Options{SparseSize: -1})
	if err != nil || st.Write.Bytes != 8*mib {
		t.Errorf("without the search: %d bytes written, %v", st.Write.Bytes, err)
	}
}

// sink takes everything and keeps nothing.
type sink struct{ remote }

func (s *sink) WriteAt(context.Context, []byte, int64, disk.Flags) error { return nil }
func (s *sink) Zero(context.Context, int64, int64, disk.Flags) error     { return nil }

// TestAllocations: planning, reading, searching and writing allocate nothing.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations are not counted under the race detector")
	}
	src, dst := striped(t), memDisk(t, 100*mib)
	for _, o := range []Options{{}, {Strategy: ZeroEach}, {Strategy: Write}} {
		o, err := o.complete()
		if err != nil {
			t.Fatal(err)
		}
		o.RequestSize = 64 << 10 // 800 tasks and more
		e, err := newEngine(context.Background(), context.Background(), noextents.New(disk.New(&sink{remote{child: dst}}, "sink")), src, o)
		if err != nil {
			t.Fatal(err)
		}
		defer e.close()
		if err := e.prepareZero(); err != nil {
			t.Fatal(err)
		}
		w := e.workers[0]
		got := testing.AllocsPerRun(300, func() {
			if !e.next(w) {
				t.Fatal("no task")
			}
			if err := w.doAll(); err != nil {
				t.Fatal(err)
			}
		})
		if got != 0 {
			t.Errorf("%s: %v allocations a task", o.Strategy, got)
		}
	}
}

// TestProgress counts up to the size of the disk, in phases.
func TestProgress(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var seen []Progress
	st, err := Copy(context.Background(), dirty(t, 100*mib), striped(t), Options{Verify: true, ProgressEvery: time.Millisecond,
		Progress: func(p Progress) { mu.Lock(); seen = append(seen, p); mu.Unlock() }})
	if err != nil {
		t.Fatal(err)
	}
	phase, last := "copy", Progress{}
	for _, p := range seen {
		if p.Total != 100*mib || p.Done > p.Total || p.Phase == last.Phase && p.Done < last.Done {
			t.Errorf("%+v after %+v", p, last)
		}
		if p.Phase != phase {
			if last.Done != last.Total {
				t.Errorf("phase %s ended at %d", phase, last.Done)
			}
			phase = p.Phase
		}
		last = p
	}
	if last.Phase != "verify" || last.Done != 100*mib {
		t.Errorf("ended with %+v", last)
	}
	text, err := json.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"write":{"ops":50,"bytes":52428800}`, `"zero_by":`, `"phases":[{"name":"copy","seconds":`, `"name":"verify"`, `"resent_bytes":0`, `"user_seconds":`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
}

func ExampleCopy() {
	ctx := context.Background()
	src, err := mem.Open(1 << 40)
	if err != nil {
		panic(err)
	}
	defer src.Close()
	dst, err := mem.Open(1 << 40)
	if err != nil {
		panic(err)
	}
	defer dst.Close()
	if err := src.WriteAt(ctx, []byte("data"), 1<<39, 0); err != nil {
		panic(err)
	}
	stats, err := Copy(ctx, dst, src, Options{Verify: true})
	if err != nil {
		panic(err)
	}
	fmt.Println(stats.Write.Ops, "write of", stats.Write.Bytes, "bytes; zeros:", stats.ZeroBy)
	// Output: 1 write of 4096 bytes; zeros: target was zero
}

func ExampleCompare() {
	ctx := context.Background()
	a, err := mem.Open(1 << 40)
	if err != nil {
		panic(err)
	}
	defer a.Close()
	b, err := mem.Open(1 << 40)
	if err != nil {
		panic(err)
	}
	defer b.Close()
	if err := b.WriteAt(ctx, []byte{1}, 123456789, 0); err != nil {
		panic(err)
	}
	r, err := Compare(ctx, a, b, CompareOptions{})
	fmt.Println(r.Equal, r.Offset, err)
	// Output: false 123456789 <nil>
}

func ExampleChecksum() {
	d, err := mem.Open(1 << 30)
	if err != nil {
		panic(err)
	}
	defer d.Close()
	sum, err := Checksum(context.Background(), d, ChecksumOptions{Algorithm: "sha256"})
	fmt.Println(sum.Checksum[:16], err)
	// Output: 9e8b33874ad8566c <nil>
}
