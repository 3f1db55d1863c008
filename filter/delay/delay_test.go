package delay_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
	"github.com/vmdisk/vmdisk/driver/mem"
	"github.com/vmdisk/vmdisk/filter/delay"
)

func open(tb testing.TB, cfg delay.Config) *disk.Disk {
	tb.Helper()
	d, err := mem.Open(2<<20 + 100)
	if err != nil {
		tb.Fatal(err)
	}
	d, err = delay.New(d, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

func TestConformance(t *testing.T) {
	const short = 20 * time.Microsecond
	for name, cfg := range map[string]delay.Config{
		"none": {},
		"all":  {Read: short, Write: short, Zero: short, Trim: short, Flush: short, Extents: short, Cache: short, Open: short, Close: short},
	} {
		t.Run(name, func(t *testing.T) {
			disktest.Conformance(t, func(tb testing.TB) *disk.Disk { return open(tb, cfg) }, disktest.Options{Ops: 100})
		})
	}
}

// Each operation takes its own delay: all others have one that fails the test.
func TestEachOperation(t *testing.T) {
	t.Parallel()
	const d = 30 * time.Millisecond
	p := make([]byte, 4096)
	for name, c := range map[string]struct {
		cfg delay.Config
		op  func(context.Context, *disk.Disk) error
	}{
		"read":   {delay.Config{Read: d}, func(ctx context.Context, x *disk.Disk) error { return x.ReadAt(ctx, p, 0) }},
		"vector": {delay.Config{Read: d}, func(ctx context.Context, x *disk.Disk) error { return x.Readv(ctx, [][]byte{p}, 0) }},
		"write":  {delay.Config{Write: d}, func(ctx context.Context, x *disk.Disk) error { return x.WriteAt(ctx, p, 0, disk.FUA) }},
		"zero":   {delay.Config{Zero: d}, func(ctx context.Context, x *disk.Disk) error { return x.Zero(ctx, 0, 4096, disk.FastOnly) }},
		"trim":   {delay.Config{Trim: d}, func(ctx context.Context, x *disk.Disk) error { return x.Trim(ctx, 0, 4096, 0) }},
		"flush":  {delay.Config{Flush: d}, func(ctx context.Context, x *disk.Disk) error { return x.Flush(ctx) }},
		"cache":  {delay.Config{Cache: d}, func(ctx context.Context, x *disk.Disk) error { return x.Cache(ctx, 0, 4096) }},
		"open":   {delay.Config{Open: d}, func(ctx context.Context, x *disk.Disk) error { return x.ReadAt(ctx, p, 0) }},
		"close":  {delay.Config{Close: d}, func(_ context.Context, x *disk.Disk) error { return x.Close() }},
		"extents": {delay.Config{Extents: d}, func(ctx context.Context, x *disk.Disk) error {
			_, err := x.Extents(ctx, disk.Allocation, 0, 1, nil)
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			x := open(t, c.cfg)
			if err := c.op(t.Context(), x); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took < d {
				t.Errorf("took %v, want %v or more", took, d)
			}
			if name == "close" {
				return
			}
			ctx, cancel := context.WithCancel(t.Context())
			hour := open(t, longer(c.cfg))
			time.AfterFunc(time.Millisecond, cancel)
			if err := c.op(ctx, hour); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled: %v", err)
			}
		})
	}
}

// longer makes an hour of every delay.
func longer(c delay.Config) delay.Config {
	for _, d := range []*time.Duration{&c.Read, &c.Write, &c.Zero, &c.Trim, &c.Flush, &c.Extents, &c.Cache, &c.Open} {
		if *d > 0 {
			*d = time.Hour
		}
	}
	return c
}

func TestNothingGoesPast(t *testing.T) {
	t.Parallel()
	d := open(t, delay.Config{Read: time.Hour})
	if err := d.TryRead(make([]byte, 512), 0); err != disk.ErrWouldBlock {
		t.Errorf("an inline read past the delay: %v", err)
	}
	if _, ok := d.FileRange(0, 512, false); ok {
		t.Error("a file range past the delay")
	}
	q, err := d.NewQueue(1)
	if err != nil {
		t.Fatal(err)
	}
	ops := []disk.Op{{Kind: disk.Read, Len: 512, Vec: [][]byte{make([]byte, 512)}}}
	if _, err := q.Submit(ops); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	done := make([]disk.Completion, 1)
	if n, _ := q.Reap(ctx, 1, done); n != 0 {
		t.Error("a queued read past the delay")
	}
	q.Cancel(0)
	if n, err := q.Reap(t.Context(), 1, done); n != 1 || err != nil || !errors.Is(done[0].Err, context.Canceled) {
		t.Errorf("cancelling a delayed read: %d, %v, %v", n, err, done[0].Err)
	}
	if err := q.Close(); err != nil {
		t.Error(err)
	}
}

// Twenty delays at once take about as long as one, far from twenty.
func TestSideBySide(t *testing.T) {
	t.Parallel()
	const d = 100 * time.Millisecond
	x := open(t, delay.Config{Read: d})
	start := time.Now()
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if err := x.ReadAt(context.Background(), make([]byte, 512), 0); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if took := time.Since(start); took < d || took > 15*d {
		t.Errorf("took %v", took)
	}
}

func TestRefuseFastZero(t *testing.T) {
	t.Parallel()
	d := open(t, delay.Config{Zero: time.Hour, RefuseFastZero: true})
	if err := d.Zero(t.Context(), 0, 4096, disk.FastOnly); !errors.Is(err, disk.ErrNotFast) {
		t.Errorf("fast zero: %v", err)
	}
}

func TestNegative(t *testing.T) {
	t.Parallel()
	if _, err := delay.New(nil, delay.Config{Flush: -1}); err == nil {
		t.Error("a negative delay was accepted")
	}
}

func TestDurable(t *testing.T) {
	t.Parallel()
	disktest.Durable(t, func(tb testing.TB, d *disk.Disk) *disk.Disk {
		d, err := delay.New(d, delay.Config{Write: time.Microsecond})
		if err != nil {
			tb.Fatal(err)
		}
		return d
	}, disktest.Options{})
}

func Example() {
	d, _ := mem.Open(1 << 20)
	slow, _ := delay.New(d, delay.Config{Write: time.Hour})
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	fmt.Println(errors.Is(slow.WriteAt(ctx, []byte("x"), 0, 0), context.DeadlineExceeded))
	// Output: true
}
