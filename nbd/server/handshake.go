package server

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/vmdisk/vmdisk/nbd"
)

// What a client may send before it is served.
const (
	minOptions       = 32
	optionsPerExport = 4        // who lists asks this much about each
	maxOptionData    = 64 << 10 // answered; a name and some queries fit many times
	maxDiscard       = 1 << 20  // read and refused; more ends the session
	sendAt           = 4 << 10  // replies leave when there is this much
)

// Each export beyond manyExports gives a client, which may be listing them over a long
// way, more time for the whole negotiation.
const (
	manyExports   = 10
	timePerExport = 300 * time.Millisecond
)

var (
	errTooManyOptions = errors.New("more options than anybody needs")
	errNeedsTLS       = errors.New("EXPORT_NAME without the TLS that is required")
	errNoExport       = errors.New("EXPORT_NAME of an export that does not exist")
	errMadeRoom       = errors.New("cut to make room for others")
	errRefused        = errors.New("EXPORT_NAME on a connection that was refused")
)

// haggler negotiates one connection. It reads exactly what it decodes, so there
// is never plaintext in a buffer of ours when TLS begins: bytes that a man in
// the middle injected after STARTTLS reach the TLS handshake and break it.
type haggler struct {
	s        *Server
	v        *visitor
	conn     net.Conn // the visitor's, or TLS over it
	refusal  string   // if not empty, why every option is refused
	secure   bool
	noZeroes bool
	terms
	leases  []*export // what Config.Resolve gave
	timeout time.Duration
	left    int       // options that the client may still send
	end     time.Time // of the negotiation
	data    optionData
	out     []byte
	outErr  error
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
	peer  string // for the log
	exp   *export
	flags nbd.TransmissionFlags
}

// haggle negotiates until an export is chosen; nil and nil when the client
// left in good order.
func (h *haggler) haggle() (a *agreement, err error) {
	defer func() {
		var kept *export
		if a != nil && err == nil {
			kept = a.exp
		}
		h.releaseLeases(kept)
	}()
	n := len(h.s.exports)
	h.left = minOptions + optionsPerExport*n
	h.end = time.Now().Add(h.timeout + timePerExport*time.Duration(max(0, n-manyExports)))
	h.wait()
	if _, err := h.conn.Write(nbd.AppendGreeting(nil, nbd.FlagFixedNewstyle|nbd.FlagNoZeroes)); err != nil {
		return nil, err
	}
	b := h.data.buf[:nbd.ClientFlagsSize]
	if _, err := io.ReadFull(h.conn, b); err != nil {
		return nil, err
	}
	f, err := nbd.DecodeClientFlags(b)
	if err != nil {
		return nil, err
	}
	h.noZeroes = f&nbd.FlagNoZeroes != 0
	for h.left > 0 {
		h.left--
		h.wait()
		if a, done, err := h.option(); done || err != nil {
			return a, err
		}
	}
	return nil, errTooManyOptions
}

// wait sets the deadline of what comes next.
func (h *haggler) wait() {
	next := time.Now().Add(h.timeout)
	if h.end.Before(next) {
		next = h.end
	}
	_ = h.conn.SetDeadline(next)
}

// option reads and answers one option; done ends the negotiation.
func (h *haggler) option() (a *agreement, done bool, err error) {
	if _, err := io.ReadFull(h.conn, h.data.buf[:nbd.OptionHeaderSize]); err != nil {
		return nil, false, err
	}
	head, err := nbd.DecodeOptionHeader(h.data.buf[:])
	if err != nil {
		return nil, false, err
	}
	h.data.reset(h.conn, head.Len)
	if head.Len > maxOptionData {
		err = h.discard(head)
	} else {
		a, done, err = h.answer(head.Option)
	}
	if err == nil {
		_, err = h.data.end()
	}
	if a != nil && err == nil && !h.s.agree(h.v) {
		return nil, true, errDrained
	}
	if serr := h.send(); err == nil {
		err = serr
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
	h.refuse(head.Option, nbd.RepErrTooBig, "more data than any option needs")
	return nil
}

// reply appends an answer. What is there already leaves when it is much.
func (h *haggler) reply(o nbd.Option, t nbd.OptionReplyType, data []byte) {
	if len(h.out) >= sendAt {
		_ = h.send() // the error comes again
	}
	h.out = nbd.AppendOptionReply(h.out, o, t, data)
}

// send sends the answers, and keeps little memory for the next ones.
func (h *haggler) send() error {
	if h.outErr == nil && len(h.out) > 0 {
		_, h.outErr = h.conn.Write(h.out)
	}
	if h.out = h.out[:0]; cap(h.out) > 2*sendAt {
		h.out = nil
	}
	return h.outErr
}

// refuse reads the option to its end and answers with an error.
func (h *haggler) refuse(o nbd.Option, t nbd.OptionReplyType, text string) {
	if _, lost := h.data.end(); lost == nil {
		h.reply(o, t, []byte(text))
	}
}

// decoded ends the decoding of an option; false: it was malformed, which was answered,
// or the connection is lost.
func (h *haggler) decoded(o nbd.Option) bool {
	malformed, lost := h.data.end()
	if malformed != nil && lost == nil {
		h.reply(o, nbd.RepErrInvalid, []byte(malformed.Error()))
	}
	return malformed == nil && lost == nil
}

// empty answers an option that should have had no data; false: it has some.
func (h *haggler) empty(o nbd.Option) bool {
	if h.data.rest() > 0 {
		h.refuse(o, nbd.RepErrInvalid, "the option takes no data")
		return false
	}
	return true
}

func (h *haggler) ack(o nbd.Option) { h.reply(o, nbd.RepAck, nil) }

func (h *haggler) answer(o nbd.Option) (a *agreement, done bool, err error) {
	if o == nbd.OptAbort {
		_, err = h.data.end()
		h.ack(o)
		return nil, true, err
	}
	if why, t := h.closed(o); why != nil {
		if o == nbd.OptExportName {
			_, _ = h.data.end() // closing with data unread would reset the connection
			return nil, true, why
		}
		h.refuse(o, t, why.Error())
		return nil, false, nil
	}
	switch o {
	case nbd.OptExportName:
		a, err = h.exportName()
		return a, true, err
	case nbd.OptList:
		h.list()
	case nbd.OptStartTLS:
		h.startTLS()
	case nbd.OptInfo, nbd.OptGo:
		a = h.info(o)
		return a, a != nil, nil
	case nbd.OptStructuredReply, nbd.OptExtendedHeaders:
		h.setMode(o)
	case nbd.OptListMetaContext, nbd.OptSetMetaContext:
		h.metaContext(o)
	default:
		h.refuse(o, nbd.RepErrUnsupported, "unknown option")
	}
	return nil, false, nil
}

// closed tells why no option, or none but STARTTLS, is answered.
func (h *haggler) closed(o nbd.Option) (why error, t nbd.OptionReplyType) {
	switch {
	case h.refusal != "" && o == nbd.OptExportName:
		return errRefused, 0
	case h.refusal != "":
		return errors.New(h.refusal), nbd.RepErrPolicy
	case h.s.cfg.TLSMode != TLSRequire || h.secure || o == nbd.OptStartTLS:
		return nil, 0
	case o == nbd.OptExportName:
		return errNeedsTLS, 0
	}
	return errors.New("this server requires TLS"), nbd.RepErrTLSRequired
}

func (h *haggler) exportName() (*agreement, error) {
	name := string(h.data.bytes(h.data.rest(), "export name"))
	malformed, lost := h.data.end()
	if lost != nil {
		return nil, lost
	}
	e := h.find(name)
	if e == nil || malformed != nil {
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
