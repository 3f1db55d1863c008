package nbd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	wire "github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/client"
)

// Driver is an open export.
type Driver struct {
	cfg    Config
	export client.Export
	info   disk.Info
	// durable: the server has no write cache, what it acknowledged stays.
	durable bool

	ctx    context.Context // ends with Close
	stop   context.CancelFunc
	helper sync.WaitGroup // the goroutine that reconnects

	mu         sync.Mutex
	session    *client.Client // nil while reconnecting
	conns      int
	ready      chan struct{} // while reconnecting: closed at its end
	inflight   int           // requests that the session has or that are being logged
	quiet      sync.Cond     // inflight became 0
	dead       error         // why nothing works any more
	lost       error         // why no flush works any more
	log        replayLog
	reconnects int
	flaps      int       // sessions lost since a request was last answered
	since      time.Time // when the first of them was
}

// Open connects to an export. disk.As[*Driver] finds the driver in the disk.
func Open(ctx context.Context, cfg Config, opts ...disk.Option) (*disk.Disk, error) {
	d, err := open(ctx, cfg.withDefaults())
	if err != nil {
		return nil, err
	}
	return disk.New(d, d.cfg.Name, opts...), nil
}

func open(ctx context.Context, cfg Config) (*Driver, error) {
	c, err := client.Dial(ctx, cfg.Client)
	if err != nil {
		return nil, err
	}
	e := c.Export()
	d := &Driver{cfg: cfg, export: e, session: c, conns: c.Connections(),
		durable: !e.Has(wire.FlagSendFlush)}
	d.quiet.L = &d.mu
	d.log.init(cfg.ReplayLimit)
	d.ctx, d.stop = context.WithCancel(context.Background())
	d.info = newInfo(&cfg, &e, c.MaxEffect())
	return d, nil
}

func newInfo(cfg *Config, e *client.Export, limit int64) disk.Info {
	level := func(f wire.TransmissionFlags) disk.Level {
		if e.Has(f) {
			return disk.Native
		}
		return disk.None
	}
	in := disk.Info{
		Size: e.Size, Min: int64(e.Min), MinAssumed: !e.BlockSizes, Preferred: int64(e.Preferred), MaxIO: int64(e.Max),
		MaxZero: limit, MaxTrim: limit, TrimAlign: int64(e.Min),
		Volatile:  e.Has(wire.FlagSendFlush),
		ReadOnly:  cfg.ReadOnly || e.Has(wire.FlagReadOnly),
		MultiConn: e.Has(wire.FlagCanMultiConn),
		Zero:      level(wire.FlagSendWriteZeroes),
		FastZero:  level(wire.FlagSendWriteZeroes | wire.FlagSendFastZero),
		Trim:      level(wire.FlagSendTrim),
		FUA:       level(wire.FlagSendFUA),
		Cache:     level(wire.FlagSendCache),
		Maps:      maps(e.Contexts),
		ID:        fmt.Sprintf("nbd:%s:%s/%s", cfg.Client.Network, cfg.Client.Addr, e.Name),
	}
	if in.FUA == disk.None && in.Volatile {
		in.FUA = disk.Emulated
	}
	return in
}

// contexts names the meta contexts of the wanted maps.
func contexts(want []disk.MapName) []string {
	list := []string{wire.ContextAllocation}
	for _, m := range want {
		if m == disk.Depth {
			list = append(list, wire.ContextDepth)
		} else if name, ok := strings.CutPrefix(string(m), disk.DirtyPrefix); ok {
			list = append(list, wire.ContextDirtyPrefix+name)
		}
	}
	return list
}

// mapOf names the map of a meta context; empty where it is none of ours.
func mapOf(context string) disk.MapName {
	switch name, dirty := strings.CutPrefix(context, wire.ContextDirtyPrefix); {
	case dirty:
		return disk.MapName(disk.DirtyPrefix + name)
	case context == wire.ContextAllocation:
		return disk.Allocation
	case context == wire.ContextDepth:
		return disk.Depth
	}
	return ""
}

func maps(contexts []string) (list []disk.MapName) {
	for _, c := range contexts {
		if m := mapOf(c); m != "" {
			list = append(list, m)
		}
	}
	return list
}

// Info describes the export.
func (d *Driver) Info() disk.Info { return d.info }

// Export is what the server told when the disk was opened.
func (d *Driver) Export() client.Export { return d.export }

var errClosed = errors.New("the NBD disk is closed")

// Close says goodbye to the server. It does not flush.
func (d *Driver) Close() error {
	d.stop()
	d.mu.Lock()
	if d.dead == nil {
		d.dead = errClosed
	}
	d.mu.Unlock()
	d.helper.Wait()
	if d.session == nil {
		return nil
	}
	return d.session.Close()
}

// Waiting is how long the server has not answered; a lost server counts from when
// it was lost.
func (d *Driver) Waiting() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.session != nil:
		return d.session.Waiting()
	case d.dead != nil:
		return 0
	}
	return time.Since(d.since)
}

// Inspect tells about the server and the session.
func (d *Driver) Inspect(context.Context) ([]disk.Attr, error) {
	d.mu.Lock()
	conns, reconnects := d.conns, d.reconnects
	d.mu.Unlock()
	e := &d.export
	return []disk.Attr{
		{Name: "server", Value: d.cfg.Client.Addr},
		{Name: "export", Value: e.Name},
		{Name: "description", Value: e.Description},
		{Name: "tls", Value: e.TLS},
		{Name: "headers", Value: e.Mode.String()},
		{Name: "connections", Value: int64(conns)},
		{Name: "reconnects", Value: int64(reconnects)},
		{Name: "block sizes advertised", Value: e.BlockSizes},
		{Name: "flags", Value: flagNames(e.Flags)},
		{Name: "contexts", Value: e.Contexts},
	}, nil
}

var flags = []struct {
	flag wire.TransmissionFlags
	name string
}{
	{wire.FlagReadOnly, "read-only"}, {wire.FlagSendFlush, "flush"}, {wire.FlagSendFUA, "fua"},
	{wire.FlagRotational, "rotational"}, {wire.FlagSendTrim, "trim"}, {wire.FlagSendWriteZeroes, "write-zeroes"},
	{wire.FlagSendDF, "df"}, {wire.FlagCanMultiConn, "multi-conn"}, {wire.FlagSendCache, "cache"},
	{wire.FlagSendFastZero, "fast-zero"}, {wire.FlagBlockStatusPayload, "block-status-payload"},
}

func flagNames(f wire.TransmissionFlags) (names []string) {
	for _, k := range flags {
		if f&k.flag != 0 {
			names = append(names, k.name)
		}
	}
	return names
}
