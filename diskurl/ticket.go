package diskurl

import (
	"context"
	"fmt"
	"net/url"

	"github.com/vmdisk/vmdisk/disk"
)

// OpenTicket opens the disk of a transfer ticket: file:, http(s): and nbd: URLs,
// the last also in the older forms nbd:unix:PATH[:exportname=NAME] and
// nbd:HOST:PORT[:exportname=NAME]. Local files are taken as raw. The path of u, or
// its opaque part, is taken as it stands: nothing in it is escaped.
func OpenTicket(ctx context.Context, u *url.URL, o Options) (*disk.Disk, error) {
	p := protocols[u.Scheme]
	if p == nil || p.ticket == nil {
		return nil, ticketError(u, fmt.Errorf("scheme %q: want file, nbd, http or https", u.Scheme))
	}
	a, err := p.ticket(u)
	if err != nil {
		return nil, ticketError(u, err)
	}
	at := URL{Addr: a}
	if at.Local() {
		o.Format = FormatRaw
	}
	if !at.guard().TLS {
		o.TLS = TLS{} // one configuration for all tickets, of which some have use for it
	}
	return at.open(ctx, &o)
}

func ticketError(u *url.URL, err error) error {
	return &SyntaxError{What: "ticket URL", Input: u.Redacted(), Err: err}
}
