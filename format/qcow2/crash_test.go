package qcow2_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
	"github.com/vmdisk/vmdisk/format/qcow2"
)

const crashSize = 1<<20 + 512

// past is what a disk must and may hold after a power loss: what was flushed last, or
// what was written since.
type past struct {
	flushed []byte
	since   []changed
}

type changed struct {
	off int
	p   []byte // nil: anything
	n   int
}

func (h *past) flush() {
	for _, c := range h.since {
		if c.p != nil {
			copy(h.flushed[c.off:], c.p)
		}
	}
	h.since = nil
}

func (h *past) allows(i int, b byte) bool {
	if h.flushed[i] == b {
		return true
	}
	for _, c := range h.since {
		if i >= c.off && i < c.off+c.n && (c.p == nil || c.p[i-c.off] == b) {
			return true
		}
	}
	return false
}

// step changes the disk at random.
func (h *past) step(tb testing.TB, d *disk.Disk, rnd *rand.Rand) error {
	off := rnd.IntN(crashSize)
	n := 1 + rnd.IntN(min(100_000>>(rnd.IntN(4)*3), crashSize-off))
	ctx := tb.Context()
	c := changed{off: off, n: n, p: make([]byte, n)}
	switch rnd.IntN(12) {
	case 0, 1, 2:
		err := d.Flush(ctx)
		if err == nil {
			h.flush()
		}
		return err
	case 3:
		h.since = append(h.since, c)
		return d.Zero(ctx, int64(off), int64(n), 0)
	case 4:
		h.since = append(h.since, c)
		return d.Zero(ctx, int64(off), int64(n), disk.MayTrim)
	case 5:
		// What a trim leaves is then the disk's content.
		h.since = append(h.since, changed{off: off, n: n})
		if err := d.Trim(ctx, int64(off), int64(n), 0); err != nil {
			return err
		}
		if err := d.ReadAt(ctx, c.p, int64(off)); err != nil {
			return err
		}
		h.since = append(h.since, c)
		return nil
	}
	b := byte(rnd.IntN(256))
	for i := range c.p {
		c.p[i] = b + byte((off+i)>>9)
	}
	h.since = append(h.since, c)
	return d.WriteAt(ctx, c.p, int64(off), 0)
}

// Whatever is lost at a power loss, and wherever it comes: what was flushed is there, each
// other byte is one that was there before or was written, and the image has leaks at the most.
func TestPowerLoss(t *testing.T) {
	rounds := uint64(40)
	if testing.Short() {
		rounds = 5
	}
	for name, o := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			for round := range rounds {
				powerLoss(t, o, seed, round)
				if t.Failed() {
					t.Fatalf("seed %d, round %d", seed, round)
				}
			}
		})
	}
}

func powerLoss(t *testing.T, o qcow2.CreateOptions, seed, round uint64) {
	rnd := rand.New(rand.NewPCG(seed, round))
	h := &past{flushed: make([]byte, crashSize)}
	o.Size = crashSize
	q := qcow2.Options{}
	if o.Preallocation == "" && rnd.IntN(2) == 0 {
		base := mixed(700_000, seed)
		copy(h.flushed, base)
		o.Backing, o.BackingFormat = "base", "raw"
		q.Backing = func(ctx context.Context, _, _ string) (*disk.Disk, error) { return inMemory(t, base), nil }
	}
	var crash *disktest.Crash
	left := -1
	crash = disktest.NewCrash(disktest.CrashConfig{Size: 32 << 20, Block: 512 << rnd.IntN(4), Seed: rnd.Uint64(),
		Fail: func(disk.Kind, int64, int64) error {
			if left--; left == 0 {
				crash.PowerLoss()
			}
			return nil
		}})
	child := crash.Open()
	if err := qcow2.Create(t.Context(), child, o); err != nil {
		t.Fatal(err)
	}
	d, err := qcow2.Open(t.Context(), child, q)
	if err != nil {
		t.Fatal(err)
	}
	left = 1 + rnd.IntN(400)
	for range 150 {
		if err = h.step(t, d, rnd); err != nil {
			break
		}
	}
	if err == nil && rnd.IntN(3) == 0 {
		if d.Close() == nil {
			h.flush()
		}
	}
	crash.PowerLoss()
	_ = d.Close()
	left = -1
	survivor(t, crash.Open(), o, q, h)
}

// survivor looks at what is left.
func survivor(t *testing.T, child *disk.Disk, o qcow2.CreateOptions, q qcow2.Options, h *past) {
	p := make([]byte, child.Size())
	if err := child.ReadAt(t.Context(), p, 0); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "left")
	if err := os.WriteFile(path, p, 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(path)
	if o.Backing != "" {
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), o.Backing), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	q.ReadOnly = true
	d, err := qcow2.Open(t.Context(), child, q)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, crashSize)
	if err := d.ReadAt(t.Context(), got, 0); err != nil {
		t.Fatal(err)
	}
	for i, b := range got {
		if !h.allows(i, b) {
			t.Errorf("offset %d holds %#x, which was neither flushed last nor written since", i, b)
			break
		}
	}
	args := []string{"check", "-f", "qcow2", path}
	if o.LazyRefcounts {
		args = []string{"check", "-q", "-r", "all", "-f", "qcow2", path}
	}
	out, err := exec.Command("qemu-img", args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 3) {
		t.Errorf("qemu-img check: %v\n%.2000s", err, out)
	}
}
