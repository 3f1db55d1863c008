package engine

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/mem"
)

// advised is a disk that notes what its page cache would be told.
type advised struct {
	disk.Driver
	mu   sync.Mutex
	told []string
}

func (a *advised) Advise(off, n int64, advice disk.Advice) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	name := map[disk.Advice]string{disk.AdviceDrop: "drop", disk.AdviceRandom: "random", disk.AdviceSequential: "sequential", disk.AdviceNoReuse: "noreuse"}[advice]
	a.told = append(a.told, fmt.Sprintf("%s %d+%d", name, off>>10, n>>10))
	return fmt.Errorf("refused: %w", context.Canceled) // a refusal ends nothing
}

// TestAdvice: the page cache is told what fio tells it: at each opening, and when a job that goes
// on has been over its file.
func TestAdvice(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ job, want string }{
		{"rw=randread\nbs=4k\nsize=64k", "drop 0+64, random 0+64"},
		{"rw=read\nbs=4k\nsize=64k\noffset=64k", "drop 64+64, sequential 64+64"},
		{"rw=read\nbs=4k\nsize=64k\nfadvise_hint=0", "drop 0+64"},
		{"rw=read\nbs=4k\nsize=64k\nfadvise_hint=random\ninvalidate=0", "random 0+64"},
		{"rw=randread\nbs=4k\nsize=64k\nfadvise_hint=noreuse\ndirect=1", "drop 0+64, noreuse 0+64"},
		{"rw=randread\nbs=4k\nsize=64k\nloops=2", "drop 0+64, random 0+64, drop 0+64, random 0+64"},
		{"rw=randread\nbs=4k\nsize=64k\ntime_based\nruntime=60\nnumber_ios=40", "drop 0+64, random 0+64, drop 0+64, drop 0+64"},
		{"rw=randread\nbs=4k\nsize=64k\ntime_based\nruntime=60\nnumber_ios=40\ndirect=1", "drop 0+64, random 0+64"},
		{"rw=read\nbs=4k\nsize=64k\ntime_based\nruntime=60\nnumber_ios=40", "drop 0+64, sequential 0+64, drop 0+64, drop 0+64"},
		{"rw=randread\nbs=4k\nsize=64k\ntime_based\nruntime=60\nnumber_ios=40\nnorandommap", "drop 0+64, random 0+64"},
		{"rw=randread\nbs=4k\nsize=64k\nio_size=160k", "drop 0+64, random 0+64"},
	} {
		t.Run(strings.ReplaceAll(c.job, "\n", " "), func(t *testing.T) {
			t.Parallel()
			below, err := mem.Open(1 << 20)
			if err != nil {
				t.Fatal(err)
			}
			inner, ok := disk.As[disk.Driver](below)
			if !ok {
				t.Fatal("no driver")
			}
			a := &advised{Driver: inner}
			d := disk.New(a, "advised")
			defer d.Close()
			runOn(t, func(context.Context, OpenRequest) (*disk.Disk, error) { return d, nil }, "[j]\nioengine=psync\n"+c.job)
			if got := strings.Join(a.told, ", "); got != c.want {
				t.Errorf("told %q, want %q", got, c.want)
			}
		})
	}
}
