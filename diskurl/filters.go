package diskurl

import (
	"context"
	"slices"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/filter/cow"
	"github.com/vmdisk/vmdisk/filter/delay"
	"github.com/vmdisk/vmdisk/filter/fault"
	"github.com/vmdisk/vmdisk/filter/limit"
	"github.com/vmdisk/vmdisk/filter/log"
	"github.com/vmdisk/vmdisk/filter/noextents"
	"github.com/vmdisk/vmdisk/filter/nozero"
	"github.com/vmdisk/vmdisk/filter/rate"
	"github.com/vmdisk/vmdisk/filter/readonly"
	"github.com/vmdisk/vmdisk/filter/stats"
	"github.com/vmdisk/vmdisk/filter/volatile"
)

// filters are the filters of this build.
var filters = map[string]filterKind{
	"cow":       {"keep changes apart and forget them in the end: store, dir, blocksize", newCow},
	"delay":     {"make operations take longer: read, write, zero, trim, flush, ...=DURATION", newDelay},
	"fault":     {"make operations fail: error, error-rate, op, range, after, count, ...", newFault},
	"limit":     {"show a part: offset and size, or partition, sectorsize", newLimit},
	"log":       {"write a line for each operation: logfile, logappend", newLog},
	"noextents": {"hide what is known of the content", plain(noextents.New)},
	"nozero":    {"change how zeroing is offered and done: zeromode, fastzeromode", newNoZero},
	"rate":      {"limit bytes per second: rate, read-rate, write-rate, burst", newRate},
	"readonly":  {"refuse changes", plain(readonly.New)},
	"stats":     {"count operations, bytes and times: statsfile, statsappend", newStats},
	"volatile":  {"keep writes in RAM until a flush or FUA; killed, it forgets them", plain(volatile.New)},
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

// keepsBase reports whether nothing is ever written below one of the filters,
// so that the disk can be opened for reading, and shared.
func keepsBase(specs []FilterSpec) bool {
	return slices.ContainsFunc(specs, func(s FilterSpec) bool { return s.Name == "cow" || s.Name == "readonly" })
}

// build keeps a filter from being made of bad parameters.
func build[C any](p *params, cfg C, child *disk.Disk, make func(*disk.Disk, C) (*disk.Disk, error)) (*disk.Disk, error) {
	if !p.ok() {
		return nil, nil // stack reports what p says
	}
	return make(child, cfg)
}

func newCow(_ context.Context, child *disk.Disk, p *params) (*disk.Disk, error) {
	return build(p, cow.Config{
		Store: cow.Store(p.choice("store", "memory", "file")), Dir: p.text("dir", ""), BlockSize: p.size("blocksize", 0),
	}, child, cow.New)
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

// plain is a filter without parameters.
func plain(make func(*disk.Disk) *disk.Disk) func(context.Context, *disk.Disk, *params) (*disk.Disk, error) {
	return func(_ context.Context, child *disk.Disk, p *params) (*disk.Disk, error) {
		return build(p, struct{}{}, child, func(d *disk.Disk, _ struct{}) (*disk.Disk, error) { return make(d), nil })
	}
}

// faultOps are the operations that a fault's parameters name, nbdkit's names among them.
var faultOps = []string{"read", "pread", "write", "pwrite", "zero", "trim", "flush", "extents", "cache"}

func newFault(_ context.Context, child *disk.Disk, p *params) (*disk.Disk, error) {
	cfg := fault.Config{
		Setting: faultSetting(p, "error"),
		After:   p.count("after", 0), Count: p.count("count", 0), Seed: uint64(p.count("seed", 0)),
	}
	if text := p.text("op", ""); text != "" {
		var err error
		if cfg.Ops, err = fault.ParseOps(text); err != nil {
			p.fail("op", err)
		}
	}
	cfg.From, cfg.To = p.sizeRange("range")
	for _, name := range faultOps {
		if s := faultSetting(p, "error-"+name); s != (fault.Setting{}) {
			op, err := fault.ParseOps(name)
			if err != nil {
				return nil, err
			}
			cfg.Each = append(cfg.Each, fault.OpConfig{Op: op, Setting: s})
		}
	}
	return build(p, cfg, child, fault.Open)
}

func faultSetting(p *params, prefix string) fault.Setting {
	s := fault.Setting{Error: p.text(prefix, ""), File: p.text(prefix+"-file", "")}
	if p.given(prefix + "-rate") {
		rate := p.fraction(prefix+"-rate", 0)
		s.Rate = &rate
	}
	return s
}

func newLimit(ctx context.Context, child *disk.Disk, p *params) (*disk.Disk, error) {
	return build(p, limit.Config{
		Offset: p.size("offset", 0), Size: p.size("size", 0),
		Partition: int(p.count("partition", 0)), SectorSize: p.size("sectorsize", 0),
	}, child, func(d *disk.Disk, cfg limit.Config) (*disk.Disk, error) { return limit.New(ctx, d, cfg) })
}

func newLog(_ context.Context, child *disk.Disk, p *params) (*disk.Disk, error) {
	return build(p, log.Config{File: p.text("logfile", ""), Append: p.boolean("logappend", false)}, child, log.New)
}

func newRate(_ context.Context, child *disk.Disk, p *params) (*disk.Disk, error) {
	both := p.size("rate", 0)
	return build(p, rate.Config{Read: p.size("read-rate", both), Write: p.size("write-rate", both), Burst: p.size("burst", 0)}, child, rate.New)
}

func newNoZero(_ context.Context, child *disk.Disk, p *params) (*disk.Disk, error) {
	return build(p, nozero.Config{
		ZeroMode:     nozero.ZeroMode(p.choice("zeromode", "none", "emulate", "notrim", "plugin")),
		FastZeroMode: nozero.FastZeroMode(p.choice("fastzeromode", "default", "none", "slow", "ignore")),
	}, child, nozero.New)
}

func newStats(_ context.Context, child *disk.Disk, p *params) (*disk.Disk, error) {
	return build(p, stats.Config{File: p.text("statsfile", ""), Append: p.boolean("statsappend", false)}, child, stats.New)
}
