package nbd

import (
	"cmp"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/nbd/client"
)

// DefaultReplayLimit is the memory for writes since the last flush, in bytes.
const DefaultReplayLimit = 64 << 20

// Config says which export to open and what to do when the connection is lost.
type Config struct {
	// Client says where the export is. Its Contexts are set from Maps.
	Client client.Config
	// Name names the disk in errors; empty is "nbd:ADDR/EXPORT".
	Name string
	// Maps are the maps wanted besides disk.Allocation: disk.Depth, or
	// disk.DirtyPrefix and the name of a bitmap; the prefix alone is the server's
	// only bitmap. Those that the server lacks are left out, and so is the only
	// bitmap where there are several. Each makes every map query slower.
	Maps []disk.MapName
	// ReadOnly refuses changes whatever the server allows.
	ReadOnly  bool
	Reconnect Reconnect
	// NoReplay keeps no writes: a lost connection fails the next flush.
	NoReplay bool
	// ReplayLimit bounds the memory for writes since the last flush, in bytes. 0
	// means DefaultReplayLimit.
	ReplayLimit int64
}

// Reconnect is what to do when the connection is lost.
type Reconnect struct {
	// Disabled makes a lost connection the end.
	Disabled bool
	// Delay is the pause after the first failed attempt, 100 ms if 0; it doubles
	// up to MaxDelay, 5 s if 0.
	Delay, MaxDelay time.Duration
	// Limit is how long to try, 60 s if 0; after it, the disk fails for good.
	Limit time.Duration
}

func (cfg Config) withDefaults() Config {
	r := &cfg.Reconnect
	r.Delay = cmp.Or(r.Delay, 100*time.Millisecond)
	r.MaxDelay = cmp.Or(r.MaxDelay, 5*time.Second)
	r.Limit = cmp.Or(r.Limit, time.Minute)
	cfg.ReplayLimit = cmp.Or(cfg.ReplayLimit, DefaultReplayLimit)
	if cfg.NoReplay {
		cfg.ReplayLimit = 0
	}
	cfg.Name = cmp.Or(cfg.Name, "nbd:"+cfg.Client.Addr+"/"+cfg.Client.Export)
	cfg.Client.Contexts = contexts(cfg.Maps)
	return cfg
}
