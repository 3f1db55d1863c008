package rate

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

// Config is the filter's parameters: bytes and bytes per second, 0 meaning none.
type Config struct {
	Read  int64 // read-rate, or else rate
	Write int64 // write-rate, or else rate
	Burst int64
}

// bucket holds tokens, one for each byte. A request takes its tokens at once,
// if need be on credit, and waits until the credit is paid back.
type bucket struct {
	rate  float64 // tokens per second; 0: unlimited
	burst float64

	mu     sync.Mutex
	tokens float64
	filled time.Time // when tokens was right
}

func newBucket(rate, burst int64) *bucket {
	b := &bucket{rate: float64(rate), burst: float64(burst), filled: time.Now()}
	if burst == 0 {
		b.burst = b.rate / 10
	}
	b.tokens = b.burst
	return b
}

// take removes n tokens and returns how long to wait until they were there.
func (b *bucket) take(n int64, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if elapsed := now.Sub(b.filled); elapsed > 0 {
		b.tokens = min(b.tokens+elapsed.Seconds()*b.rate, b.burst)
		b.filled = now
	}
	owed := min(float64(n), b.burst) - b.tokens // what is beyond a full bucket is paid by those after
	b.tokens -= float64(n)
	if owed <= 0 {
		return 0
	}
	return time.Duration(owed / b.rate * float64(time.Second))
}

// give returns the tokens of a request that was cancelled while it waited.
func (b *bucket) give(n int64) {
	b.mu.Lock()
	b.tokens = min(b.tokens+float64(n), b.burst)
	b.mu.Unlock()
}

func (b *bucket) wait(ctx context.Context, n int64) error {
	if b.rate == 0 {
		return ctx.Err()
	}
	d := b.take(n, time.Now())
	if d == 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		b.give(n)
		return ctx.Err()
	}
}

type filter struct {
	disk.Driver
	child       *disk.Disk
	read, write *bucket
}

// New puts the filter over child, which it owns from here on unless it fails.
func New(child *disk.Disk, cfg Config) (*disk.Disk, error) {
	if cfg.Read < 0 || cfg.Write < 0 || cfg.Burst < 0 {
		return nil, fmt.Errorf("rates of %d and %d, burst of %d: they must not be negative", cfg.Read, cfg.Write, cfg.Burst)
	}
	return disk.New(&filter{Driver: child, child: child,
		read: newBucket(cfg.Read, cfg.Burst), write: newBucket(cfg.Write, cfg.Burst)}, child.Name()), nil
}

// ReadAt implements disk.Driver.
func (f *filter) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := f.read.wait(ctx, int64(len(p))); err != nil {
		return err
	}
	return f.child.ReadAt(ctx, p, off)
}

// WriteAt implements disk.Driver.
func (f *filter) WriteAt(ctx context.Context, p []byte, off int64, flags disk.Flags) error {
	if err := f.write.wait(ctx, int64(len(p))); err != nil {
		return err
	}
	return f.child.WriteAt(ctx, p, off, flags)
}

// Unwrap implements disk.Unwrapper.
func (f *filter) Unwrap() *disk.Disk { return f.child }
