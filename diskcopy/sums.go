package diskcopy

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/vmdisk/vmdisk/disk"
)

// Summer is optional for drivers: storage that can compute Checksum itself, so
// that its content need not travel to be verified. It is reached by disk.As.
type Summer interface {
	// Sum is the Checksum of the whole disk, hexadecimal; errors.ErrUnsupported
	// where the storage cannot.
	Sum(ctx context.Context, algorithm string, blockSize int64) (string, error)
}

// equalSums reports whether the digests of both disks are known to be equal. It
// is not asked for unless one of the disks computes its own. Where the answer is
// false both have to be read, which also tells where they differ.
func (e *engine) equalSums() bool {
	_, srcSums := disk.As[Summer](e.src)
	_, dstSums := disk.As[Summer](e.dst)
	if !srcSums && !dstSums || e.src.Size() != e.dst.Size() {
		return false
	}
	group, ctx := errgroup.WithContext(e.ctx)
	var sums [2]string
	for i, d := range []*disk.Disk{e.src, e.dst} {
		group.Go(func() (err error) {
			sums[i], err = e.sum(ctx, d)
			return err
		})
	}
	return group.Wait() == nil && sums[0] == sums[1]
}

func (e *engine) sum(ctx context.Context, d *disk.Disk) (string, error) {
	const blockSize = 4 << 20
	algorithm := Algorithms()[0]
	if s, ok := disk.As[Summer](d); ok {
		return s.Sum(ctx, algorithm, blockSize)
	}
	o := ChecksumOptions{Algorithm: algorithm, BlockSize: blockSize, ProgressEvery: e.opt.ProgressEvery}
	if e.opt.Progress != nil {
		o.Progress = func(p Progress) {
			p.Phase = "verify"
			e.opt.Progress(p)
		}
	}
	digest, err := Checksum(ctx, d, o)
	return digest.Checksum, err
}
