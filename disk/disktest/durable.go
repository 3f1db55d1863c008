package disktest

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
)

// Durable proves that a layer passes durability on: it puts stack over a [Crash]
// disk, does random changes and flushes, cuts the power, and looks at what is
// left. Whatever was flushed or written with FUA must be there, or something that
// was written later. stack owns the disk it is given, and may return it as it is.
func Durable(t *testing.T, stack func(tb testing.TB, below *disk.Disk) *disk.Disk, opt Options) {
	t.Helper()
	if opt.Seed == 0 {
		opt.Seed = rand.Uint64()
	}
	if opt.Ops == 0 {
		opt.Ops = 100
	}
	for round := range uint64(10) {
		if err := durableRound(t, stack, opt, round); err != nil {
			t.Fatalf("seed %d, round %d: %v", opt.Seed, round, err)
		}
	}
}

const durableSize = 256 << 10

func durableRound(t *testing.T, stack func(testing.TB, *disk.Disk) *disk.Disk, opt Options, round uint64) error {
	rnd := rand.New(rand.NewPCG(opt.Seed, round))
	crash := NewCrash(CrashConfig{Size: durableSize, Block: 512 << rnd.IntN(4), Seed: rnd.Uint64()})
	d := stack(t, crash.Open())
	h := &history{flushed: make([]byte, durableSize)}
	for range opt.Ops {
		if err := h.step(t, d, rnd); err != nil {
			return err
		}
	}
	crash.PowerLoss()
	_ = d.Close() // whatever it still wants to write is too late
	below := crash.Open()
	got := make([]byte, durableSize)
	if err := below.ReadAt(t.Context(), got, 0); err != nil {
		return err
	}
	return h.check(got)
}

// history is what a disk must and may hold after a power loss.
type history struct {
	flushed []byte
	since   []change // since the last flush, in order
}

type change struct {
	off int64
	p   []byte
	fua bool
}

func (h *history) step(t *testing.T, d *disk.Disk, rnd *rand.Rand) error {
	off := rnd.Int64N(durableSize)
	n := length(rnd, min(20_000, durableSize-off))
	c := change{off: off, p: bytesFor(rnd.Int64(), n), fua: rnd.IntN(6) == 0}
	flags := disk.Flags(0)
	if c.fua {
		flags = disk.FUA
	}
	var err error
	switch rnd.IntN(10) {
	case 0:
		if err = d.Flush(t.Context()); err == nil {
			h.flush()
		}
		return err
	case 1, 2, 3:
		clear(c.p)
		err = d.Zero(t.Context(), off, n, flags|disk.MayTrim)
	default:
		err = d.WriteAt(t.Context(), c.p, off, flags)
	}
	h.since = append(h.since, c)
	return err
}

func (h *history) flush() {
	for _, c := range h.since {
		copy(h.flushed[c.off:], c.p)
	}
	h.since = nil
}

// check accepts for each byte the newest durable value or any later one.
func (h *history) check(got []byte) error {
	for i, b := range got {
		if !h.allows(int64(i), b) {
			return fmt.Errorf("offset %d holds %#x, which was neither made durable last nor written since", i, b)
		}
	}
	return nil
}

func (h *history) allows(i int64, b byte) bool {
	for k := len(h.since) - 1; k >= 0; k-- {
		c := &h.since[k]
		if i < c.off || i >= c.off+int64(len(c.p)) {
			continue
		}
		if c.p[i-c.off] == b {
			return true
		}
		if c.fua {
			return false
		}
	}
	return h.flushed[i] == b
}
