package behind

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/mem"
)

// cached is a disk that notes what it is told to write out and to drop.
type cached struct {
	*disk.Disk
	info    disk.Info
	err     error
	refuses bool

	mu             sync.Mutex
	begun, dropped []int64 // blocks, in order
	wrong          bool
}

func (c *cached) Info() disk.Info { return c.info }

func (c *cached) WriteBehind(off, n int64, drop bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.refuses:
		return errors.ErrUnsupported
	case n == 0:
		return nil
	case drop && (len(c.dropped) == len(c.begun) || c.begun[len(c.dropped)] != off/Step):
		c.wrong = true // not what was begun first
	case drop:
		c.dropped = append(c.dropped, off/Step)
	default:
		c.begun = append(c.begun, off/Step)
	}
	c.wrong = c.wrong || off%Step != 0 || n != Step
	return c.err
}

func newCached(t *testing.T, size int64) *cached {
	t.Helper()
	d, err := mem.Open(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	c := &cached{Disk: d}
	c.info = c.Disk.Info()
	c.info.KnownZero = true
	return c
}

func newFilling(t *testing.T, c *cached) *Filling {
	t.Helper()
	f := NewFilling(disk.New(c, "cached"))
	if f == nil {
		t.Fatal("no Filling")
	}
	return f
}

// piece of a write, less than Step.
const small = 256 << 10

func (f *Filling) wroteAll(off, n int64) {
	for end := off + n; off < end; off += small {
		f.Wrote(off, small)
	}
}

// settle waits until what was asked for is done.
func (f *Filling) settle() { f.group.Wait() }

func numbers(from, to int64) (list []int64) {
	for n := from; n < to; n++ {
		list = append(list, n)
	}
	return list
}

// TestFilling: full blocks are written out at once, in order, and dropped when Keep
// bytes more are under way; a block that is not full stays.
func TestFilling(t *testing.T) {
	t.Parallel()
	c := newCached(t, 20*Step)
	f := newFilling(t, c)
	f.wroteAll(0, 10*Step+Step/2)
	f.settle()
	if want := numbers(0, 10); !slices.Equal(c.begun, want) || !slices.Equal(c.dropped, want[:10-Keep/Step]) || c.wrong {
		t.Errorf("begun %d, dropped %d, wrong %t", c.begun, c.dropped, c.wrong)
	}
	f.wroteAll(10*Step+Step/2, Step/2)
	f.settle()
	f.Close()
	if len(c.begun) != 11 {
		t.Errorf("begun %d", c.begun)
	}
	f.wroteAll(11*Step, Step)
	f.Close()
	if len(c.begun) != 11 {
		t.Errorf("begun after Close: %d", c.begun)
	}
}

// TestFillingInPlaces: writers in several places at once, each of whose writes come in
// no order, fill all blocks.
func TestFillingInPlaces(t *testing.T) {
	t.Parallel()
	const writers, each = 4, 16 // blocks
	c := newCached(t, writers*each*Step)
	f := newFilling(t, c)
	var wg sync.WaitGroup
	for w := range int64(writers) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(w)))
			const window = 16 << 20 / small
			for at := int64(0); at < each*Step/small; at += window {
				for _, i := range rng.Perm(window) {
					f.Wrote(w*each*Step+(at+int64(i))*small, small)
				}
			}
		})
	}
	wg.Wait()
	f.settle()
	if got := slices.Sorted(slices.Values(c.begun)); !slices.Equal(got, numbers(0, writers*each)) || c.wrong {
		t.Errorf("begun %d, wrong %t", got, c.wrong)
	}
	f.Close()
}

// TestFillingSparse: of blocks that holes keep from being full, those go that were not
// touched for the longest.
func TestFillingSparse(t *testing.T) {
	t.Parallel()
	c := newCached(t, 1000*Step)
	f := newFilling(t, c)
	for n := range int64(maxOpen + 100) {
		f.Wrote(n*Step+4096, small)
	}
	f.settle()
	f.Close()
	if !slices.Equal(c.begun, numbers(0, 100)) || c.wrong {
		t.Errorf("begun %d, wrong %t", c.begun, c.wrong)
	}
}

