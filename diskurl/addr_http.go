package diskurl

import (
	"errors"
	"fmt"
	"net/url"
	"path"
)

// HTTPAddr is an http or https URL.
type HTTPAddr struct{ URL string }

// Scheme implements Addr.
func (a HTTPAddr) Scheme() string { return a.parsed().Scheme }

// String implements Addr.
func (a HTTPAddr) String() string { return a.URL }

// Redacted hides the ticket, of which anybody who has it can make use, a password, and a
// query, which may sign the URL.
func (a HTTPAddr) Redacted() string {
	u := a.parsed()
	if dir, ticket := path.Split(u.Path); dir == imagesPath {
		return u.Scheme + "://" + u.Host + dir + ticket[:min(len(ticket), shownOfTicket)] + "…"
	}
	if u.RawQuery != "" {
		u.RawQuery = "…"
	}
	return u.Redacted()
}

// Server is not known: a daemon may name a socket, a redirection another server.
func (HTTPAddr) Server() (network, address string) { return "any", "" }

// Guard says whether TLS guards the connection.
func (a HTTPAddr) Guard() Guard {
	return Guard{TLS: a.Scheme() == SchemeHTTPS, Secured: SchemeHTTPS + "://"}
}

// Host is the server's HOST:PORT as the URL has it.
func (a HTTPAddr) Host() string { return a.parsed().Host }

const (
	// imagesPath is what the path of a transfer's image begins with.
	imagesPath = "/images/"
	// shownOfTicket is enough to find the ticket among those of a daemon.
	shownOfTicket = 3
)

func (a HTTPAddr) parsed() *url.URL {
	u, err := url.Parse(a.URL)
	if err != nil {
		return &url.URL{}
	}
	return u
}

func parseHTTP(s string) (Addr, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, plainURLError(err)
	}
	if u.Host == "" || u.Opaque != "" {
		return nil, fmt.Errorf("want %s://host/path", u.Scheme)
	}
	return HTTPAddr{u.String()}, nil
}

// plainURLError drops the URL that net/url repeats in its errors.
func plainURLError(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
