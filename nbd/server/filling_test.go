package server_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/behind"
	"github.com/vmdisk/vmdisk/nbd"
)

// tellable is an empty disk that is told what to write out.
type tellable struct {
	*below
	begun, dropped atomic.Int64 // bytes
}

func (d *tellable) Info() disk.Info {
	in := d.below.Info()
	in.KnownZero = true
	return in
}

func (d *tellable) WriteBehind(_, n int64, drop bool) error {
	if drop {
		d.dropped.Add(n)
	} else {
		d.begun.Add(n)
	}
	return nil
}

// TestFilledDisk: a disk that clients fill is written out meanwhile, one that they read
// from is not.
func TestFilledDisk(t *testing.T) {
	t.Parallel()
	const size = 16 * behind.Step
	for name, reads := range map[string]int{"filled": 0, "looked at": 5, "used": 100} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &tellable{below: &below{d: memDisk(t, size)}}
			p := serveDisk(t, disk.New(d, "tellable")).connect(t, nbd.Structured, "d")
			for i := range reads {
				p.do(nbd.Request{Command: nbd.CmdRead, Cookie: uint64(i), Length: 512}, nil)
			}
			const piece = 1 << 20
			payload := make([]byte, piece)
			for off := uint64(0); off < size; off += piece {
				if got := p.do(nbd.Request{Command: nbd.CmdWrite, Cookie: off, Offset: off, Length: piece}, payload); got.errno != nbd.OK {
					t.Fatal(got.errno)
				}
			}
			for limit := time.Now().Add(patience); name != "used" && d.begun.Load() < size && time.Now().Before(limit); {
				time.Sleep(time.Millisecond)
			}
			if begun, dropped := d.begun.Load(), d.dropped.Load(); name == "used" && begun > 0 || name != "used" && (begun != size || dropped == 0) {
				t.Errorf("%d bytes begun, %d dropped", begun, dropped)
			}
		})
	}
}
