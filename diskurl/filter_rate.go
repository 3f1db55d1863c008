//go:build !without_rate

package diskurl

import (
	"context"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/filter/rate"
)

var _ = addFilter(&filter{
	name: "rate", summary: "limit bytes per second: rate, read-rate, write-rate, burst",
	keys: []Key{
		{Name: "rate", Form: "SIZE", Help: "bytes per second of reads, and as many of writes"},
		{Name: "read-rate", Form: "SIZE", Help: "the same for reads alone"},
		{Name: "write-rate", Form: "SIZE", Help: "the same for writes alone"},
		{Name: "burst", Form: "SIZE", Help: "bytes that may pass at once after idling (what the rate gives in a tenth of a second)"},
	},
	build: func(_ context.Context, child *disk.Disk, p *params) (*disk.Disk, error) {
		both := p.size("rate", 0)
		return build(p, rate.Config{Read: p.size("read-rate", both), Write: p.size("write-rate", both), Burst: p.size("burst", 0)}, child, rate.New)
	},
})
