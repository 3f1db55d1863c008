package diskurl

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/imageio"
	"github.com/vmdisk/vmdisk/imageio/client"
)

// openHTTP opens an image of the transfer API, /images/TICKET.
func (u URL) openHTTP(ctx context.Context, o Options) (*disk.Disk, error) {
	parsed, err := url.Parse(u.Raw)
	if err != nil || !strings.HasPrefix(parsed.Path, "/images/") {
		return nil, fmt.Errorf("%s: a plain HTTP download is %w; a transfer is https://HOST:54322/images/TICKET", u, ErrNotBuilt)
	}
	cfg := client.Config{URL: u.Raw, Connections: o.Connections, NoUnixSocket: o.NoUnixSocket, Retry: o.Reconnect}
	if u.Scheme == SchemeHTTPS {
		if cfg.TLS, err = o.TLS.config(u); err != nil {
			return nil, fmt.Errorf("%s: %w", u, err)
		}
	}
	d, err := imageio.Open(ctx, cfg, o.ReadOnly)
	if err != nil {
		return nil, fmt.Errorf("open %w", err)
	}
	return d, nil
}

// OpenTicket opens the disk of a transfer ticket: file:, http(s): and nbd: URLs,
// the last also in the older forms nbd:unix:PATH[:exportname=NAME] and
// nbd:HOST:PORT[:exportname=NAME]. Local files are taken as raw.
func OpenTicket(ctx context.Context, u *url.URL, o Options) (*disk.Disk, error) {
	text := u.String()
	switch {
	case u.Scheme == "file":
		o.Format = "raw"
		text = "file:" + u.Path
	case u.Scheme == "nbd" && u.Opaque != "":
		where, export, _ := strings.Cut(u.Opaque, ":exportname=")
		if path, unix := strings.CutPrefix(where, "unix:"); unix {
			text = "nbd+unix:///" + url.PathEscape(export) + "?socket=" + url.QueryEscape(path)
		} else {
			text = "nbd://" + where + "/" + url.PathEscape(export)
		}
	}
	if u.Scheme != SchemeHTTPS {
		o.TLS = TLS{} // one configuration for all tickets, of which some have use for it
	}
	return Open(ctx, text, o)
}
