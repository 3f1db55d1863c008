//go:build !without_fault

package diskurl

import (
	"context"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/filter/fault"
)

var _ = addFilter(&filter{
	name: "fault", summary: "make operations fail: error, error-rate, op, range, after, count, ...",
	keys:  faultKeys(),
	build: newFault,
})

// faultOps are the operations that a fault's parameters name, nbdkit's names among them.
var faultOps = []string{"read", "pread", "write", "pwrite", "zero", "trim", "flush", "extents", "cache"}

func faultKeys() []Key {
	keys := []Key{
		{Name: "op", Form: "OP+OP...", Help: "only these: read, write, zero, trim, flush, extents, cache"},
		{Name: "range", Form: "FROM-TO", Help: "only operations that touch these bytes"},
		{Name: "after", Form: "N", Help: "the first N operations that would fail do not"},
		{Name: "count", Form: "N", Help: "at most N operations fail"},
		{Name: "seed", Form: "N", Help: "which operations a rate selects is the same for the same seed"},
	}
	for _, prefix := range append([]string{""}, faultOps...) {
		of := ""
		if prefix != "" {
			prefix, of = "-"+prefix, " ("+prefix+" alone)"
		}
		keys = append(keys,
			Key{Name: "error" + prefix, Form: "NAME", Help: "an errno's name, EIO by default" + of},
			Key{Name: "error" + prefix + "-rate", Form: "RATE", Help: "the share of operations that fail, 10% or 0.1" + of},
			Key{Name: "error" + prefix + "-file", Form: "PATH", Help: "only while this file exists" + of})
	}
	return keys
}

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
