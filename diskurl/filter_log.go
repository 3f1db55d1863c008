//go:build !without_log

package diskurl

import (
	"context"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/filter/log"
)

var _ = addFilter(&filter{
	name: "log", summary: "write a line for each operation: logfile, logappend",
	keys: []Key{
		{Name: "logfile", Form: "FILE", Help: "where the lines go; /dev/stderr works"},
		{Name: "logappend", Values: []string{"off", "on"}, Help: "add to the file instead of replacing it"},
	},
	build: func(_ context.Context, child *disk.Disk, p *params) (*disk.Disk, error) {
		return build(p, log.Config{File: p.text("logfile", ""), Append: p.boolean("logappend", false)}, child, log.New)
	},
})
