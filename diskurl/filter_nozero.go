//go:build !without_nozero

package diskurl

import (
	"context"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/filter/nozero"
)

var _ = addFilter(&filter{
	name: "nozero", summary: "change how zeroing is offered and done: zeromode, fastzeromode",
	keys: []Key{
		{Name: "zeromode", Values: []string{"none", "emulate", "notrim", "plugin"}, Help: "not offered, turned into writes, without leave to deallocate, passed on"},
		{Name: "fastzeromode", Values: []string{"default", "none", "slow", "ignore"}, Help: "as below, not offered, always refused, done by any means"},
	},
	build: func(_ context.Context, child *disk.Disk, p *params) (*disk.Disk, error) {
		return build(p, nozero.Config{
			ZeroMode: nozero.ZeroMode(p.choice("zeromode")), FastZeroMode: nozero.FastZeroMode(p.choice("fastzeromode")),
		}, child, nozero.New)
	},
})
