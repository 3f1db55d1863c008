package limit_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
	"github.com/vmdisk/vmdisk/driver/mem"
	"github.com/vmdisk/vmdisk/filter/limit"
)

func ram(tb testing.TB, size int64) *disk.Disk {
	tb.Helper()
	d, err := mem.Open(size)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

func open(tb testing.TB, child *disk.Disk, cfg limit.Config) *disk.Disk {
	tb.Helper()
	d, err := limit.New(tb.Context(), child, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

func TestAllocations(t *testing.T) {
	d := open(t, ram(t, 16<<20), limit.Config{Offset: 1 << 20, Size: 8 << 20})
	disktest.Allocations(t, d, "write-4k", "write-256k", "zero-256k")
}

// The part lies in a disk full of data, at every alignment to its blocks, and
// what is around it must be as before.
func TestConformance(t *testing.T) {
	const around, size = 1 << 20, 1<<20 + 300
	for _, base := range []int64{65536, 512, 777} {
		for _, block := range []int64{1, 4096} {
			t.Run(fmt.Sprintf("offset %d, blocks of %d", base, block), func(t *testing.T) {
				disktest.Conformance(t, func(tb testing.TB) *disk.Disk {
					child := ram(tb, around+size)
					ones := bytes.Repeat([]byte{1}, around+size)
					if err := child.WriteAt(context.Background(), ones, 0, 0); err != nil {
						tb.Fatal(err)
					}
					if err := child.Zero(context.Background(), base, size, 0); err != nil {
						tb.Fatal(err)
					}
					tb.Cleanup(func() {
						got := make([]byte, around+size)
						if err := child.ReadAt(context.Background(), got, 0); err != nil {
							tb.Error(err)
						}
						if !bytes.Equal(got[:base], ones[:base]) || !bytes.Equal(got[base+size:], ones[base+size:]) {
							tb.Error("something outside the part was changed")
						}
					})
					d, _ := disktest.Strict(keep{child}.disk(), func(in *disk.Info) { in.Min, in.TrimAlign = block, 2048 })
					return open(tb, d, limit.Config{Offset: base, Size: size})
				}, disktest.Options{Ops: 60})
			})
		}
	}
}

// keep is a disk that outlives its filters.
type keep struct{ disk.Driver }

func (keep) Close() error       { return nil }
func (k keep) disk() *disk.Disk { return disk.New(k, "keep") }

// image is a disk of 64 MiB with the sectors of a file of testdata.
func image(tb testing.TB, name string) *disk.Disk {
	tb.Helper()
	text, err := os.ReadFile("testdata/" + name + ".txt")
	if err != nil {
		tb.Fatal(err)
	}
	d := ram(tb, 64<<20)
	for line := range strings.Lines(string(text)) {
		at, data, _ := strings.Cut(strings.TrimSpace(line), " ")
		off, err1 := strconv.ParseInt(at, 10, 64)
		p, err2 := hex.DecodeString(data)
		if err := errors.Join(err1, err2, d.WriteAt(context.Background(), p, off, 0)); err != nil {
			tb.Fatal(err)
		}
	}
	return d
}

// The tables were made by sfdisk, which also says where the partitions are.
func TestPartitions(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sector int64
		parts  map[int][2]int64 // first sector, number of sectors
	}{
		"mbr": {512, map[int][2]int64{1: {2048, 4096}, 2: {8192, 65536}, 3: {80000, 1000},
			5: {10240, 2048}, 6: {14336, 4096}, 7: {22528, 8192}}},
		"gpt512":  {512, map[int][2]int64{1: {2048, 8192}, 2: {10240, 16384}, 3: {26624, 102400}}},
		"gpt4096": {4096, map[int][2]int64{1: {256, 1024}, 2: {1280, 2048}, 3: {3328, 12800}}},
	} {
		for n := range 12 {
			child := image(t, name)
			d, err := limit.New(t.Context(), child, limit.Config{Partition: n + 1})
			want, ok := c.parts[n+1]
			if !ok {
				if err == nil || !strings.Contains(err.Error(), "only 1 2 3") {
					t.Errorf("%s: partition %d: %v", name, n+1, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: partition %d: %v", name, n+1, err)
				continue
			}
			mark := []byte{0xa5}
			if err := child.WriteAt(t.Context(), mark, want[0]*c.sector, 0); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 1)
			if err := d.ReadAt(t.Context(), got, 0); err != nil || got[0] != mark[0] || d.Size() != want[1]*c.sector {
				t.Errorf("%s: partition %d has size %d, want %d, or begins elsewhere (%v)", name, n+1, d.Size(), want[1]*c.sector, err)
			}
		}
	}
}

func TestBackupGPT(t *testing.T) {
	t.Parallel()
	child := image(t, "gpt512")
	if err := child.WriteAt(t.Context(), []byte("?"), 512+60, 0); err != nil {
		t.Fatal(err)
	}
	if d := open(t, child, limit.Config{Partition: 2}); d.Size() != 16384*512 {
		t.Errorf("partition 2 of the backup has %d bytes", d.Size())
	}
	if err := child.WriteAt(t.Context(), []byte("?"), 64<<20-512+60, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := limit.New(t.Context(), child, limit.Config{Partition: 2}); !errors.Is(err, disk.ErrCorrupt) {
		t.Errorf("both headers damaged: %v", err)
	}
}

func TestPartOfPartition(t *testing.T) {
	t.Parallel()
	child := image(t, "mbr")
	if err := child.WriteAt(t.Context(), []byte("here"), 2048*512+4096, 0); err != nil {
		t.Fatal(err)
	}
	d := open(t, child, limit.Config{Partition: 1, Offset: 4096, Size: 100})
	got := make([]byte, 4)
	if err := d.ReadAt(t.Context(), got, 0); err != nil || string(got) != "here" || d.Size() != 100 {
		t.Errorf("%q, %v, size %d", got, err, d.Size())
	}
}

// patched is the MBR image with one byte changed.
func patched(t *testing.T, off int64, b byte) *disk.Disk {
	t.Helper()
	d := image(t, "mbr")
	if err := d.WriteAt(t.Context(), []byte{b}, off, 0); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	loop := image(t, "mbr")
	record := make([]byte, 512)
	if err := loop.ReadAt(t.Context(), record, 8192*512); err != nil {
		t.Fatal(err)
	}
	copy(record[446+16+8:], []byte{0, 0, 0, 0}) // the next record is this one
	if err := loop.WriteAt(t.Context(), record, 8192*512, 0); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		child *disk.Disk
		cfg   limit.Config
		want  error
	}{
		"no table":        {ram(t, 1<<20), limit.Config{Partition: 1}, nil},
		"tiny":            {ram(t, 100), limit.Config{Partition: 1}, nil},
		"negative":        {ram(t, 100), limit.Config{Partition: -1}, nil},
		"offset":          {ram(t, 100), limit.Config{Offset: 101}, nil},
		"negative offset": {ram(t, 100), limit.Config{Offset: -1}, nil},
		"size":            {ram(t, 100), limit.Config{Offset: 50, Size: 51}, nil},
		"past partition":  {image(t, "mbr"), limit.Config{Partition: 1, Size: 4096*512 + 1}, nil},
		"sector size":     {image(t, "mbr"), limit.Config{Partition: 1, SectorSize: 513}, nil},
		"loop":            {loop, limit.Config{Partition: 5}, disk.ErrCorrupt},
		"past the end":    {patched(t, 446+15, 0x7f), limit.Config{Partition: 1}, disk.ErrCorrupt},
		"no record":       {patched(t, 8192*512+510, 0), limit.Config{Partition: 5}, disk.ErrCorrupt},
		"far record":      {patched(t, 446+16+11, 0x7f), limit.Config{Partition: 5}, disk.ErrRange},
	} {
		if _, err := limit.New(t.Context(), c.child, c.cfg); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// Whatever a guest writes into its table, the answer is a part within the disk
// or an error.
func FuzzTable(f *testing.F) {
	for _, name := range []string{"mbr", "gpt512", "gpt4096"} {
		p := make([]byte, 34*512)
		if err := image(f, name).ReadAt(f.Context(), p, 0); err != nil {
			f.Fatal(err)
		}
		f.Add(p, 1)
	}
	f.Fuzz(func(t *testing.T, table []byte, n int) {
		d := ram(t, 1<<20)
		if err := d.WriteAt(t.Context(), table[:min(len(table), 1<<20)], 0, 0); err != nil {
			t.Fatal(err)
		}
		p, err := limit.New(t.Context(), d, limit.Config{Partition: n})
		if err == nil && (p.Size() <= 0 || p.Size() > d.Size()) {
			t.Errorf("partition of %d bytes", p.Size())
		}
		if err == nil {
			if err := p.ReadAt(t.Context(), make([]byte, 1), p.Size()-1); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestDurable(t *testing.T) {
	t.Parallel()
	disktest.Durable(t, func(tb testing.TB, d *disk.Disk) *disk.Disk {
		return open(tb, d, limit.Config{Size: d.Size()})
	}, disktest.Options{})
}

func Example() {
	d, _ := mem.Open(1 << 20)
	ctx := context.Background()
	part, _ := limit.New(ctx, d, limit.Config{Offset: 4096, Size: 8192})
	fmt.Println(part.Size(), errors.Is(part.ReadAt(ctx, make([]byte, 1), 8192), disk.ErrRange))
	// Output: 8192 true
}
