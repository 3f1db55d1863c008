package main

import (
	"context"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
)

// asked counts how often it was asked for extents.
type asked struct {
	disk.Driver
	size  int64
	calls int
}

func (a *asked) Info() disk.Info {
	return disk.Info{Size: a.size, Maps: []disk.MapName{disk.Allocation}}
}

func (a *asked) Extents(ctx context.Context, m disk.MapName, off, n int64, dst []disk.Extent) ([]disk.Extent, error) {
	a.calls++
	dst = dst[:0:cap(dst)]
	for ; n > 0 && len(dst) < min(cap(dst), disk.ExtentBatch); off, n = off+4096, n-4096 {
		dst = append(dst, disk.Extent{Len: 4096, Flags: disk.ExtentFlags(off/4096%2) * disk.ExtentZero})
	}
	return dst, nil
}

// A server looks up a whole answer each time, however much of it is wanted.
func TestMapAsksOnce(t *testing.T) {
	t.Parallel()
	const extents = 2*disk.ExtentBatch + 2
	a, segments := &asked{size: extents * 4096}, 0
	v := mapFlag(disk.Allocation).view()
	err := v.walk(context.Background(), disk.New(a, "asked"), func(segment) error { segments++; return nil })
	if err != nil || segments != extents || a.calls != 3 {
		t.Errorf("%d segments by %d calls (error %v), want %d by 3", segments, a.calls, err, extents)
	}
}
