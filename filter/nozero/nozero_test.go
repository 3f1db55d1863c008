package nozero_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
	"github.com/vmdisk/vmdisk/driver/mem"
	"github.com/vmdisk/vmdisk/filter/nozero"
)

var (
	zeroModes = []nozero.ZeroMode{nozero.ZeroNone, nozero.ZeroEmulate, nozero.ZeroNoTrim, nozero.ZeroPlugin}
	fastModes = []nozero.FastZeroMode{nozero.FastNone, nozero.FastSlow, nozero.FastIgnore, nozero.FastDefault}
)

func over(tb testing.TB, child *disk.Disk, cfg nozero.Config) *disk.Disk {
	tb.Helper()
	d, err := nozero.New(child, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

func ram(tb testing.TB, size int64) *disk.Disk {
	tb.Helper()
	d, err := mem.Open(size)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

func TestAllocations(t *testing.T) {
	for _, mode := range zeroModes {
		disktest.Allocations(t, over(t, ram(t, 8<<20), nozero.Config{ZeroMode: mode}), "write-4k", "write-256k")
	}
}

func TestConformance(t *testing.T) {
	for _, cfg := range []nozero.Config{{}, {ZeroMode: nozero.ZeroEmulate}, {ZeroMode: nozero.ZeroEmulate, FastZeroMode: nozero.FastIgnore},
		{ZeroMode: nozero.ZeroNoTrim, FastZeroMode: nozero.FastSlow}, {ZeroMode: nozero.ZeroPlugin, FastZeroMode: nozero.FastNone}} {
		t.Run(fmt.Sprintf("%s-%s", cfg.ZeroMode, cfg.FastZeroMode), func(t *testing.T) {
			disktest.Conformance(t, func(tb testing.TB) *disk.Disk { return over(tb, ram(tb, 2<<20+100), cfg) }, disktest.Options{Ops: 100})
		})
	}
}

// recorder notes how zeroing reached the disk below.
type recorder struct {
	disk.Driver
	zeros, writes int
	flags         disk.Flags
}

func (r *recorder) Zero(ctx context.Context, off, n int64, f disk.Flags) error {
	r.zeros++
	r.flags |= f
	return r.Driver.Zero(ctx, off, n, f)
}

func (r *recorder) WriteAt(ctx context.Context, p []byte, off int64, f disk.Flags) error {
	r.writes++
	return r.Driver.WriteAt(ctx, p, off, f)
}

// The whole matrix: what is offered, and what a fast zero and a zero of 3 MiB
// become, each pair as nbdkit's manual has it.
func TestModes(t *testing.T) {
	t.Parallel()
	const refused, served = true, false
	type want struct {
		hide, offered, refused bool
		zeros, writes          int // of the ordinary zero
	}
	none := want{true, false, refused, 0, 12} // 256 KiB writes by the Disk above
	wants := map[nozero.ZeroMode][]want{
		nozero.ZeroNone: {none, none, none, none},
		nozero.ZeroEmulate: {{false, false, refused, 0, 3}, {false, true, refused, 0, 3},
			{false, true, served, 0, 3}, {false, true, refused, 0, 3}},
		nozero.ZeroNoTrim: {{false, false, refused, 1, 0}, {false, true, refused, 1, 0},
			{false, true, served, 1, 0}, {false, true, served, 1, 0}},
		nozero.ZeroPlugin: {{false, false, refused, 1, 0}, {false, true, refused, 1, 0},
			{false, true, served, 1, 0}, {false, true, served, 1, 0}},
	}
	for _, zero := range zeroModes {
		for i, fast := range fastModes {
			r := &recorder{Driver: ram(t, 4<<20)}
			d := over(t, disk.New(r, "recorder"), nozero.Config{ZeroMode: zero, FastZeroMode: fast})
			err := d.Zero(t.Context(), 0, 1<<20, disk.FastOnly)
			if err != nil && (!errors.Is(err, disk.ErrNotFast) || r.zeros+r.writes > 0) {
				t.Errorf("%s, %s: fast zero: %v, after %d zeroes and %d writes", zero, fast, err, r.zeros, r.writes)
			}
			if fast == nozero.FastIgnore && r.flags&disk.FastOnly != 0 {
				t.Errorf("%s, %s: FastOnly was passed on", zero, fast)
			}
			*r = recorder{Driver: r.Driver}
			if err := d.Zero(t.Context(), 0, 3<<20, disk.MayTrim); err != nil {
				t.Error(err)
			}
			if passed := r.flags&disk.MayTrim != 0; passed != (zero == nozero.ZeroPlugin) {
				t.Errorf("%s, %s: MayTrim passed on: %v", zero, fast, passed)
			}
			in := d.Info()
			got := want{in.HideZero, in.FastZero != disk.None, err != nil, r.zeros, r.writes}
			if got != wants[zero][i] {
				t.Errorf("%s, %s:\n got %+v\nwant %+v", zero, fast, got, wants[zero][i])
			}
		}
	}
}

// A zero cannot slip past the filter through a queue.
func TestQueueGoesThrough(t *testing.T) {
	t.Parallel()
	r := &recorder{Driver: ram(t, 4<<20)}
	d := over(t, disk.New(r, "recorder"), nozero.Config{ZeroMode: nozero.ZeroEmulate})
	q, err := d.NewQueue(4)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.Submit([]disk.Op{{Kind: disk.Zero, Len: 1 << 20, Flags: disk.MayTrim}}); err != nil {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	if r.zeros != 0 || r.writes != 1 {
		t.Errorf("%d zeroes and %d writes, want 0 and 1", r.zeros, r.writes)
	}
}

func TestUnknownModes(t *testing.T) {
	t.Parallel()
	for _, cfg := range []nozero.Config{{ZeroMode: "fast"}, {FastZeroMode: "yes"}} {
		if _, err := nozero.New(ram(t, 1), cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

func TestDurable(t *testing.T) {
	t.Parallel()
	disktest.Durable(t, func(tb testing.TB, d *disk.Disk) *disk.Disk {
		return over(tb, d, nozero.Config{ZeroMode: nozero.ZeroEmulate})
	}, disktest.Options{})
}

func Example() {
	d, _ := mem.Open(1 << 20)
	b, _ := nozero.New(d, nozero.Config{ZeroMode: nozero.ZeroEmulate})
	err := b.Zero(context.Background(), 0, 65536, disk.FastOnly)
	fmt.Println(errors.Is(err, disk.ErrNotFast))
	// Output: true
}
