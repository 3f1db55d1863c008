package diskcopy

import (
	"testing"

	"github.com/vmdisk/vmdisk/disk"
)

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
		wanting := func(bulk int64) *disk.Disk {
			return disk.New(&shaped{remote{child: memDisk(t, mib)}, func(in *disk.Info) { in.Bulk = bulk }}, "disk")
		}
		if o, err := (Options{RequestSize: c.said}).complete(wanting(c.dst), wanting(c.src)); err != nil || o.RequestSize != c.want {
			t.Errorf("%+v: requests of %d, %v", c, o.RequestSize, err)
		}
	}
}
