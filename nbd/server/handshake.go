package server

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/vmdisk/vmdisk/nbd"
)

// What a client may send before it is served.
const (
	maxOptions    = 32
	maxOptionData = 64 << 10 // answered; a name and some queries fit many times
	maxDiscard    = 1 << 20  // read and refused; more ends the session
)

var (
	errTooManyOptions = fmt.Errorf("more than %d options", maxOptions)
	errNeedsTLS       = errors.New("EXPORT_NAME without the TLS that is required")
	errNoExport       = errors.New("EXPORT_NAME of an export that does not exist")
)

// haggler negotiates one connection. It reads exactly what it decodes, so there
// is never plaintext in a buffer of ours when TLS begins: bytes that a man in
// the middle injected after STARTTLS reach the TLS handshake and break it.
type haggler struct {
	s        *Server
	accepted net.Conn // as it was accepted
	conn     net.Conn // that, or TLS over it
	secure   bool
	noZeroes bool
	terms
	leases []*export // what Config.Resolve gave
	buf    []byte
	out    []byte
}

// terms are what STARTTLS resets.
type terms struct {
	mode       nbd.Mode
	contexts   []metaContext
	contextsOf *export
}

// agreement is the outcome of a negotiation.
type agreement struct {
	terms
	conn  net.Conn
	exp   *export
	flags nbd.TransmissionFlags
}

// haggle negotiates until an export is chosen; nil and nil when the client
// left in good order.
func (s *Server) haggle(nc net.Conn) (a *agreement, err error) {
	h := &haggler{s: s, accepted: nc, conn: nc, buf: make([]byte, 512)}
	defer func() {
		var kept *export
		if a != nil && err == nil {
			kept = a.exp
		}
		h.releaseLeases(kept)
	}()
	if _, err := nc.Write(nbd.AppendGreeting(nil, nbd.FlagFixedNewstyle|nbd.FlagNoZeroes)); err != nil {
		return nil, err
	}
	b := h.buf[:nbd.ClientFlagsSize]
	if _, err := io.ReadFull(nc, b); err != nil {
		return nil, err
	}
	f, err := nbd.DecodeClientFlags(b)
	if err != nil {
		return nil, err
	}
	h.noZeroes = f&nbd.FlagNoZeroes != 0
	for range maxOptions {
		if a, done, err := h.option(); done || err != nil {
			return a, err
		}
	}
	return nil, errTooManyOptions
}

// option reads and answers one option; done ends the negotiation.
func (h *haggler) option() (a *agreement, done bool, err error) {
	if _, err := io.ReadFull(h.conn, h.buf[:nbd.OptionHeaderSize]); err != nil {
		return nil, false, err
	}
	head, err := nbd.DecodeOptionHeader(h.buf)
	if err != nil {
		return nil, false, err
	}
	h.out = h.out[:0]
	if head.Len > maxOptionData {
		err = h.discard(head)
	} else {
		if int(head.Len) > len(h.buf) {
			h.buf = make([]byte, head.Len)
		}
		data := h.buf[:head.Len]
		if _, err := io.ReadFull(h.conn, data); err != nil {
			return nil, false, err
		}
		a, done, err = h.answer(head.Option, data)
	}
	if a != nil && err == nil && !h.s.agree(h.accepted) {
		return nil, true, errDrained
	}
	if len(h.out) > 0 {
		if _, werr := h.conn.Write(h.out); err == nil {
			err = werr
		}
	}
	if err == nil && head.Option == nbd.OptStartTLS && h.startTLSNow() {
		err = h.upgrade()
	}
	return a, done, err
}

// discard refuses an option that is too long.
func (h *haggler) discard(head nbd.OptionHeader) error {
	if head.Len > maxDiscard || head.Option == nbd.OptExportName {
		return fmt.Errorf("option %v with %d bytes of data", head.Option, head.Len)
	}
	if _, err := io.CopyN(io.Discard, h.conn, int64(head.Len)); err != nil {
		return err
	}
	h.reply(head.Option, nbd.RepErrTooBig, "more data than any option needs")
	return nil
}

func (h *haggler) reply(o nbd.Option, t nbd.OptionReplyType, text string) {
	h.out = nbd.AppendOptionReply(h.out, o, t, []byte(text))
}

func (h *haggler) answer(o nbd.Option, data []byte) (a *agreement, done bool, err error) {
	if o == nbd.OptAbort {
		h.reply(o, nbd.RepAck, "")
		return nil, true, nil
	}
	if h.s.cfg.TLSMode == TLSRequire && !h.secure && o != nbd.OptStartTLS {
		if o == nbd.OptExportName {
			return nil, true, errNeedsTLS
		}
		h.reply(o, nbd.RepErrTLSRequired, "this server requires TLS")
		return nil, false, nil
	}
	switch o {
	case nbd.OptExportName:
		a, err = h.exportName(string(data))
		return a, true, err
	case nbd.OptList:
		h.list(data)
	case nbd.OptStartTLS:
		h.startTLS(data)
	case nbd.OptInfo, nbd.OptGo:
		a = h.info(o, data)
		return a, a != nil, nil
	case nbd.OptStructuredReply, nbd.OptExtendedHeaders:
		h.setMode(o, data)
	case nbd.OptListMetaContext, nbd.OptSetMetaContext:
		h.metaContext(o, data)
	default:
		h.reply(o, nbd.RepErrUnsupported, "unknown option")
	}
	return nil, false, nil
}

func (h *haggler) exportName(name string) (*agreement, error) {
	e := h.find(name)
	if e == nil {
		return nil, errNoExport
	}
	a := h.agree(e)
	h.out = nbd.AppendExportNameReply(h.out, uint64(e.Disk.Size()), a.flags, h.noZeroes)
	return a, nil
}

