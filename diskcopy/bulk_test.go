package diskcopy

import (
	"testing"

	"github.com/vmdisk/vmdisk/disk"
)

type bulky struct {
	remote
	bulk int64
}

func (b *bulky) Info() disk.Info {
	in := b.remote.Info()
	in.Bulk = b.bulk
	return in
}

// A disk may ask for larger requests, within bounds; what the user says counts more.
func TestRequestSizeOfDisks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ src, dst, said, want int64 }{
		{0, 0, 0, 1 << 20},
		{3 << 20, 0, 0, 4 << 20},
		{4096, 2 << 20, 0, 2 << 20},
		{0, 1 << 30, 0, 4 << 20},
		{4 << 20, 4 << 20, 64 << 10, 64 << 10},
	} {
		src, dst := disk.New(&bulky{remote{child: memDisk(t, mib)}, c.src}, "src"), disk.New(&bulky{remote{child: memDisk(t, mib)}, c.dst}, "dst")
		if o, err := (Options{RequestSize: c.said}).complete(dst, src); err != nil || o.RequestSize != c.want {
			t.Errorf("%+v: requests of %d, %v", c, o.RequestSize, err)
		}
	}
}
