package pattern_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
	"github.com/vmdisk/vmdisk/driver/pattern"
)

func open(tb testing.TB, f func(int64) (*disk.Disk, error), size int64) *disk.Disk {
	tb.Helper()
	d, err := f(size)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

func TestAllocations(t *testing.T) {
	disktest.Allocations(t, open(t, pattern.Open, 8<<20))
}

func TestConformance(t *testing.T) {
	for _, size := range []int64{3<<20 + 5, 1<<63 - 1} {
		disktest.Conformance(t, func(tb testing.TB) *disk.Disk { return open(tb, pattern.Open, size) },
			disktest.Options{Content: pattern.Fill})
		disktest.Conformance(t, func(tb testing.TB) *disk.Disk { return open(tb, pattern.OpenVerify, size) },
			disktest.Options{Content: pattern.Fill, Fixed: true})
	}
}

// The example in the manual of nbdkit's plugin, and the largest offset.
func TestContent(t *testing.T) {
	t.Parallel()
	d := open(t, pattern.Open, 1<<63-1)
	for off, want := range map[int64]string{
		0:         "0000000000000000" + "0000000000000008",
		0x20:      "0000000000000020" + "0000000000000028",
		0x1f:      "18" + "0000000000000020" + "000000000000",
		1<<63 - 9: "7ffffffffffffff0"[14:] + "7ffffffffffffff8"[:14],
	} {
		p := make([]byte, len(want)/2)
		if err := d.ReadAt(t.Context(), p, off); err != nil || hex.EncodeToString(p) != want {
			t.Errorf("offset %#x: %x, %v; want %s", off, p, err, want)
		}
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	d := open(t, pattern.OpenVerify, 1<<20)
	for _, n := range []int{1, 7, 8, 4096, 100_003} {
		p := make([]byte, n)
		pattern.Fill(p, 777)
		if err := d.WriteAt(t.Context(), p, 777, 0); err != nil {
			t.Errorf("%d right bytes: %v", n, err)
		}
		p[n-1] ^= 0x10
		err := d.WriteAt(t.Context(), p, 777, 0)
		if !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), fmt.Sprintf("offset %d is", 777+n-1)) {
			t.Errorf("%d bytes, the last one wrong: %v", n, err)
		}
	}
	if err := d.Zero(t.Context(), 4096, 4096, 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("zero: %v", err)
	}
}

func TestNegativeSize(t *testing.T) {
	t.Parallel()
	if _, err := pattern.Open(-1); err == nil {
		t.Fatal("a negative size was accepted")
	}
}

func FuzzFill(f *testing.F) {
	f.Add(int64(0), 9)
	f.Add(int64(1<<40+3), 100)
	f.Fuzz(func(t *testing.T, off int64, n int) {
		off, n = off&(1<<62-1), n&0xfff
		whole, parts := make([]byte, n), make([]byte, n)
		pattern.Fill(whole, off)
		for i := range parts {
			pattern.Fill(parts[i:i+1], off+int64(i))
		}
		if !bytes.Equal(whole, parts) {
			t.Errorf("offset %d, %d bytes: in one piece %x, byte by byte %x", off, n, whole, parts)
		}
	})
}

func BenchmarkDriver(b *testing.B) {
	disktest.Benchmark(b, func(tb testing.TB) *disk.Disk { return open(tb, pattern.Open, 1<<40) })
}

func Example() {
	d, _ := pattern.Open(1 << 20)
	p := make([]byte, 8)
	_ = d.ReadAt(context.Background(), p, 0x1230)
	fmt.Printf("%x\n", p)
	// Output: 0000000000001230
}
