//go:build !without_delay

package diskurl

import (
	"context"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/filter/delay"
)

var _ = addFilter(&filter{
	name: "delay", summary: "make operations take longer: read, write, zero, trim, flush, ...=DURATION",
	keys:  delayKeys(),
	build: newDelay,
})

// delayKeys are nbdkit's names, and short ones.
func delayKeys() []Key {
	keys := []Key{
		{Name: "rdelay", Form: "DURATION", Help: "the same as read"},
		{Name: "wdelay", Form: "DURATION", Help: "of each write, zero and trim"},
	}
	for _, op := range [][2]string{
		{"read", "of each read"}, {"write", "of each write"}, {"zero", "of each zero"}, {"trim", "of each trim"}, {"flush", "of each flush"},
		{"extents", "of each query of a map"}, {"cache", "of each prefetch"}, {"open", "after opening"}, {"close", "of closing"},
	} {
		keys = append(keys, Key{Name: op[0], Form: "DURATION", Help: op[1]},
			Key{Name: "delay-" + op[0], Form: "DURATION", Help: "the same as " + op[0]})
	}
	return append(keys, Key{Name: "delay-fast-zero", Values: []string{"on", "off"}, Help: "off: fast zeroes are refused at once"})
}

func newDelay(_ context.Context, child *disk.Disk, p *params) (*disk.Disk, error) {
	both := p.duration("wdelay", 0)
	either := func(name string, def time.Duration) time.Duration {
		return p.duration(name, p.duration("delay-"+name, def))
	}
	cfg := delay.Config{
		Read:  either("read", p.duration("rdelay", 0)),
		Write: either("write", both), Zero: either("zero", both), Trim: either("trim", both),
		Flush: either("flush", 0), Extents: either("extents", 0), Cache: either("cache", 0),
		Open: either("open", 0), Close: either("close", 0),
		RefuseFastZero: !p.boolean("delay-fast-zero", true),
	}
	return build(p, cfg, child, delay.New)
}
