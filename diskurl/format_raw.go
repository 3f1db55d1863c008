package diskurl

import (
	"context"

	"github.com/vmdisk/vmdisk/disk"
)

// The row of the format that changes nothing: bytes are taken as they are. A raw image
// needs no layout of its own.
var _ = addFormat(&format{
	name: FormatRaw,
	open: func(_ context.Context, child *disk.Disk, _ FormatOptions) (*disk.Disk, error) { return child, nil },
})
