package client

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmdisk/vmdisk/imageio/batch"
)

// Config says how to reach an image.
type Config struct {
	// URL is http(s)://HOST[:PORT]/images/TICKET; the port is 54322 by default.
	URL string
	// TLS is used for https; nil means the host's trusted CAs.
	TLS *tls.Config
	// Connections is how many requests may be under way (1 to 64), bounded by
	// what the server allows. Default 4.
	Connections int
	// NoUnixSocket keeps the client from changing over to the daemon's unix
	// socket where the daemon runs on this host.
	NoUnixSocket bool
	// Timeout bounds the time without progress of one request, and what the daemon
	// answers only at its end (flush, zero) by ten times as much. Default 60 s;
	// negative: no bound.
	Timeout time.Duration
	// Retry bounds how long a request is tried again after the connection broke.
	// Default 30 s; negative: never.
	Retry time.Duration
}

// Features are what the server said that this ticket allows.
type Features struct {
	Write, Zero, Flush, Discard, Extents, PagedExtents, Checksum bool
	// Readers and Writers bound the connections; 0 where the server did not say.
	Readers, Writers int
	// ImageID is the same for tickets of one image; empty if the server does not say.
	ImageID string
	// UnixSocket is the daemon's socket; NUL first means an abstract name.
	UnixSocket string
}

// Client is a session with one ticket's image. Safe for concurrent use.
type Client struct {
	cfg      Config
	host     string // for the Host header
	path     string // /images/TICKET
	dial     func(ctx context.Context) (net.Conn, error)
	plain    bool
	local    bool // over the daemon's unix socket
	features Features
	size     int64

	slots   chan *conn // a nil slot is to be dialled
	started bool       // requests are tried again; a first one is not
	closed  atomic.Bool
	waits   waits

	extentsMu sync.Mutex
	list      map[string][]Extent // of servers without pages
}

// Dial asks the server what the ticket allows, changes over to the unix socket
// if the daemon is on this host, and finds out the image's size.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	c, err := newClient(cfg)
	if err != nil {
		return nil, err
	}
	if err := c.start(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("%s: %w", c.safeURL(), err)
	}
	return c, nil
}

func newClient(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("image URL: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || !strings.HasPrefix(u.Path, "/images/") || len(u.Path) == len("/images/") {
		return nil, errors.New("an image URL has the form https://HOST:54322/images/TICKET")
	}
	if cfg.Connections == 0 {
		cfg.Connections = 4
	}
	if cfg.Connections < 1 || cfg.Connections > 64 {
		return nil, fmt.Errorf("%d connections: use 1 to 64", cfg.Connections)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute
	}
	if cfg.Retry == 0 {
		cfg.Retry = 30 * time.Second
	}
	port := u.Port()
	if port == "" {
		port = "54322"
	}
	c := &Client{cfg: cfg, host: u.Host, path: u.EscapedPath(), plain: u.Scheme == "http", list: map[string][]Extent{}}
	c.dial = c.dialTCP(net.JoinHostPort(u.Hostname(), port), u.Hostname())
	c.slots = make(chan *conn, 1)
	c.slots <- nil
	return c, nil
}

// maxDial bounds the making of a connection, with its handshake, unless Timeout is
// less or there is none.
const maxDial = 30 * time.Second

func (cfg *Config) dialTimeout() time.Duration {
	switch {
	case cfg.Timeout < 0:
		return math.MaxInt64
	case cfg.Timeout > 0:
		return min(maxDial, cfg.Timeout)
	}
	return maxDial
}

func (c *Client) dialTCP(addr, name string) func(ctx context.Context) (net.Conn, error) {
	if c.plain {
		return c.cfg.dialer("tcp", addr)
	}
	dial, limit := c.cfg.dialer("tcp", addr), c.cfg.dialTimeout()
	config := &tls.Config{}
	if c.cfg.TLS != nil {
		config = c.cfg.TLS.Clone()
	}
	if config.ServerName == "" {
		config.ServerName = name
	}
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	config = batch.Config(config)
	return func(ctx context.Context) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		nc, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		secure := batch.Client(nc, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			nc.Close()
			return nil, noAnswer(ctx, fmt.Errorf("TLS: %w", err), limit)
		}
		return secure, nil
	}
}

// dialer connects to addr within dialTimeout; a full backlog of a unix socket
// would keep it for ever.
func (cfg *Config) dialer(network, addr string) func(context.Context) (net.Conn, error) {
	limit := cfg.dialTimeout()
	return func(ctx context.Context) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		nc, err := new(net.Dialer).DialContext(ctx, network, addr)
		return nc, noAnswer(ctx, err, limit)
	}
}

// safeURL is the URL with most of the ticket's id cut off: it is a credential.
func (c *Client) safeURL() string {
	scheme := "https"
	if c.plain {
		scheme = "http"
	}
	return fmt.Sprintf("%s://%s/images/%s", scheme, c.host, shortID(strings.TrimPrefix(c.path, "/images/")))
}

func shortID(id string) string { return id[:min(8, len(id)/2)] + "…" }

