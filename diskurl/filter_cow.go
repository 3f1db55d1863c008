//go:build !without_cow

package diskurl

import (
	"context"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/filter/cow"
)

var _ = addFilter(&filter{
	name: "cow", summary: "keep changes apart and forget them in the end: store, dir, blocksize",
	keepsBase: true,
	keys: []Key{
		{Name: "store", Values: []string{"memory", "file"}, Help: "where changes are: RAM, or a temporary file without a name"},
		{Name: "dir", Form: "DIR", Help: "the folder of that file ($TMPDIR, or else /var/tmp)"},
		{Name: "blocksize", Form: "SIZE", Help: "the unit of copying, a power of two from 4K to 2M (64K)"},
	},
	build: func(_ context.Context, child *disk.Disk, p *params) (*disk.Disk, error) {
		return build(p, cow.Config{
			Store: cow.Store(p.choice("store")), Dir: p.text("dir", ""), BlockSize: p.size("blocksize", 0),
		}, child, cow.New)
	},
})
