package disktest

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
)

const span = 64 << 20 // the part of a disk that Benchmark works on, at most

type measured struct {
	name  string
	bytes int64
	f     func(off int64) error
}

// operations are the calls whose cost counts, on aligned ranges.
func operations(tb testing.TB, d *disk.Disk) []measured {
	ctx := tb.Context()
	small, large := make([]byte, 4<<10), make([]byte, 256<<10)
	dst := make([]disk.Extent, 0, 64)
	in := d.Info()
	ops := []measured{
		{"read-4k", 4 << 10, func(off int64) error { return d.ReadAt(ctx, small, off) }},
		{"read-256k", 256 << 10, func(off int64) error { return d.ReadAt(ctx, large, off) }},
		{"tryread-4k", 4 << 10, func(off int64) error { return orBlock(d.TryRead(small, off)) }},
		{"extents", 0, func(off int64) error {
			_, err := d.Extents(ctx, disk.Allocation, off, 256<<10, dst)
			return err
		}},
	}
	if in.ReadOnly {
		return ops
	}
	return append(ops, []measured{
		{"write-4k", 4 << 10, func(off int64) error { return d.WriteAt(ctx, small, off, 0) }},
		{"write-256k", 256 << 10, func(off int64) error { return d.WriteAt(ctx, large, off, 0) }},
		{"trywrite-4k", 4 << 10, func(off int64) error { return orBlock(d.TryWrite(small, off, 0)) }},
		{"zero-256k", 256 << 10, func(off int64) error { return d.Zero(ctx, off, 256<<10, disk.MayTrim) }},
	}...)
}

func orBlock(err error) error {
	if err == disk.ErrWouldBlock {
		return nil
	}
	return err
}

// next goes through the span in steps of a prime number of 4 KiB blocks.
func next(off, within int64) int64 { return (off + 4099*4096) % (within - 256<<10) &^ 4095 }

// Allocations fails where an operation of the disk allocates memory. Those in
// except may: an operation that only some drivers do without. It is for tests
// that do not run in parallel.
func Allocations(t *testing.T, d *disk.Disk, except ...string) {
	t.Helper()
	within := min(d.Size(), 4<<20)
	for _, op := range operations(t, d) {
		off := int64(0)
		run := func() {
			if err := op.f(off); err != nil {
				t.Fatalf("%s: %v", op.name, err)
			}
			off = next(off, within)
		}
		for range 64 { // caches warm up, sparse storage fills
			run()
		}
		n := testing.AllocsPerRun(200, run)
		for _, name := range except {
			if name == op.name {
				n = 0
			}
		}
		if n > 0 {
			t.Errorf("%s: %v allocations per operation", op.name, n)
		}
	}
	queueAllocations(t, d)
}

// queueAllocations measures reads through a queue.
func queueAllocations(t *testing.T, d *disk.Disk) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	batch, err := newBatch(d, 16)
	if err != nil {
		t.Fatal(err)
	}
	run := func() {
		if err := batch.run(t); err != nil {
			t.Fatal(err)
		}
	}
	for range 64 {
		run()
	}
	if n := testing.AllocsPerRun(100, run); n > 0 {
		t.Errorf("queue: %v allocations for 16 reads", n)
	}
	if err := batch.q.Close(); err != nil {
		t.Fatal(err)
	}
}

// batch is a queue with as many 4 KiB reads as it holds.
type batch struct {
	q      disk.Queue
	ops    []disk.Op
	done   []disk.Completion
	within int64
}

func newBatch(d *disk.Disk, depth int) (*batch, error) {
	q, err := d.NewQueue(depth)
	if err != nil {
		return nil, err
	}
	b := &batch{q: q, ops: make([]disk.Op, depth), done: make([]disk.Completion, depth), within: min(d.Size(), span)}
	for i := range b.ops {
		b.ops[i] = disk.Op{Kind: disk.Read, Len: 4096, Vec: [][]byte{make([]byte, 4096)}, Tag: uint64(i), Off: int64(i) * 4096}
	}
	return b, nil
}

// run submits every read once and waits for all of them.
func (b *batch) run(tb testing.TB) error {
	for i := range b.ops {
		b.ops[i].Off = next(b.ops[i].Off, b.within)
	}
	for sent, got := 0, 0; got < len(b.ops); {
		n, err := b.q.Submit(b.ops[sent:])
		if err != nil {
			return err
		}
		sent += n
		n, err = b.q.Reap(tb.Context(), 1, b.done)
		if err != nil {
			return err
		}
		got += n
		for _, c := range b.done[:n] {
			if c.Err != nil {
				return c.Err
			}
		}
	}
	return nil
}

// Benchmark measures each operation on up to 64 MiB of a disk: alone, from all
// processors, and reads through queues of depth 1 and 16. It reports bytes per
// second and allocations.
func Benchmark(b *testing.B, open Opener) {
	d := open(b)
	defer d.Close()
	within := min(d.Size(), span)
	for _, op := range operations(b, d) {
		b.Run(op.name, func(b *testing.B) {
			b.SetBytes(op.bytes)
			b.ReportAllocs()
			off := int64(0)
			for b.Loop() {
				if err := op.f(off); err != nil {
					b.Fatal(err)
				}
				off = next(off, within)
			}
		})
	}
	b.Run("parallel-read-4k", func(b *testing.B) { parallelReads(b, d, within) })
	for _, depth := range []int{1, 16} {
		b.Run(fmt.Sprintf("queue-%d-read-4k", depth), func(b *testing.B) { queueReads(b, d, depth) })
	}
}

func parallelReads(b *testing.B, d *disk.Disk, within int64) {
	b.SetBytes(4096)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		p, off := make([]byte, 4096), int64(0)
		for pb.Next() {
			if err := d.ReadAt(b.Context(), p, off); err != nil {
				b.Error(err)
				return
			}
			off = next(off, within)
		}
	})
}

// queueReads counts one batch of depth reads as an iteration.
func queueReads(b *testing.B, d *disk.Disk, depth int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	reads, err := newBatch(d, depth)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(4096 * int64(depth))
	b.ReportAllocs()
	for b.Loop() {
		if err := reads.run(b); err != nil {
			b.Fatal(err)
		}
	}
	if err := reads.q.Close(); err != nil {
		b.Fatal(err)
	}
}