// hideID takes the ticket's id out of a server's message; one of a few letters is no secret, but part of words.
func (c *Client) hideID(message string) string {
	id := strings.TrimPrefix(c.path, "/images/")
	if plain, err := url.PathUnescape(id); err == nil {
		id = plain
	}
	if len(id) < 8 {
		return message
	}
	return strings.ReplaceAll(message, id, shortID(id))
}

func (c *Client) start(ctx context.Context) error {
	if err := c.options(ctx); err != nil {
		return err
	}
	if socket := c.features.UnixSocket; socket != "" && !c.cfg.NoUnixSocket {
		c.tryUnix(ctx, socket)
	}
	n := c.cfg.Connections
	for _, bound := range []int{c.features.Readers, c.features.Writers} {
		if bound > 0 {
			n = min(n, bound)
		}
	}
	first := <-c.slots
	c.slots = make(chan *conn, n)
	c.slots <- first
	for range n - 1 {
		c.slots <- nil
	}
	err := c.findSize(ctx)
	if err == nil && !c.features.Write {
		c.size, err = c.Available(ctx)
	}
	c.started = true
	return err
}

// options fills features. Servers older than the OPTIONS resource answer 405 or
// 204; they have one connection and neither zero nor extents.
func (c *Client) options(ctx context.Context) error {
	var reply struct {
		Features   []string
		UnixSocket string `json:"unix_socket"`
		ImageID    string `json:"image_id"`
		MaxReaders int    `json:"max_readers"`
		MaxWriters int    `json:"max_writers"`
	}
	var allow string
	err := c.do(ctx, &call{method: "OPTIONS"}, func(a *answer) error {
		if a.status == 405 || a.status == 204 {
			allow = "GET,PUT"
			reply.MaxReaders, reply.MaxWriters = 1, 1
			_, err := io.Copy(io.Discard, a.body)
			return err
		}
		allow = a.header["allow"]
		return decode(a, 200, &reply)
	})
	if err != nil {
		return err
	}
	has := func(name string) bool { return slices.Contains(reply.Features, name) }
	c.features = Features{Write: strings.Contains(allow, "PUT"), Zero: has("zero"), Flush: has("flush"), Discard: has("discard"),
		Extents: has("extents"), PagedExtents: has("extents-paged"), Checksum: has("checksum"),
		Readers: reply.MaxReaders, Writers: reply.MaxWriters, UnixSocket: reply.UnixSocket, ImageID: reply.ImageID}
	return nil
}

// tryUnix changes over to the daemon's socket if it is there and knows the
// ticket. Whoever else holds a socket of that name does not.
func (c *Client) tryUnix(ctx context.Context, socket string) {
	addr := &net.UnixAddr{Net: "unix", Name: socket}
	if socket[0] == 0 {
		addr.Name = "@" + socket[1:]
	}
	local := &Client{cfg: c.cfg, host: "localhost", path: c.path, plain: true, list: c.list, slots: make(chan *conn, 1)}
	local.slots <- nil
	local.dial = c.cfg.dialer("unix", addr.Name)
	if err := local.options(ctx); err != nil {
		local.Close()
		return
	}
	if old := <-c.slots; old != nil {
		old.nc.Close()
	}
	c.slots <- <-local.slots
	c.dial, c.plain, c.local, c.host, c.features = local.dial, true, true, local.host, local.features
	c.features.UnixSocket = socket
}

// findSize asks for the first byte: the answer names the ticket's size.
func (c *Client) findSize(ctx context.Context) error {
	empty := false
	err := c.do(ctx, &call{method: "GET", headers: []string{"range: bytes=0-0"}}, func(a *answer) error {
		if a.status == 416 {
			// An empty image: content-range is "bytes */0". The ticket may be for more.
			if empty = a.header["content-range"] == "bytes */0"; empty {
				_, err := io.Copy(io.Discard, a.body)
				return err
			}
		}
		if a.status != 206 {
			return unexpected(a)
		}
		_, total, _ := strings.Cut(a.header["content-range"], "/")
		var err error
		if c.size, err = strconv.ParseInt(total, 10, 64); err != nil || c.size < 0 {
			return fmt.Errorf("the server's content-range %.60q has no size", a.header["content-range"])
		}
		_, err = io.Copy(io.Discard, a.body)
		return err
	})
	if err == nil && empty {
		c.size, err = c.outside(ctx, 1<<62)
	}
	return err
}

// outside asks for the byte at off, outside of every ticket: the refusal names the ticket's size, also where the
// image is shorter or empty. Such an image was once taken for an empty disk, and copied with success. It is
// 0 where the server names none.
func (c *Client) outside(ctx context.Context, off int64) (size int64, err error) {
	header := fmt.Sprintf("range: bytes=%d-%d", off, off)
	err = c.do(ctx, &call{method: "GET", headers: []string{header}}, func(a *answer) error {
		if a.status != 416 {
			return unexpected(a)
		}
		if text, ok := strings.CutPrefix(a.header["content-range"], "bytes */"); ok {
			if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > 0 {
				size = n
			}
		}
		_, err := io.Copy(io.Discard, a.body)
		return err
	})
	return size, err
}

