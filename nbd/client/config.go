package client

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"math"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/vmdisk/vmdisk/nbd"
	"golang.org/x/sys/unix"
)

// Defaults of Config.
const (
	DefaultConnections      = 4
	DefaultHandshakeTimeout = 10 * time.Second
	DefaultUserTimeout      = 60 * time.Second
	DefaultTimeout          = 60 * time.Second
)

// Config says where an export is and what to ask the server for.
type Config struct {
	// Network is "tcp", "unix" or "vsock" (Addr "cid:port"), Addr "host:port" (or "host", for the port that
	// IANA gave NBD) or the path of the socket.
	Network, Addr string
	// Export is the name of the export; empty is the server's default.
	Export string
	// TLS makes the session encrypted or fail; nil makes it plain. ServerName
	// defaults to the host of Addr, the minimum version to TLS 1.2.
	TLS *tls.Config
	// Connections bounds the number of connections; more than one are opened only
	// if the server promises consistency among them (CAN_MULTI_CONN). 0 means
	// DefaultConnections.
	Connections int
	// Headers bounds the header format that is asked for.
	Headers Headers
	// Contexts are the meta contexts to negotiate; those that the server does not
	// have are left out. nil means base:allocation. A name that ends in a colon,
	// such as qemu:dirty-bitmap:, is the only one that the server lists below it;
	// where it lists several nobody said which, so it is left out.
	Contexts []string
	// HandshakeTimeout bounds connecting and negotiating, for each connection. 0
	// means DefaultHandshakeTimeout, negative for ever.
	HandshakeTimeout time.Duration
	// Timeout is how long a server may be silent, on one connection, though it has
	// requests to answer; then the session ends with ErrDisconnected. Ten times as
	// long while a flush, zero, trim or the like is under way. 0 means
	// DefaultTimeout, negative never.
	Timeout time.Duration
	// UserTimeout is how long TCP waits for an acknowledgement of what was sent
	// before it gives up the connection. 0 means DefaultUserTimeout.
	UserTimeout time.Duration
	// Dialer, if not nil, opens the connections instead of the net package.
	Dialer func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Headers is the best header format that a client asks for.
type Headers uint8

// Header formats, best first.
const (
	ExtendedHeaders Headers = iota
	StructuredReplies
	SimpleReplies
)

// defaultContexts is what a nil Config.Contexts means.
var defaultContexts = []string{nbd.ContextAllocation}

func (cfg Config) withDefaults() Config {
	cfg.Connections = cmp.Or(max(cfg.Connections, 0), DefaultConnections)
	if cfg.HandshakeTimeout = cmp.Or(cfg.HandshakeTimeout, DefaultHandshakeTimeout); cfg.HandshakeTimeout < 0 {
		cfg.HandshakeTimeout = math.MaxInt64
	}
	cfg.UserTimeout = cmp.Or(cfg.UserTimeout, DefaultUserTimeout)
	cfg.Timeout = cmp.Or(cfg.Timeout, DefaultTimeout)
	if cfg.Contexts == nil {
		cfg.Contexts = defaultContexts
	}
	if strings.HasPrefix(cfg.Network, "tcp") {
		cfg.Addr = withPort(cfg.Addr)
	}
	if cfg.TLS != nil {
		cfg.TLS = cfg.tls()
	}
	if cfg.Dialer == nil {
		cfg.Dialer = cfg.dial
	}
	return cfg
}

func withPort(addr string) string {
	if _, _, err := net.SplitHostPort(addr); err == nil {
		return addr
	}
	return net.JoinHostPort(strings.Trim(addr, "[]"), fmt.Sprint(nbd.DefaultPort))
}

func (cfg *Config) tls() *tls.Config {
	c := cfg.TLS.Clone()
	if c.ServerName == "" {
		c.ServerName = "localhost"
		if host, _, err := net.SplitHostPort(cfg.Addr); err == nil && strings.HasPrefix(cfg.Network, "tcp") {
			c.ServerName = host
		}
	}
	// Section "TLS support": older versions than 1.2 are not to be used.
	c.MinVersion = max(c.MinVersion, tls.VersionTLS12)
	return c
}

func (cfg *Config) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if network == "vsock" {
		return dialVsock(ctx, addr)
	}
	d := net.Dialer{ControlContext: func(_ context.Context, network, _ string, raw syscall.RawConn) error {
		if !strings.HasPrefix(network, "tcp") {
			return nil
		}
		var err error
		if e := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(cfg.UserTimeout.Milliseconds()))
		}); e != nil {
			return e
		}
		return err
	}}
	return d.DialContext(ctx, network, addr)
}
