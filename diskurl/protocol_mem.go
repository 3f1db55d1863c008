//go:build !without_mem

package diskurl

import (
	"context"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/mem"
)

var _ = addProtocol(&protocol{
	schemes: []string{SchemeMem},
	parse:   parseSizeAddr,
	open:    func(_ context.Context, a Addr, _ *Options) (*disk.Disk, error) { return mem.Open(a.(SizeAddr).Size) },
})
