package diskurl

import (
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/filter/delay"
	"github.com/vmdisk/vmdisk/filter/noextents"
	"github.com/vmdisk/vmdisk/filter/nozero"
	"github.com/vmdisk/vmdisk/filter/stats"
)

// filters are the filters of this build.
var filters = map[string]filterKind{
	"delay":     {"make operations take longer: read, write, zero, trim, flush, ...=DURATION", newDelay},
	"noextents": {"hide what is known of the content", newNoExtents},
	"nozero":    {"change how zeroing is offered and done: zeromode, fastzeromode", newNoZero},
	"stats":     {"count operations, bytes and times: statsfile, statsappend", newStats},
}

// checkFilters refuses filters that do not exist, before anything is opened.
func checkFilters(specs []FilterSpec) error {
	for _, s := range specs {
		if _, err := s.kind(); err != nil {
			return err
		}
	}
	return nil
}

// build keeps a filter from being made of bad parameters.
func build[C any](p *params, cfg C, child *disk.Disk, make func(*disk.Disk, C) (*disk.Disk, error)) (*disk.Disk, error) {
	if !p.ok() {
		return nil, nil // stack reports what p says
	}
	return make(child, cfg)
}

func newDelay(child *disk.Disk, p *params) (*disk.Disk, error) {
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

func newNoExtents(child *disk.Disk, p *params) (*disk.Disk, error) {
	return build(p, struct{}{}, child, func(d *disk.Disk, _ struct{}) (*disk.Disk, error) { return noextents.New(d), nil })
}

func newNoZero(child *disk.Disk, p *params) (*disk.Disk, error) {
	return build(p, nozero.Config{
		ZeroMode:     nozero.ZeroMode(p.choice("zeromode", "none", "emulate", "notrim", "plugin")),
		FastZeroMode: nozero.FastZeroMode(p.choice("fastzeromode", "default", "none", "slow", "ignore")),
	}, child, nozero.New)
}

func newStats(child *disk.Disk, p *params) (*disk.Disk, error) {
	return build(p, stats.Config{File: p.text("statsfile", ""), Append: p.boolean("statsappend", false)}, child, stats.New)
}
