package rate_test

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
	"github.com/vmdisk/vmdisk/filter/rate"
)

func open(tb testing.TB, cfg rate.Config) *disk.Disk {
	tb.Helper()
	d, err := mem.Open(4<<20 + 100)
	if err != nil {
		tb.Fatal(err)
	}
	d, err = rate.New(d, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

func TestConformance(t *testing.T) {
	for name, cfg := range map[string]rate.Config{
		"unlimited": {},
		"limited":   {Read: 2 << 30, Write: 2 << 30, Burst: 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			disktest.Conformance(t, func(tb testing.TB) *disk.Disk { return open(tb, cfg) }, disktest.Options{Ops: 100})
		})
	}
}

// Four readers at once share the rate: 1 MiB at 4 MiB/s, less the burst of an
// eighth, takes no less than 7/32 s; a last request of a quarter is let through
// in debt, so 6/32 s then.
func TestRate(t *testing.T) {
	t.Parallel()
	for size, least := range map[int]time.Duration{4096: 215 * time.Millisecond, 256 << 10: 185 * time.Millisecond} {
		d := open(t, rate.Config{Read: 4 << 20, Burst: 128 << 10})
		start := time.Now()
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				for range 256 << 10 / size {
					if err := d.ReadAt(t.Context(), make([]byte, size), 0); err != nil {
						t.Error(err)
					}
				}
			})
		}
		group.Wait()
		if took := time.Since(start); took < least {
			t.Errorf("1 MiB in reads of %d took %v", size, took)
		}
	}
}

func TestDirections(t *testing.T) {
	t.Parallel()
	d := open(t, rate.Config{Write: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := d.ReadAt(t.Context(), make([]byte, 1<<20), 0); err != nil {
		t.Error(err)
	}
	if err := d.Zero(t.Context(), 0, 1<<20, 0); err != nil {
		t.Error(err)
	}
	_ = d.WriteAt(t.Context(), make([]byte, 3600), 0, 0) // the bucket is full: it passes, in debt
	if err := d.WriteAt(ctx, make([]byte, 1), 0, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a write beyond the rate: %v", err)
	}
	if err := d.TryWrite(make([]byte, 1), 0, 0); err != disk.ErrWouldBlock {
		t.Errorf("an inline write past the limit: %v", err)
	}
	if _, ok := d.FileRange(0, 1, true); ok {
		t.Error("a file range past the limit")
	}
}

func TestNegative(t *testing.T) {
	t.Parallel()
	if _, err := rate.New(nil, rate.Config{Burst: -1}); err == nil {
		t.Error("a negative burst was accepted")
	}
}

func TestDurable(t *testing.T) {
	t.Parallel()
	disktest.Durable(t, func(tb testing.TB, d *disk.Disk) *disk.Disk {
		d, err := rate.New(d, rate.Config{Write: 1 << 30})
		if err != nil {
			tb.Fatal(err)
		}
		return d
	}, disktest.Options{})
}

func Example() {
	d, _ := mem.Open(1 << 20)
	slow, _ := rate.New(d, rate.Config{Read: 100 << 20, Write: 50 << 20})
	fmt.Println(slow.WriteAt(context.Background(), make([]byte, 65536), 0, 0))
	// Output: <nil>
}