// TestFillingEnds: a guest's disk is left to the kernel.
func TestFillingEnds(t *testing.T) {
	t.Parallel()
	const size = 100 * Step
	for name, c := range map[string]struct {
		act func(f *Filling)
		on  bool
	}{
		"some reads":           {func(f *Filling) { times(maxReads, f.Read) }, true},
		"reads":                {func(f *Filling) { times(maxReads+1, f.Read) }, false},
		"some written again":   {func(f *Filling) { times(maxAgain, func() { f.Wrote(0, 4096) }) }, true},
		"written again":        {func(f *Filling) { times(maxAgain+1, func() { f.Wrote(0, 4096) }) }, false},
		"beyond the old size":  {func(f *Filling) { f.Wrote(64*Step*2, 4096) }, true},
		"written over the end": {func(f *Filling) { f.Wrote(size-1, 4096) }, true},
		"random writes": {func(f *Filling) {
			rng := rand.New(rand.NewPCG(1, 2))
			times(10_000, func() { f.Wrote(rng.Int64N(size/4096)*4096, 4096) })
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newCached(t, size)
			f := newFilling(t, d)
			f.wroteAll(0, Step)
			f.settle()
			c.act(f)
			f.settle()
			before := len(d.begun)
			f.wroteAll(50*Step, 3*Step)
			f.settle()
			f.Close()
			if on := len(d.begun) > before; on != c.on {
				t.Errorf("%d blocks written out after it", len(d.begun)-before)
			}
		})
	}
}

func times(n int, f func()) {
	for range n {
		f()
	}
}

// TestFillingFails: an error ends it.
func TestFillingFails(t *testing.T) {
	t.Parallel()
	c := newCached(t, 100*Step)
	c.err = syscall.EIO
	f := newFilling(t, c)
	f.wroteAll(0, Step)
	f.settle()
	f.wroteAll(Step, 10*Step)
	f.Close()
	if len(c.begun) != 1 {
		t.Errorf("begun %d", c.begun)
	}
}

// TestFillingHuge: what it costs depends on what is written, not on the disk's size: a
// sparse file may have 8 EiB.
func TestFillingHuge(t *testing.T) {
	c := newCached(t, Step)
	c.info.Size = 1<<63 - 1
	d := disk.New(c, "huge")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f := NewFilling(d)
	f.wroteAll(1<<62, 2*Step)
	f.settle()
	runtime.ReadMemStats(&after)
	f.Close()
	if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 || len(c.begun) != 2 {
		t.Errorf("%d bytes allocated, begun %d", used, c.begun)
	}
}

// TestNoFilling: not for a disk that holds something, that cannot be written, or that has
// no page cache.
func TestNoFilling(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(c *cached){
		"not empty": func(c *cached) { c.info.KnownZero = false },
		"read-only": func(c *cached) { c.info.ReadOnly = true },
		"no cache":  func(c *cached) { c.refuses = true },
	} {
		c := newCached(t, Step)
		change(c)
		if NewFilling(disk.New(c, name)) != nil {
			t.Errorf("%s: there is one", name)
		}
	}
	var f *Filling
	f.Wrote(0, 1)
	f.Read()
	f.Close()
	if c := newCached(t, Step); NewFilling(c.Disk) != nil {
		t.Error("a disk in memory has one")
	}
}

// TestFillingAllocations: what is over, or only counts, allocates nothing.
func TestFillingAllocations(t *testing.T) {
	c := newCached(t, 100*Step)
	f := newFilling(t, c)
	f.Wrote(0, 512)
	if n := testing.AllocsPerRun(1000, func() { f.Wrote(4096, 512) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	f.Close()
}
