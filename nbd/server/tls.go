package server

import (
	"crypto/tls"
	"fmt"
	"net"

	"github.com/vmdisk/vmdisk/nbd"
)

func (h *haggler) startTLS() {
	switch o := nbd.OptStartTLS; {
	case !h.empty(o):
	case h.secure:
		h.refuse(o, nbd.RepErrInvalid, "TLS is already on")
	case h.s.cfg.TLSMode == TLSOff:
		h.refuse(o, nbd.RepErrPolicy, "this server has no TLS")
	default:
		h.ack(o)
		h.secure = true
	}
}

// startTLSNow reports whether STARTTLS was acknowledged and TLS has yet to begin.
func (h *haggler) startTLSNow() bool {
	_, already := h.conn.(*tls.Conn)
	return h.secure && !already
}

// upgrade starts TLS and forgets what was negotiated in the clear.
func (h *haggler) upgrade() error {
	h.terms = terms{}
	h.s.charge(h.v, tlsCost)
	limited := &limitedConn{Conn: h.conn, left: maxClientTLS}
	tc := tls.Server(limited, h.s.cfg.TLS)
	if err := tc.Handshake(); err != nil { // under the deadline of the whole negotiation
		return fmt.Errorf("TLS handshake: %w", err)
	}
	limited.done = true
	h.s.charge(h.v, -tlsCost)
	h.conn = tc
	return nil
}

// maxClientTLS bounds what a client may send until TLS has begun: its certificates may
// be some KiB, while crypto/tls would keep messages of 256 KiB.
const maxClientTLS = 32 << 10

// limitedConn fails when a client sends too much before TLS has begun.
type limitedConn struct {
	net.Conn
	left int
	done bool // set between reads
}

func (l *limitedConn) Read(p []byte) (int, error) {
	if l.done {
		return l.Conn.Read(p)
	}
	if l.left <= 0 {
		return 0, fmt.Errorf("more than %d bytes from the client", maxClientTLS)
	}
	n, err := l.Conn.Read(p[:min(len(p), l.left)])
	l.left -= n
	return n, err
}

// NetConn is the connection below, as of a tls.Conn.
func (l *limitedConn) NetConn() net.Conn { return l.Conn }
