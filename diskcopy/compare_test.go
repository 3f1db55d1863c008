package diskcopy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"math/rand/v2"
	"syscall"
	"testing"

	"golang.org/x/crypto/blake2b"

	"github.com/vmdisk/vmdisk/disk"
)

func put(t *testing.T, d *disk.Disk, off int64, p ...byte) {
	t.Helper()
	if err := d.WriteAt(context.Background(), p, off, 0); err != nil {
		t.Fatal(err)
	}
}

// TestCompareFindsFirst changes single bytes of equal disks; the offset is always
// the lowest.
func TestCompareFindsFirst(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 6))
	const size = 9*mib + 12345
	a, b := memDisk(t, size), memDisk(t, size)
	fill(t, a, 3*mib, 2*mib, 1)
	fill(t, b, 3*mib, 2*mib, 1)
	mustEqual(t, a, b)
	first := int64(size)
	for range 40 {
		off := r.Int64N(size)
		if off >= first && first < size {
			off = r.Int64N(first + 1)
		}
		first = min(first, off)
		put(t, b, off, 0) // differs if a is not zero there
		put(t, a, off, 255)
		c, err := Compare(context.Background(), a, b, CompareOptions{RequestSize: 64 << 10, QueueDepth: 7})
		if err != nil || c.Equal || c.Offset != first {
			t.Fatalf("%+v, %v; want offset %d", c, err, first)
		}
		if c, err = Compare(context.Background(), b, a, CompareOptions{}); err != nil || c.Offset != first {
			t.Fatalf("%+v, %v; want offset %d", c, err, first)
		}
	}
}

func TestCompareSizes(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	a, b := memDisk(t, 3*mib+1), memDisk(t, 5*mib)
	fill(t, a, 0, mib, 1)
	fill(t, b, 0, mib, 1)
	if c, err := Compare(ctx, a, b, CompareOptions{}); err != nil || !c.Equal || c.Offset != -1 {
		t.Fatalf("trailing zeros: %+v, %v", c, err)
	}
	if c, err := Compare(ctx, a, b, CompareOptions{Strict: true}); err != nil || c.Equal || c.Offset != 3*mib+1 {
		t.Fatalf("strict: %+v, %v", c, err)
	}
	put(t, b, 4*mib, 1)
	for _, pair := range [][2]*disk.Disk{{a, b}, {b, a}} {
		if c, err := Compare(ctx, pair[0], pair[1], CompareOptions{}); err != nil || c.Equal || c.Offset != 4*mib {
			t.Fatalf("data in the tail: %+v, %v", c, err)
		}
	}
	if c, err := Compare(ctx, memDisk(t, 0), memDisk(t, 0), CompareOptions{Strict: true}); err != nil || !c.Equal {
		t.Fatalf("empty disks: %+v, %v", c, err)
	}
}

// TestCompareSkipsHoles compares 8 TiB disks, which only works if zeros on both
// sides are not read.
func TestCompareSkipsHoles(t *testing.T) {
	t.Parallel()
	a, b := memDisk(t, 8<<40), memDisk(t, 8<<40)
	put(t, a, 7<<40, 1)
	put(t, b, 7<<40, 1)
	mustEqual(t, a, b)
	put(t, b, 8<<40-1, 1)
	if c, err := Compare(context.Background(), a, b, CompareOptions{}); err != nil || c.Offset != 8<<40-1 {
		t.Fatalf("%+v, %v", c, err)
	}
}

func TestCompareErrors(t *testing.T) {
	t.Parallel()
	good := memDisk(t, mib)
	fill(t, good, 0, mib, 1)
	bad := &failing{remote: remote{child: good}, readErr: syscall.EIO}
	for i, pair := range [][2]*disk.Disk{{disk.New(bad, "bad"), good}, {good, disk.New(bad, "bad")}} {
		_, err := Compare(context.Background(), pair[0], pair[1], CompareOptions{})
		var ce *CopyError
		if !errors.As(err, &ce) || ce.Side != sideOf(i) || !errors.Is(err, syscall.EIO) {
			t.Errorf("side %d: %v", i, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Compare(ctx, good, good, CompareOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// referenceChecksum is the definition, in one loop.
func referenceChecksum(t *testing.T, d *disk.Disk, block int64, newHash func() hash.Hash) string {
	t.Helper()
	outer := newHash()
	for off := int64(0); off < d.Size(); off += block {
		p := make([]byte, min(block, d.Size()-off))
		if err := d.ReadAt(context.Background(), p, off); err != nil {
			t.Fatal(err)
		}
		h := newHash()
		h.Write(p)
		outer.Write(h.Sum(nil))
	}
	return hex.EncodeToString(outer.Sum(nil))
}

func TestChecksum(t *testing.T) {
	t.Parallel()
	hashes := map[string]func() hash.Hash{
		"":       func() hash.Hash { h, _ := blake2b.New256(nil); return h },
		"sha256": sha256.New,
	}
	for _, size := range []int64{0, 1, 4096, 4 * mib, 4*mib + 1, 33*mib + 777} {
		sparse, full := memDisk(t, size), memDisk(t, size)
		if err := full.WriteAt(context.Background(), make([]byte, size), 0, 0); err != nil {
			t.Fatal(err)
		}
		for _, d := range []*disk.Disk{sparse, full} {
			for _, off := range []int64{size / 2, size / 3, size - 1} {
				if off >= 0 && off < size {
					put(t, d, off, 'x')
				}
			}
			if size > 20*mib {
				fill(t, d, 9*mib-5, 3*mib, 4)
			}
		}
		for name, h := range hashes {
			for _, block := range []int64{4096, 1 * mib, 4 * mib} {
				want := referenceChecksum(t, full, block, h)
				for _, d := range []*disk.Disk{sparse, full, disk.New(&remote{child: full}, "remote")} {
					got, err := Checksum(context.Background(), d, ChecksumOptions{Algorithm: name, BlockSize: block, Workers: 3})
					if err != nil || got.Checksum != want {
						t.Errorf("size %d, %s, block %d: %s, %v; want %s", size, name, block, got.Checksum, err, want)
					}
				}
			}
		}
	}
}

// TestChecksumDefault holds the value to that of another implementation:
// python3 -c 'import hashlib as h; b=h.blake2b(b"a"*4194304,digest_size=32).digest(); z=h.blake2b(bytes(4194304),digest_size=32).digest(); print(h.blake2b(b+z,digest_size=32).hexdigest())'
func TestChecksumDefault(t *testing.T) {
	t.Parallel()
	d := memDisk(t, 8*mib)
	put(t, d, 0, bytes.Repeat([]byte("a"), 4*mib)...)
	got, err := Checksum(context.Background(), d, ChecksumOptions{})
	const want = "c4a412c03c5846a948f65ecd216895983c6c20eb08a96d2aa06d144acd3a402b"
	if err != nil || got != (Digest{"blake2b", 4 << 20, want}) {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestChecksumErrors(t *testing.T) {
	t.Parallel()
	d := memDisk(t, mib)
	for _, o := range []ChecksumOptions{{Algorithm: "md4"}, {BlockSize: 4095}, {BlockSize: -4096}, {BlockSize: 65 << 20}, {Workers: -1}} {
		if _, err := Checksum(context.Background(), d, o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
	fill(t, d, 0, mib, 1)
	bad := disk.New(&failing{remote: remote{child: d}, readErr: syscall.EIO}, "bad")
	if _, err := Checksum(context.Background(), bad, ChecksumOptions{BlockSize: 4096, Workers: 4}); !errors.Is(err, syscall.EIO) {
		t.Errorf("EIO: %v", err)
	}
}
