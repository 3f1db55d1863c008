//go:build !without_stats

package diskurl

import (
	"context"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/filter/stats"
)

var _ = addFilter(&filter{
	name: "stats", summary: "count operations, bytes and times: statsfile, statsappend",
	keys: []Key{
		{Name: "statsfile", Form: "FILE", Help: "where the numbers go when the disk is closed; JSON if it ends in .json"},
		{Name: "statsappend", Values: []string{"off", "on"}, Help: "add to the file instead of replacing it"},
	},
	build: func(_ context.Context, child *disk.Disk, p *params) (*disk.Disk, error) {
		return build(p, stats.Config{File: p.text("statsfile", ""), Append: p.boolean("statsappend", false)}, child, stats.New)
	},
})
