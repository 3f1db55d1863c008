//go:build !without_pattern

package diskurl

import (
	"context"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/pattern"
)

var _ = addProtocol(&protocol{
	schemes: []string{SchemePattern},
	parse:   parseSizeAddr,
	open: func(_ context.Context, a Addr, o *Options) (*disk.Disk, error) {
		if o.ReadOnly {
			return pattern.Open(a.(SizeAddr).Size)
		}
		return pattern.OpenVerify(a.(SizeAddr).Size)
	},
})
