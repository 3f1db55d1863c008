package volatile_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
	"github.com/vmdisk/vmdisk/driver/mem"
	"github.com/vmdisk/vmdisk/filter/volatile"
)

func ram(tb testing.TB, size int64) *disk.Disk {
	tb.Helper()
	d, err := mem.Open(size)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// storage outlives the filters over it.
type storage struct{ disk.Driver }

func (storage) Close() error { return nil }

func over(d *disk.Disk) *disk.Disk { return volatile.New(disk.New(storage{d}, "storage")) }

func TestConformance(t *testing.T) {
	for name, edit := range map[string]func(*disk.Info){
		"plain":  func(*disk.Info) {},
		"blocks": func(in *disk.Info) { in.Min, in.MaxIO, in.TrimAlign = 16384, 100_000, 65536 },
		"poor": func(in *disk.Info) {
			in.Zero, in.FastZero, in.Trim, in.FUA, in.Maps, in.KnownZero = 0, 0, 0, 0, nil, false
		},
	} {
		t.Run(name, func(t *testing.T) {
			disktest.Conformance(t, func(tb testing.TB) *disk.Disk {
				d, _ := disktest.Strict(ram(tb, 2<<20+100), edit)
				return volatile.New(d)
			}, disktest.Options{})
		})
	}
}

// The longest disk: nothing may walk over its blocks one by one.
func TestConformanceLarge(t *testing.T) {
	disktest.Conformance(t, func(tb testing.TB) *disk.Disk { return volatile.New(ram(tb, 8<<40)) }, disktest.Options{Ops: 50})
}

func read(t *testing.T, d *disk.Disk, off, n int64) []byte {
	t.Helper()
	p := make([]byte, n)
	if err := d.ReadAt(t.Context(), p, off); err != nil {
		t.Fatal(err)
	}
	return p
}

// Only what was flushed survives, and all of it.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	const size, blocks = 1 << 20, 256
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		below := ram(t, size)
		d := over(below)
		now, flushed := make([]byte, size), make([]byte, size)
		for range 100 {
			off := rnd.Int64N(blocks) * 4096
			n := (1 + rnd.Int64N(min(16, blocks-off/4096))) * 4096
			p := bytes.Repeat([]byte{byte(rnd.Uint32()) | 1}, int(n))
			flags := disk.Flags(0)
			if rnd.IntN(8) == 0 {
				flags = disk.FUA
			}
			var err error
			switch rnd.IntN(4) {
			case 0:
				clear(p)
				err = d.Zero(t.Context(), off, n, flags|disk.MayTrim)
			case 1:
				if rnd.IntN(5) == 0 {
					err = d.Flush(t.Context())
					copy(flushed, now)
				}
				p = nil
			default:
				err = d.WriteAt(t.Context(), p, off, flags)
			}
			if err != nil {
				t.Fatal(err)
			}
			copy(now[off:], p)
			if flags&disk.FUA != 0 {
				copy(flushed[off:], p)
			}
		}
		if !bytes.Equal(read(t, d, 0, size), now) {
			t.Fatalf("seed %d: the disk does not hold what was written", seed)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(read(t, over(below), 0, size), flushed) {
			t.Fatalf("seed %d: after the loss the disk does not hold what was flushed", seed)
		}
	}
}

func TestTrimAndLongZero(t *testing.T) {
	t.Parallel()
	below := ram(t, 1<<30)
	d := over(below)
	ctx := t.Context()
	ones := bytes.Repeat([]byte{1}, 65536)
	for _, off := range []int64{0, 1 << 20, 512 << 20} {
		if err := d.WriteAt(ctx, ones, off, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Zero(ctx, 1<<20, 900<<20, disk.MayTrim); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, d, 512<<20, 65536), make([]byte, 65536)) {
		t.Error("a long zero did not zero what was held back")
	}
	if !bytes.Equal(read(t, d, 0, 65536), ones) {
		t.Error("a long zero zeroed its neighbour")
	}
	if err := d.Trim(ctx, 0, 32768, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, below, 32768, 32768), ones[:32768]) {
		t.Error("a trim took its neighbour along")
	}
}

// failing fails writes while it is told to.
type failing struct {
	disk.Driver
	fail bool
}

func (f *failing) WriteAt(ctx context.Context, p []byte, off int64, flags disk.Flags) error {
	if f.fail {
		return syscall.EIO
	}
	return f.Driver.WriteAt(ctx, p, off, flags)
}

// A failed flush is told, stays told, and what it could not write is still read.
func TestFailedFlush(t *testing.T) {
	t.Parallel()
	f := &failing{Driver: ram(t, 1<<20), fail: true}
	d := volatile.New(disk.New(f, "failing"))
	p := bytes.Repeat([]byte{7}, 8192)
	if err := d.WriteAt(t.Context(), p, 4096, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.WriteAt(t.Context(), p[:1], 100_000, disk.FUA); !errors.Is(err, syscall.EIO) {
		t.Errorf("FUA: %v", err)
	}
	if err := d.Flush(t.Context()); !errors.Is(err, syscall.EIO) {
		t.Errorf("flush: %v", err)
	}
	f.fail = false
	if err := d.Flush(t.Context()); !errors.Is(err, syscall.EIO) {
		t.Errorf("the flush after a failed one: %v", err)
	}
	if !bytes.Equal(read(t, d, 4096, 8192), p) {
		t.Error("what was not written is gone")
	}
}

// Writes that come while a flush runs are neither lost nor taken for flushed.
func TestFlushWhileWriting(t *testing.T) {
	t.Parallel()
	below := ram(t, 1<<20)
	d := over(below)
	var group sync.WaitGroup
	for w := range int64(4) {
		group.Go(func() {
			for i := range 300 {
				p := bytes.Repeat([]byte{byte(i)}, 4096)
				flags := disk.Flags(0)
				if i%7 == 0 {
					flags = disk.FUA
				}
				if err := d.WriteAt(t.Context(), p, w*4096, flags); err != nil {
					t.Error(err)
				}
				if flags == 0 && i%5 != 0 {
					continue
				}
				if flags == 0 {
					if err := d.Flush(t.Context()); err != nil {
						t.Error(err)
					}
				}
				got := make([]byte, 4096)
				if err := below.ReadAt(t.Context(), got, w*4096); err != nil || !bytes.Equal(got, p) {
					t.Errorf("writer %d, round %d: what was flushed is not below (%v)", w, i, err)
				}
			}
		})
	}
	group.Wait()
}

func TestDurable(t *testing.T) {
	t.Parallel()
	disktest.Durable(t, func(_ testing.TB, d *disk.Disk) *disk.Disk { return volatile.New(d) }, disktest.Options{Ops: 300})
}

func Example() {
	d, _ := mem.Open(1 << 20)
	ctx, v := context.Background(), volatile.New(disk.New(storage{d}, "storage"))
	_ = v.WriteAt(ctx, []byte("kept"), 0, 0)
	_ = v.Flush(ctx)
	_ = v.WriteAt(ctx, []byte("lost"), 0, 0)
	_ = v.Close() // or SIGKILL
	p := make([]byte, 4)
	_ = d.ReadAt(ctx, p, 0)
	fmt.Printf("%s\n", p)
	// Output: kept
}
