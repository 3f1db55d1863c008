package agent

import (
	"context"
	"fmt"

	"github.com/vmdisk/vmdisk/bench/engine"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/diskurl"
)

// Opener opens the disks of benchmark jobs: the one at URL, or files that jobs
// name.
type Opener struct {
	URL     string
	Options diskurl.Options
}

// Open opens a disk the way a job wants it. Where the user set a cache mode or an
// AIO mode, that wins over the job's.
func (o Opener) Open(ctx context.Context, q engine.OpenRequest) (*disk.Disk, error) {
	if q.Null > 0 {
		return diskurl.Open(ctx, fmt.Sprintf("null:%d", q.Null), diskurl.Options{})
	}
	name, options := o.URL, o.Options
	options.ReadOnly = options.ReadOnly || !q.Write
	if q.Name != "" {
		name, options.Format = diskurl.File(q.Name).As(diskurl.FormatRaw).String(), ""
	}
	if q.Direct && (options.Cache == "writeback" || options.Cache == "") {
		options.Cache = "none"
	}
	if q.Pool && (options.AIO == "auto" || options.AIO == "") {
		options.AIO = "threads"
	}
	return diskurl.Open(ctx, name, options)
}
