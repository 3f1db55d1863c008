package engine

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
)

// counted counts the writes that reach a disk that keeps nothing.
type counted struct {
	faulty
	writes atomic.Int64
}

func (c *counted) WriteAt(context.Context, []byte, int64, disk.Flags) error {
	c.writes.Add(1)
	return nil
}

// TestGate: nothing is issued before the gate opens, nor if it never does.
func TestGate(t *testing.T) {
	t.Parallel()
	for _, refusal := range []error{nil, errors.New("closed")} {
		c := &counted{}
		d := disk.New(c, "counted")
		calls, before := 0, int64(-1)
		r, err := Run(t.Context(), Config{
			Plan: planOf(t, "[j]\nrw=write\nbs=4k\nsize=64k\n[k]\nstonewall\nrw=write\nbs=4k\nsize=64k\n"), OneDisk: true,
			Open:  func(context.Context, OpenRequest) (*disk.Disk, error) { return d, nil },
			Close: func(*disk.Disk) error { return nil },
			Gate: func(context.Context) error {
				calls++
				before = c.writes.Load()
				return refusal
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if calls != 1 || before != 0 {
			t.Errorf("the gate was called %d times, after %d writes", calls, before)
		}
		if got := r.Jobs[0].Dirs[1].IOs; refusal == nil && got != 16 || refusal != nil && got != 0 {
			t.Errorf("gate %v: %d writes", refusal, got)
		}
		if refusal != nil && (!r.Jobs[0].Interrupted || !r.Jobs[1].Interrupted || c.writes.Load() != 0) {
			t.Error("the run is not marked as interrupted")
		}
		if r.Opened <= 0 {
			t.Error("no time of opening")
		}
	}
}
