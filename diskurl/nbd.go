package diskurl

import (
	"context"
	"errors"
	"fmt"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/nbd"
	wire "github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/client"
)

func (u URL) openNBD(ctx context.Context, o Options) (*disk.Disk, error) {
	cfg, err := u.client(o.TLS)
	if err != nil {
		return nil, err
	}
	cfg.Connections, cfg.Timeout, cfg.HandshakeTimeout = o.Connections, o.Timeout, o.Timeout
	d, err := nbd.Open(ctx, nbd.Config{
		Client: cfg, Name: u.String(), ReadOnly: o.ReadOnly, Maps: o.Maps,
		Reconnect: nbd.Reconnect{Disabled: o.Reconnect < 0, Limit: max(o.Reconnect, 0)},
		NoReplay:  o.NoReplay || o.Reconnect < 0,
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", u, explainExport(u.Export, err))
	}
	return d, nil
}

// explainExport says what a server's plainest refusal means.
func explainExport(name string, err error) error {
	var refused *client.OptionError
	if errors.As(err, &refused) && refused.Reply == wire.RepErrUnknown {
		return fmt.Errorf("the server has no export %q (%w); `vmdisk info --list URL` shows those it has", name, err)
	}
	return err
}

// client says how to reach the server of an NBD URL.
func (u URL) client(t TLS) (client.Config, error) {
	cfg := client.Config{Network: "tcp", Addr: u.Host, Export: u.Export}
	if u.Scheme == SchemeNBDUnix || u.Scheme == SchemeNBDSUnix {
		cfg.Network, cfg.Addr = "unix", u.Path
	}
	if u.Scheme == SchemeNBDVsock || u.Scheme == SchemeNBDSVsock {
		cfg.Network = "vsock"
	}
	if u.Scheme == SchemeNBDS || u.Scheme == SchemeNBDSUnix || u.Scheme == SchemeNBDSVsock {
		var err error
		if cfg.TLS, err = t.config(u); err != nil {
			return cfg, fmt.Errorf("%s: %w", u, err)
		}
	}
	return cfg, nil
}

// Exports lists the names of the exports of the server of an NBD URL; of o, TLS and
// Timeout matter.
func Exports(ctx context.Context, rawURL string, o Options) ([]Export, error) {
	u, err := Parse(rawURL)
	if err != nil {
		return nil, err
	}
	switch u.Scheme {
	case SchemeNBD, SchemeNBDS, SchemeNBDUnix, SchemeNBDSUnix, SchemeNBDVsock, SchemeNBDSVsock:
	default:
		return nil, fmt.Errorf("%s: only NBD servers list exports", u)
	}
	if err := o.TLS.check(u); err != nil {
		return nil, err
	}
	cfg, err := u.client(o.TLS)
	if err != nil {
		return nil, err
	}
	cfg.HandshakeTimeout = o.Timeout
	list, err := client.List(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", u, err)
	}
	out := make([]Export, len(list))
	for i, e := range list {
		u.Export = e.Name
		out[i] = Export{Name: e.Name, Description: e.Description, URL: u.String()}
	}
	return out, nil
}

// Export is one export of an NBD server.
type Export struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	URL         string `json:"url"`
}
