package diskurl

import (
	"context"
	"fmt"
	"net/url"
	"slices"
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
	cfg := client.Config{URL: u.Raw, Connections: o.Connections, NoUnixSocket: o.NoUnixSocket, Retry: o.Reconnect, Timeout: o.Timeout}
	if u.Scheme == SchemeHTTPS {
		if cfg.TLS, err = o.TLS.config(u); err != nil {
			return nil, fmt.Errorf("%s: %w", u, err)
		}
	}
	d, err := imageio.Open(ctx, cfg, imageio.Options{ReadOnly: o.ReadOnly, Dirty: slices.Contains(o.Maps, disk.DirtyPrefix)})
	if err != nil {
		return nil, fmt.Errorf("open %w", err)
	}
	return d, nil
}

// OpenTicket opens the disk of a transfer ticket: file:, http(s): and nbd: URLs,
// the last also in the older forms nbd:unix:PATH[:exportname=NAME] and
// nbd:HOST:PORT[:exportname=NAME]. Local files are taken as raw. The path of u, or
// its opaque part, is taken as it stands: nothing in it is escaped.
func OpenTicket(ctx context.Context, u *url.URL, o Options) (*disk.Disk, error) {
	t, err := ticketURL(u)
	if err != nil {
		return nil, &SyntaxError{What: "ticket URL", Input: u.Redacted(), Err: err}
	}
	if u.Scheme == SchemeFile {
		o.Format = "raw"
	}
	if u.Scheme != SchemeHTTPS {
		o.TLS = TLS{} // one configuration for all tickets, of which some have use for it
	}
	return t.open(ctx, o)
}

func ticketURL(u *url.URL) (out URL, err error) {
	switch {
	case u.Scheme == SchemeFile:
		return parsePath(SchemeFile, u.Path)
	case u.Scheme == SchemeNBD && u.Opaque != "":
		where, export, _ := strings.Cut(u.Opaque, ":exportname=")
		if out.Export, err = exportName("/" + export); err != nil {
			return out, err
		}
		if path, unix := strings.CutPrefix(where, "unix:"); unix {
			out.Scheme, out.Path = SchemeNBDUnix, path
			return out, nil
		}
		out.Scheme = SchemeNBD
		out.Host, err = hostPort(&url.URL{Host: where})
		return out, err
	case u.Scheme == SchemeNBD:
		out.Scheme = SchemeNBD
		if out.Export, err = exportName(u.Path); err == nil {
			out.Host, err = hostPort(u)
		}
		return out, err
	case u.Scheme == SchemeHTTP || u.Scheme == SchemeHTTPS:
		return parseHTTP(u.String())
	}
	return out, fmt.Errorf("scheme %q: want file, nbd, http or https", u.Scheme)
}
