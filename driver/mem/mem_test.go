package mem

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
)

const tib = int64(1) << 40

func open(t testing.TB, size int64) (*disk.Disk, *Driver) {
	t.Helper()
	d, err := Open(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	drv, ok := disk.As[*Driver](d)
	if !ok {
		t.Fatal("the driver cannot be reached")
	}
	return d, drv
}

func TestNegativeSize(t *testing.T) {
	t.Parallel()
	if _, err := Open(-1); err == nil {
		t.Fatal("a negative size was accepted")
	}
}

func TestEightTebibytes(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	d, drv := open(t, 8*tib)
	rnd := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 4096)
	written := map[int64]uint64{}
	for _, off := range []int64{0, 4*tib - 4096, 4 * tib, 8*tib - 4096, 1<<29 - 4096, 1 << 29} {
		seed := rnd.Uint64()
		fill(data, seed)
		if err := d.WriteAt(ctx, data, off, 0); err != nil {
			t.Fatal(err)
		}
		written[off] = seed
	}
	got := make([]byte, 4096)
	for off, seed := range written {
		fill(data, seed)
		if err := d.ReadAt(ctx, got, off); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("offset %d: content differs (error %v)", off, err)
		}
	}
	var sum int64
	for _, e := range allExtents(t, d, 64) {
		if e.Flags == 0 {
			sum += e.Len
		}
	}
	if want := int64(len(written)) * 4096; sum != want {
		t.Errorf("the extents hold %d bytes of data, want %d", sum, want)
	}
	if err := d.Zero(ctx, 0, 8*tib, disk.FastOnly); err != nil {
		t.Fatal(err)
	}
	if n := drv.Allocated(); n != 0 {
		t.Errorf("%d bytes are allocated after zeroing the disk", n)
	}
	if e := allExtents(t, d, 1); len(e) != 1 || e[0].Len != 8*tib {
		t.Errorf("extents of the zeroed disk: %v", e)
	}
}

func fill(p []byte, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 7))
	for i := range p {
		p[i] = byte(rnd.Uint32()) | 1
	}
}

// allExtents walks the map in batches of at most room extents and joins neighbours.
func allExtents(t testing.TB, d *disk.Disk, room int) []disk.Extent {
	t.Helper()
	var all []disk.Extent
	buf := make([]disk.Extent, 0, room)
	for off := int64(0); off < d.Size(); {
		got, err := d.Extents(context.Background(), disk.Allocation, off, d.Size()-off, buf)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range got {
			if n := len(all); n > 0 && all[n-1].Flags == e.Flags {
				all[n-1].Len += e.Len
			} else {
				all = append(all, e)
			}
			off += e.Len
		}
	}
	return all
}

