package diskcopy

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/mem"
	"github.com/vmdisk/vmdisk/filter/delay"
	"github.com/vmdisk/vmdisk/filter/noextents"
	"github.com/vmdisk/vmdisk/filter/nozero"
)

// remote is what a server shows its client of a disk, with counters: whether
// the disk is known to be zero stays behind, and offers are taken at their word.
type remote struct {
	child                                    *disk.Disk
	writes, zeroes, refused, reads, statuses atomic.Int64
	wrote, zeroed                            atomic.Int64
	onWrite                                  func(off, n int64) error
	flushes                                  atomic.Int64
	keep                                     bool // leave the child open
}

func (r *remote) Info() disk.Info {
	in := r.child.Info()
	in.KnownZero = false
	if in.Zero != disk.None {
		in.Zero = disk.Native
	}
	if in.HideZero {
		in.Zero, in.FastZero = disk.None, disk.None
	}
	if in.FastZero != disk.None {
		in.FastZero = disk.Native
	}
	return in
}

func (r *remote) ReadAt(ctx context.Context, p []byte, off int64) error {
	r.reads.Add(1)
	return r.child.ReadAt(ctx, p, off)
}

func (r *remote) WriteAt(ctx context.Context, p []byte, off int64, f disk.Flags) error {
	if r.onWrite != nil {
		if err := r.onWrite(off, int64(len(p))); err != nil {
			return err
		}
	}
	r.writes.Add(1)
	r.wrote.Add(int64(len(p)))
	return r.child.WriteAt(ctx, p, off, f)
}

func (r *remote) Zero(ctx context.Context, off, n int64, f disk.Flags) error {
	err := r.child.Zero(ctx, off, n, f)
	if err != nil {
		r.refused.Add(1)
		return err
	}
	r.zeroes.Add(1)
	r.zeroed.Add(n)
	return nil
}

func (r *remote) Trim(ctx context.Context, off, n int64, f disk.Flags) error {
	return r.child.Trim(ctx, off, n, f)
}

func (r *remote) Flush(ctx context.Context) error {
	r.flushes.Add(1)
	return r.child.Flush(ctx)
}

func (r *remote) Extents(ctx context.Context, m disk.MapName, off, n int64, dst []disk.Extent) ([]disk.Extent, error) {
	r.statuses.Add(1)
	return r.child.Extents(ctx, m, off, n, dst)
}

func (r *remote) Close() error {
	if r.keep {
		return nil
	}
	return r.child.Close()
}

const mib = 1 << 20

// shaped is a disk whose Info says something else.
type shaped struct {
	remote
	shape func(*disk.Info)
}

func (s *shaped) Info() disk.Info {
	in := s.remote.Info()
	s.shape(&in)
	return in
}

func memDisk(t testing.TB, size int64) *disk.Disk {
	t.Helper()
	d, err := mem.Open(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// noise is bytes without a zero among them.
var noise = sync.OnceValue(func() []byte {
	p := make([]byte, 2*mib)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range p {
		p[i] = byte(r.Uint32N(255) + 1)
	}
	return p
})

// fill writes bytes that contain no zero and depend on seed and place.
func fill(t testing.TB, d *disk.Disk, off, n int64, seed int64) {
	t.Helper()
	for n > 0 {
		part := min(n, mib)
		at := (seed*4099 + off/mib*127) % mib
		if err := d.WriteAt(context.Background(), noise()[at:at+part], off, 0); err != nil {
			t.Fatal(err)
		}
		off, n = off+part, n-part
	}
}

// striped is the study's image: 100 MiB, data and holes in turn, 1 MiB each.
func striped(t testing.TB) *disk.Disk {
	d := memDisk(t, 100*mib)
	for i := int64(0); i < 100; i += 2 {
		fill(t, d, i*mib, mib, i)
	}
	return d
}

// studyServer builds the study's target and the view its client has. Writes take
// time, so that measuring them means something on a busy machine.
func studyServer(t testing.TB, size int64, zm nozero.ZeroMode, fm nozero.FastZeroMode, status bool, write time.Duration) (*remote, *disk.Disk) {
	t.Helper()
	below := memDisk(t, size)
	fill(t, below, 0, size, 77)
	if status {
		if err := below.Zero(context.Background(), 0, size, disk.MayTrim); err != nil {
			t.Fatal(err)
		}
	}
	d, err := delay.New(below, delay.Config{Write: write})
	if err != nil {
		t.Fatal(err)
	}
	if d, err = nozero.New(d, nozero.Config{ZeroMode: zm, FastZeroMode: fm}); err != nil {
		t.Fatal(err)
	}
	if !status {
		d = noextents.New(d)
	}
	r := &remote{child: d}
	return r, disk.New(r, "remote")
}

func mustEqual(t testing.TB, a, b *disk.Disk) {
	t.Helper()
	c, err := Compare(context.Background(), a, b, CompareOptions{Length: min(a.Size(), b.Size())})
	if err != nil {
		t.Fatal(err)
	}
	if !c.Equal {
		t.Fatalf("the disks differ at offset %d", c.Offset)
	}
}

// failing is a disk some of whose operations fail.
type failing struct {
	remote
	readErr, writeErr, zeroErr, flushErr, extentsErr error
	after                                            atomic.Int64 // operations that still work
}

func (f *failing) fault(err error) error {
	if err != nil && f.after.Add(-1) < 0 {
		return err
	}
	return nil
}

func (f *failing) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := f.fault(f.readErr); err != nil {
		return err
	}
	return f.remote.ReadAt(ctx, p, off)
}

func (f *failing) WriteAt(ctx context.Context, p []byte, off int64, fl disk.Flags) error {
	if err := f.fault(f.writeErr); err != nil {
		return err
	}
	return f.remote.WriteAt(ctx, p, off, fl)
}

func (f *failing) Zero(ctx context.Context, off, n int64, fl disk.Flags) error {
	if err := f.fault(f.zeroErr); err != nil {
		return err
	}
	return f.remote.Zero(ctx, off, n, fl)
}

func (f *failing) Flush(ctx context.Context) error {
	if err := f.fault(f.flushErr); err != nil {
		return err
	}
	return f.remote.Flush(ctx)
}

func (f *failing) Extents(ctx context.Context, m disk.MapName, off, n int64, dst []disk.Extent) ([]disk.Extent, error) {
	if err := f.fault(f.extentsErr); err != nil {
		return dst, err
	}
	return f.remote.Extents(ctx, m, off, n, dst)
}
