//go:build !without_null

package diskurl

import (
	"context"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/null"
)

var _ = addProtocol(&protocol{
	schemes: []string{SchemeNull},
	parse:   parseSizeAddr,
	open:    func(_ context.Context, a Addr, _ *Options) (*disk.Disk, error) { return null.Open(a.(SizeAddr).Size) },
})