func TestExtentsAreExactToPages(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	d, _ := open(t, 1<<20)
	one := []byte{1}
	for _, off := range []int64{4096*3 + 5, 65536 - 1, 65536 + 4096*15} {
		if err := d.WriteAt(ctx, one, off, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Zero(ctx, 65536+4096*15, 4096, 0); err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(allExtents(t, d, 2))
	want := fmt.Sprint([]disk.Extent{{Len: 12288, Flags: 3}, {Len: 4096}, {Len: 45056, Flags: 3}, {Len: 4096}, {Len: 1<<20 - 65536, Flags: 3}})
	if got != want {
		t.Errorf("extents\n got %s\nwant %s", got, want)
	}
}

// A chunk is freed when its last page is zeroed, however small the steps; a
// partly zeroed page stays.
func TestZeroFreesChunks(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	d, drv := open(t, 1<<20)
	if err := d.WriteAt(ctx, make([]byte, 1<<20), 0, 0); err != nil {
		t.Fatal(err)
	}
	if n := drv.Allocated(); n != 1<<20 {
		t.Fatalf("%d bytes allocated, want all", n)
	}
	for off := int64(0); off < 65536; off += 4096 {
		if err := d.Zero(ctx, off, 4096, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Zero(ctx, 65537, 65535*2, 0); err != nil {
		t.Fatal(err)
	}
	if n, want := drv.Allocated(), int64(1<<20-65536); n != want {
		t.Errorf("%d bytes allocated, want %d", n, want)
	}
}

// A chunk takes memory for its first write alone; a later one outside of that
// takes the rest and keeps what was there.
func TestChunksGrow(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, c := range []struct{ first, second, want int64 }{
		{16384, 16384 + 100, 8192}, {16384, 16384 + 8000, 65536}, {16384, 0, 65536}, {0, 65000, 65536}, {61440, 57344, 65536},
	} {
		d, drv := open(t, 1<<20)
		model := make([]byte, 65536)
		for i, off := range []int64{c.first, c.second} {
			p := bytes.Repeat([]byte{byte(i + 1)}, int(min(5000, 65536-off)))
			copy(model[off:], p)
			if err := d.WriteAt(ctx, p, off, 0); err != nil {
				t.Fatal(err)
			}
		}
		got := bytes.Repeat([]byte{0xff}, 65536)
		for off := 0; off < len(got); off += 3000 { // before, across and behind what there is memory for
			if err := d.ReadAt(ctx, got[off:min(off+3000, len(got))], int64(off)); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got, model) {
			t.Errorf("%+v: the content differs", c)
		}
		if n := drv.Allocated(); n != c.want {
			t.Errorf("%+v: %d bytes allocated", c, n)
		}
		if err := d.Zero(ctx, 0, 65536, 0); err != nil || drv.Allocated() != 0 {
			t.Errorf("%+v: %d bytes allocated after zeroing (error %v)", c, drv.Allocated(), err)
		}
	}
}

func TestResize(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	d, _ := open(t, 1<<20)
	gen := d.Info().Gen
	if err := d.WriteAt(ctx, bytes.Repeat([]byte{7}, 1<<20), 0, 0); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{1000, 9 * tib} {
		if err := d.Resize(ctx, size); err != nil {
			t.Fatal(err)
		}
	}
	if d.Size() != 9*tib || d.Info().Gen != gen+2 {
		t.Errorf("size %d generation %d", d.Size(), d.Info().Gen)
	}
	got := make([]byte, 2000)
	if err := d.ReadAt(ctx, got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[:1000], bytes.Repeat([]byte{7}, 1000)) || !bytes.Equal(got[1000:], make([]byte, 1000)) {
		t.Error("the kept part changed, or the cut one came back")
	}
	if err := d.WriteAt(ctx, []byte{1}, 9*tib-1, 0); err != nil {
		t.Fatal(err)
	}
}

func TestExtentsScattered(t *testing.T) {
	t.Parallel()
	const count = 100_000
	const apart = 8 << 10
	d, _ := open(t, count*apart)
	for i := range int64(count) {
		if err := d.WriteAt(context.Background(), []byte{1}, i*apart, 0); err != nil {
			t.Fatal(err)
		}
	}
	var data int
	for _, e := range allExtents(t, d, 1024) {
		if e.Flags == 0 {
			data++
		}
	}
	if data != count {
		t.Errorf("%d data extents, want %d", data, count)
	}
}

func TestKnownZero(t *testing.T) {
	t.Parallel()
	d, drv := open(t, 1<<20)
	if !drv.Info().KnownZero {
		t.Error("a new disk is not known to be zero")
	}
	if err := d.WriteAt(context.Background(), []byte{0}, 5, 0); err != nil {
		t.Fatal(err)
	}
	if drv.Info().KnownZero {
		t.Error("a written disk is known to be zero")
	}
}

func TestNoAllocation(t *testing.T) {
	d, _ := open(t, 1<<20)
	ctx, p := context.Background(), make([]byte, 4096)
	vec := [][]byte{p[:1024], p[1024:]}
	ops := map[string]func() error{
		"write":    func() error { return d.WriteAt(ctx, p, 65536, disk.FUA) },
		"read":     func() error { return d.ReadAt(ctx, p, 65536) },
		"tryread":  func() error { return d.TryRead(p, 65536) },
		"trywrite": func() error { return d.TryWrite(p, 65536, 0) },
		"readv":    func() error { return d.Readv(ctx, vec, 65536) },
		"writev":   func() error { return d.Writev(ctx, vec, 65536, 0) },
		"zero":     func() error { return d.Zero(ctx, 65536, 2048, 0) },
	}
	for name, op := range ops {
		if err := op(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n := testing.AllocsPerRun(100, func() { op() }); n != 0 {
			t.Errorf("%s: %v allocations per operation", name, n)
		}
	}
}
