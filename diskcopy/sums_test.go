package diskcopy_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/diskcopy"
	"github.com/vmdisk/vmdisk/driver/mem"
)

// summing is a disk that digests itself, and may lose what is written.
type summing struct {
	disk.Driver
	sum     func(ctx context.Context) (string, error)
	forgets bool
	reads   atomic.Int64
}

func (s *summing) ReadAt(ctx context.Context, p []byte, off int64) error {
	s.reads.Add(1)
	return s.Driver.ReadAt(ctx, p, off)
}

func (s *summing) WriteAt(ctx context.Context, p []byte, off int64, f disk.Flags) error {
	if s.forgets {
		p = bytes.Clone(p)
		p[len(p)-1] ^= 1
	}
	return s.Driver.WriteAt(ctx, p, off, f)
}

func (s *summing) Sum(ctx context.Context, _ string, _ int64) (string, error) { return s.sum(ctx) }

// Verification reads a target that digests itself only when the digests differ
// or there is none.
func TestVerifyBySum(t *testing.T) {
	t.Parallel()
	newDisk := func() *disk.Disk {
		d, err := mem.Open(1 << 20)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	src := newDisk()
	if err := src.WriteAt(t.Context(), bytes.Repeat([]byte("data"), 1000), 4096, 0); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		sum     func(d *disk.Disk) (string, error)
		forgets bool
		reads   bool
		failure string
	}{
		"equal":       {sum: honestSum},
		"wrong":       {sum: func(*disk.Disk) (string, error) { return "00", nil }, reads: true},
		"unsupported": {sum: func(*disk.Disk) (string, error) { return "", errors.ErrUnsupported }, reads: true},
		"different":   {sum: honestSum, forgets: true, reads: true, failure: "differs from the source's at offset"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			below := newDisk()
			s := &summing{Driver: below, forgets: c.forgets, sum: func(context.Context) (string, error) { return c.sum(below) }}
			st, err := diskcopy.Copy(t.Context(), disk.New(s, "target"), src, diskcopy.Options{Verify: true})
			if (err == nil) != (c.failure == "") || err != nil && !strings.Contains(err.Error(), c.failure) {
				t.Errorf("%v, want %q", err, c.failure)
			}
			if err == nil && !st.Verified || (s.reads.Load() > 0) != c.reads {
				t.Errorf("verified %t, %d reads of the target", st.Verified, s.reads.Load())
			}
		})
	}
}

func honestSum(d *disk.Disk) (string, error) {
	digest, err := diskcopy.Checksum(context.Background(), d, diskcopy.ChecksumOptions{})
	return digest.Checksum, err
}
