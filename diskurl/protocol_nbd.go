//go:build !without_nbd

package diskurl

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/nbd"
	wire "github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/client"
)

// The row of NBD. Its tickets are of servers without TLS.
var _ = addProtocol(&protocol{
	schemes: []string{SchemeNBD, SchemeNBDS, SchemeNBDUnix, SchemeNBDSUnix, SchemeNBDVsock, SchemeNBDSVsock},
	parse:   parseNBD,
	ticket: func(u *url.URL) (Addr, error) {
		if u.Scheme != SchemeNBD {
			return nil, fmt.Errorf("scheme %q: want file, nbd, http or https", u.Scheme)
		}
		return ticketNBD(u)
	},
	open: openNBD,
	list: listNBD,
})

func openNBD(ctx context.Context, addr Addr, o *Options) (*disk.Disk, error) {
	a := addr.(NBDAddr)
	cfg, err := a.client(o.TLS)
	if err != nil {
		return nil, err
	}
	cfg.Connections, cfg.Timeout, cfg.HandshakeTimeout = o.Connections, o.Timeout, o.Timeout
	d, err := nbd.Open(ctx, nbd.Config{
		Client: cfg, Name: a.String(), ReadOnly: o.ReadOnly, Maps: o.Maps,
		Reconnect: nbd.Reconnect{Disabled: o.Reconnect < 0, Limit: max(o.Reconnect, 0)},
		NoReplay:  o.NoReplay || o.Reconnect < 0,
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", a, explainExport(a.Export, err))
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

// client says how to reach the server.
func (a NBDAddr) client(t TLS) (client.Config, error) {
	cfg := client.Config{Network: a.Network, Addr: a.Host, Export: a.Export}
	if a.TLS {
		var err error
		if cfg.TLS, err = a.tls(t).config(); err != nil {
			return cfg, fmt.Errorf("%s: %w", a, err)
		}
		cfg.TLS.InsecureSkipVerify = a.TLSUnverified //nolint:gosec // the URL says so, in so many words
	}
	return cfg, nil
}

func listNBD(ctx context.Context, addr Addr, o *Options) ([]Export, error) {
	a := addr.(NBDAddr)
	cfg, err := a.client(o.TLS)
	if err != nil {
		return nil, err
	}
	cfg.HandshakeTimeout = o.Timeout
	list, err := client.List(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", a, err)
	}
	out := make([]Export, len(list))
	for i, e := range list {
		a.Export = e.Name
		out[i] = Export{Name: e.Name, Description: e.Description, URL: a.String()}
	}
	return out, nil
}
