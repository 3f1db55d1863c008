//go:build !without_limit

package diskurl

import (
	"context"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/filter/limit"
)

var _ = addFilter(&filter{
	name: "limit", summary: "show a part: offset and size, or partition, sectorsize",
	keys: []Key{
		{Name: "offset", Form: "SIZE", Help: "where the part begins (0)"},
		{Name: "size", Form: "SIZE", Help: "how long it is (up to the end)"},
		{Name: "partition", Form: "N", Help: "the part is this partition of an MBR or GPT"},
		{Name: "sectorsize", Form: "SIZE", Help: "what the table counts in, 512 or 4096 (found out for a GPT)"},
	},
	build: func(ctx context.Context, child *disk.Disk, p *params) (*disk.Disk, error) {
		return build(p, limit.Config{
			Offset: p.size("offset", 0), Size: p.size("size", 0),
			Partition: int(p.count("partition", 0)), SectorSize: p.size("sectorsize", 0),
		}, child, func(d *disk.Disk, cfg limit.Config) (*disk.Disk, error) { return limit.New(ctx, d, cfg) })
	},
})
