package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"
)

// Control talks to a daemon's control service. Safe for concurrent use.
type Control struct{ c *Client }

// TicketInfo is what the daemon tells of a ticket; times are seconds, Expires
// since the daemon's host was booted.
type TicketInfo struct {
	UUID              string   `json:"uuid"`
	TransferID        string   `json:"transfer_id"`
	URL               string   `json:"url"`
	Size              int64    `json:"size"`
	Ops               []string `json:"ops"`
	Sparse            bool     `json:"sparse"`
	Dirty             bool     `json:"dirty"`
	Filename          string   `json:"filename,omitempty"`
	Timeout           int64    `json:"timeout"`
	InactivityTimeout int64    `json:"inactivity_timeout"`
	Expires           int64    `json:"expires"`
	IdleTime          int64    `json:"idle_time"`
	Active            bool     `json:"active"`
	Canceled          bool     `json:"canceled"`
	Connections       int      `json:"connections"`
	// Transferred is nil for tickets that allow reading and writing.
	Transferred *int64 `json:"transferred,omitempty"`
}

// TicketSpec is a ticket to be installed.
type TicketSpec struct {
	UUID              string   `json:"uuid"`
	URL               string   `json:"url"`
	Size              int64    `json:"size"`
	Ops               []string `json:"ops"`
	Timeout           int64    `json:"timeout"`
	InactivityTimeout int64    `json:"inactivity_timeout,omitempty"`
	TransferID        string   `json:"transfer_id,omitempty"`
	Filename          string   `json:"filename,omitempty"`
	Sparse            bool     `json:"sparse,omitempty"`
	Dirty             bool     `json:"dirty,omitempty"`
}

// maxSocket is the longest path of a unix socket, unix(7), less the zero.
const maxSocket = 107

// DialControl prepares to talk to the control service at addr: unix:PATH, a
// path, or HOST:PORT. Nothing is connected yet.
func DialControl(addr string) (*Control, error) {
	network, where := "tcp", addr
	if path, ok := strings.CutPrefix(addr, "unix:"); ok || strings.HasPrefix(addr, "/") {
		network, where = "unix", path
		if !ok {
			where = addr
		}
	}
	if where == "" {
		return nil, errors.New("the control service's address is empty: use unix:PATH or HOST:PORT")
	}
	if network == "unix" && len(where) > maxSocket {
		return nil, fmt.Errorf("the path of the control socket has %d bytes, %d are possible; use a shorter one", len(where), maxSocket)
	}
	c := &Client{host: "localhost", plain: true, cfg: Config{Timeout: 2 * time.Minute, Retry: -1}, slots: make(chan *conn, 1)}
	c.slots <- nil
	c.dial = func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, network, where) }
	return &Control{c}, nil
}

// Close ends the connection.
func (t *Control) Close() error { return t.c.Close() }

func ticketPath(id string) string { return "/tickets/" + url.PathEscape(id) }

func (t *Control) send(ctx context.Context, method, path string, body []byte, want int) error {
	return t.c.do(ctx, &call{method: method, path: path, body: body}, func(a *answer) error {
		if a.status != want {
			return unexpected(a)
		}
		_, err := io.Copy(io.Discard, a.body)
		return err
	})
}

// Add installs a ticket given as the JSON of the API, in place of one with the
// same uuid.
func (t *Control) Add(ctx context.Context, ticket json.RawMessage) error {
	var named struct {
		UUID string `json:"uuid"`
	}
	if err := json.Unmarshal(ticket, &named); err != nil || named.UUID == "" {
		return fmt.Errorf("the ticket is not a JSON object with a uuid: %.100q", bytes.TrimSpace(ticket))
	}
	return t.send(ctx, "PUT", ticketPath(named.UUID), ticket, 200)
}

// Show tells about a ticket.
func (t *Control) Show(ctx context.Context, id string) (info TicketInfo, err error) {
	err = t.c.do(ctx, &call{method: "GET", path: ticketPath(id)}, func(a *answer) error { return decode(a, 200, &info) })
	return info, err
}

// Extend lets a ticket live for timeout seconds from now.
func (t *Control) Extend(ctx context.Context, id string, timeout int64) error {
	return t.send(ctx, "PATCH", ticketPath(id), fmt.Appendf(nil, `{"timeout": %d}`, timeout), 200)
}

// Remove cancels a ticket and waits, as long as the daemon is configured to,
// until nothing uses it. A ticket that is not there is no error.
func (t *Control) Remove(ctx context.Context, id string) error {
	return t.send(ctx, "DELETE", ticketPath(id), nil, 204)
}

// RemoveAll forgets all tickets; what runs goes on to its end.
func (t *Control) RemoveAll(ctx context.Context) error {
	return t.send(ctx, "DELETE", "/tickets/", nil, 204)
}