// Available asks how much of the image can be read: a ticket may be for more than its
// image has, which a file that is to grow by writing has not yet.
func (c *Client) Available(ctx context.Context) (n int64, err error) {
	if c.size < 2 {
		return c.size, nil // findSize has read it
	}
	n = c.size
	last := fmt.Sprintf("range: bytes=%d-%d", n-1, n-1)
	err = c.do(ctx, &call{method: "GET", headers: []string{last}}, func(a *answer) error {
		text, ok := strings.CutPrefix(a.header["content-range"], "bytes */")
		if have, err := strconv.ParseInt(text, 10, 64); a.status == 416 && ok && err == nil && have >= 0 {
			n = min(n, have)
		} else if a.status != 206 {
			return unexpected(a)
		}
		_, err := io.Copy(io.Discard, a.body)
		return err
	})
	return n, err
}

// Features tells what the ticket allows.
func (c *Client) Features() Features { return c.features }

// Size is the size of the image that the ticket is for, in bytes.
func (c *Client) Size() int64 { return c.size }

// Connections is how many requests may be under way.
func (c *Client) Connections() int { return cap(c.slots) }

// Local reports whether the client talks over the daemon's unix socket.
func (c *Client) Local() bool { return c.local }

// Name is the URL without the secret part of the ticket.
func (c *Client) Name() string { return c.safeURL() }

// Close ends the connections; no request may be under way.
func (c *Client) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	for range cap(c.slots) {
		if k := <-c.slots; k != nil {
			k.nc.Close()
		}
	}
	return nil
}

// errHandled marks an error that trying again would not change.
type errHandled struct{ error }

func (e errHandled) Unwrap() error { return e.error }

// do makes a request and gives the answer to f, which reads the whole body. A
// request whose connection broke is made again on a new one: every request of
// the API may be repeated.
func (c *Client) do(ctx context.Context, k *call, f func(*answer) error) error {
	deadline, silent := time.Now().Add(c.cfg.Retry), false
	for wait := 50 * time.Millisecond; ; wait *= 2 {
		err := c.once(ctx, k, f)
		var final errHandled
		if err == nil || errors.As(err, &final) || ctx.Err() != nil {
			if errors.As(err, &final) {
				return final.error
			}
			return err
		}
		// A server that takes connections and answers nothing, twice, does not come back.
		before := silent
		if silent = errors.Is(err, ErrSilent); silent && before {
			return err
		}
		wait = min(wait, 5*time.Second)
		pause := wait/2 + rand.N(wait/2)
		if !c.started || c.cfg.Retry < 0 || time.Now().Add(pause).After(deadline) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *Client) once(ctx context.Context, k *call, f func(*answer) error) (err error) {
	var slot *conn
	select {
	case slot = <-c.slots:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() {
		if slot != nil && slot.spent {
			slot.nc.Close()
			slot = nil
		}
		c.slots <- slot
	}()
	defer c.waits.begin()()
	if slot == nil {
		nc, err := c.dial(ctx)
		var untrusted *tls.CertificateVerificationError
		if errors.As(err, &untrusted) {
			return errHandled{fmt.Errorf("%w: name the CA that signed the server's certificate", err)}
		}
		if err != nil {
			return afterDeadline(ctx, err)
		}
		slot = newConn(nc, c.plain, c.cfg.Timeout, &c.waits)
		slot.hide = c.hideID
	}
	full := *k
	full.path = c.path + k.path
	stop := context.AfterFunc(ctx, slot.nc.interrupt)
	a, err := slot.roundTrip(c.host, &full)
	if err == nil {
		err = slot.consume(a, f)
	} else {
		slot.spent = true
	}
	if !stop() {
		slot.spent = true
	}
	if ctx.Err() != nil && slot.spent && err != nil {
		return ctx.Err()
	}
	return slot.nc.explain(err)
}

// afterDeadline is err, or the context's error where that is what err comes from: a
// dialer notices the deadline a moment before the context does.
func afterDeadline(ctx context.Context, err error) error {
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return errHandled{context.DeadlineExceeded}
	}
	return err
}

// consume runs f on the answer and turns what f says into an error for do.
func (c *conn) consume(a *answer, f func(*answer) error) error {
	err := f(a)
	var status *statusAnswer
	if errors.As(err, &status) {
		err = c.fail(a)
		if a.status == 502 || a.status == 503 || a.status == 504 {
			return err // something between us and the daemon; it may pass
		}
		return errHandled{err}
	}
	c.spent = c.spent || err != nil || !a.drained()
	return err
}

// statusAnswer is f's way to say that the status is not the one expected.
type statusAnswer struct{ status int }

func (e *statusAnswer) Error() string { return strconv.Itoa(e.status) }

func unexpected(a *answer) error { return &statusAnswer{a.status} }

// decode reads a JSON answer.
func decode(a *answer, want int, v any) error {
	if a.status != want {
		return unexpected(a)
	}
	r := bufio.NewReader(io.LimitReader(a.body, 64<<20))
	if err := json.NewDecoder(r).Decode(v); err != nil {
		return fmt.Errorf("the server's answer is not the JSON it should be: %w", err)
	}
	_, err := io.Copy(io.Discard, a.body)
	return err
}
