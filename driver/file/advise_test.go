package file

import (
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest/hostfs"
)

// TestAdviseDrop: what is clean leaves the cache, in the range alone, and what is dirty stays.
func TestAdviseDrop(t *testing.T) {
	t.Parallel()
	const half = 4 << 20
	dir := hostfs.Mount(t, hostfs.Ext4, hostfs.Options{})
	f := openFile(t, newFile(t, dir, 2*half), Options{})
	if err := f.WriteAt(bg, random(2*half, 1), 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Flush(bg); err != nil {
		t.Fatal(err)
	}
	if err := f.Advise(half, half, disk.AdviceDrop); err != nil {
		t.Fatal(err)
	}
	if all, _ := cached(t, f); all != half {
		t.Errorf("%d bytes are cached after half of %d was dropped", all, 2*half)
	}
	for _, a := range []disk.Advice{disk.AdviceRandom, disk.AdviceSequential, disk.AdviceNoReuse} {
		if err := f.Advise(0, 2*half, a); err != nil {
			t.Errorf("advice %d: %v", a, err)
		}
	}
	if f.Advise(0, half, 99) == nil {
		t.Error("unknown advice was taken")
	}
}

// TestQueueOldestFirst: writes that are made inside Submit are reaped in the order in which they were
// submitted, or those in front starve while others come and go.
func TestQueueOldestFirst(t *testing.T) {
	t.Parallel()
	dir := hostfs.Mount(t, hostfs.Ext4, hostfs.Options{})
	f := openFile(t, newFile(t, dir, 1<<20), Options{})
	q := newQueue(t, f, 4)
	buf := random(4096, 1)
	submit := func(tag uint64) {
		t.Helper()
		op := disk.Op{Kind: disk.Write, Off: int64(tag) * 4096, Len: 4096, Vec: [][]byte{buf}, Tag: tag}
		if n, err := q.Submit([]disk.Op{op}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	for tag := range uint64(4) {
		submit(tag)
	}
	var dst [1]disk.Completion
	for want := range uint64(12) {
		if n, err := q.Reap(bg, 1, dst[:]); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if dst[0].Tag != want {
			t.Fatalf("write %d was reaped before %d", dst[0].Tag, want)
		}
		submit(want + 4)
	}
	for range 4 {
		if n, err := q.Reap(bg, 1, dst[:]); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
}
