//go:build !without_imageio

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

// The row of HTTP: an image of the transfer API, /images/TICKET.
var _ = addProtocol(&protocol{
	schemes: []string{SchemeHTTP, SchemeHTTPS},
	parse:   parseHTTP,
	ticket:  func(u *url.URL) (Addr, error) { return parseHTTP(u.String()) },
	open:    openHTTP,
})

func openHTTP(ctx context.Context, addr Addr, o *Options) (*disk.Disk, error) {
	a := addr.(HTTPAddr)
	if !strings.HasPrefix(a.parsed().Path, imagesPath) {
		return nil, fmt.Errorf("%s: a plain HTTP download is %w; a transfer is https://HOST:54322/images/TICKET", a.Redacted(), ErrNotBuilt)
	}
	cfg := client.Config{URL: a.URL, Connections: o.Connections, NoUnixSocket: o.NoUnixSocket, Retry: o.Reconnect, Timeout: o.Timeout}
	if a.Guard().TLS {
		var err error
		if cfg.TLS, err = o.TLS.config(); err != nil {
			return nil, fmt.Errorf("%s: %w", a.Redacted(), err)
		}
	}
	d, err := imageio.Open(ctx, cfg, imageio.Options{ReadOnly: o.ReadOnly, Dirty: slices.Contains(o.Maps, disk.DirtyPrefix)})
	if err != nil {
		return nil, fmt.Errorf("open %w", err)
	}
	return d, nil
}