func (h *haggler) agree(e *export) *agreement {
	a := &agreement{terms: h.terms, conn: h.conn, exp: e}
	if h.contextsOf != e {
		a.contexts = nil
	}
	a.flags = e.flags(h.mode, len(a.contexts) > 0)
	return a
}

func (h *haggler) list(data []byte) {
	if len(data) != 0 {
		h.reply(nbd.OptList, nbd.RepErrInvalid, "LIST takes no data")
		return
	}
	for _, e := range h.s.exports {
		h.out = nbd.AppendOptionReply(h.out, nbd.OptList, nbd.RepServer, nbd.AppendServer(nil, e.Name, e.Description))
	}
	h.reply(nbd.OptList, nbd.RepAck, "")
}

func (h *haggler) startTLS(data []byte) {
	switch {
	case len(data) != 0:
		h.reply(nbd.OptStartTLS, nbd.RepErrInvalid, "STARTTLS takes no data")
	case h.secure:
		h.reply(nbd.OptStartTLS, nbd.RepErrInvalid, "TLS is already on")
	case h.s.cfg.TLSMode == TLSOff:
		h.reply(nbd.OptStartTLS, nbd.RepErrPolicy, "this server has no TLS")
	default:
		h.reply(nbd.OptStartTLS, nbd.RepAck, "")
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
	tc := tls.Server(h.conn, h.s.cfg.TLS)
	if err := tc.Handshake(); err != nil { // under the deadline of the whole negotiation
		return fmt.Errorf("TLS handshake: %w", err)
	}
	h.conn = tc
	return nil
}

// info answers INFO and GO, whose replies are the same; an agreement ends the
// negotiation.
func (h *haggler) info(o nbd.Option, data []byte) *agreement {
	name, asked, err := nbd.DecodeGo(data)
	if err != nil {
		h.reply(o, nbd.RepErrInvalid, err.Error())
		return nil
	}
	e := h.find(name)
	if e == nil {
		h.reply(o, nbd.RepErrUnknown, "no such export")
		return nil
	}
	a := h.agree(e)
	h.info1(o, nbd.Info{Type: nbd.InfoExport, Size: uint64(e.Disk.Size()), Flags: a.flags})
	for _, t := range asked {
		switch t {
		case nbd.InfoName:
			h.info1(o, nbd.Info{Type: t, Text: e.Name})
		case nbd.InfoDescription:
			h.info1(o, nbd.Info{Type: t, Text: e.Description})
		case nbd.InfoBlockSize:
			h.info1(o, e.blockSize())
		}
	}
	h.reply(o, nbd.RepAck, "")
	if o == nbd.OptInfo {
		return nil
	}
	return a
}

func (h *haggler) info1(o nbd.Option, i nbd.Info) {
	h.out = nbd.AppendOptionReply(h.out, o, nbd.RepInfo, i.Append(nil))
}

func (h *haggler) setMode(o nbd.Option, data []byte) {
	switch {
	case len(data) != 0:
		h.reply(o, nbd.RepErrInvalid, "the option takes no data")
	case o == nbd.OptStructuredReply && h.mode == nbd.Extended:
		h.reply(o, nbd.RepErrExtHeaderReqd, "extended headers are already on")
	case o == nbd.OptStructuredReply && h.mode == nbd.Structured, o == nbd.OptExtendedHeaders && h.mode == nbd.Extended:
		h.reply(o, nbd.RepErrInvalid, "already negotiated")
	default:
		h.mode = nbd.Structured
		if o == nbd.OptExtendedHeaders {
			h.mode = nbd.Extended
		}
		h.reply(o, nbd.RepAck, "")
	}
}

// metaContext answers LIST_META_CONTEXT and SET_META_CONTEXT. A SET that fails
// still clears the earlier selection.
func (h *haggler) metaContext(o nbd.Option, data []byte) {
	if o == nbd.OptSetMetaContext {
		h.contexts, h.contextsOf = nil, nil
	}
	if h.mode < nbd.Structured {
		h.reply(o, nbd.RepErrInvalid, "structured replies come first")
		return
	}
	name, queries, err := nbd.DecodeMetaQuery(data)
	if err != nil {
		h.reply(o, nbd.RepErrInvalid, err.Error())
		return
	}
	e := h.find(name)
	if e == nil {
		h.reply(o, nbd.RepErrUnknown, "no such export")
		return
	}
	var matched []metaContext
	for _, c := range e.contexts() {
		if matches(c.name, queries, o == nbd.OptListMetaContext) {
			matched = append(matched, c)
		}
	}
	for i, c := range matched {
		id := uint32(0)
		if o == nbd.OptSetMetaContext {
			id = contextID(i)
		}
		h.out = nbd.AppendOptionReply(h.out, o, nbd.RepMetaContext, nbd.AppendMetaContext(nil, id, c.name))
	}
	h.reply(o, nbd.RepAck, "")
	if o == nbd.OptSetMetaContext {
		h.contexts, h.contextsOf = matched, e
	}
}

// contextID is the wire's id of the i-th selected context.
func contextID(i int) uint32 { return uint32(i) + 1 }

// matches reports whether a query selects the context. When listing, no query
// selects all, and one that ends in a colon is a wildcard ("base:", "qemu:",
// "qemu:dirty-bitmap:"); when setting, wildcards select nothing.
func matches(name string, queries []string, listing bool) bool {
	if listing && len(queries) == 0 {
		return true
	}
	for _, q := range queries {
		if q == name || listing && strings.HasSuffix(q, ":") && strings.HasPrefix(name, q) {
			return true
		}
	}
	return false
}
