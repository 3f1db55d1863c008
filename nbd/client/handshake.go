package client

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/nbd"
)

// Bounds on what a server may say in a handshake.
const (
	maxOptionReply   = 64 << 10 // bytes of one reply
	maxOptionReplies = 10000    // replies to one option: exports, contexts
)

// Export describes an export as the server described it.
type Export struct {
	Name, Description string
	Size              int64
	Flags             nbd.TransmissionFlags
	// BlockSizes tells whether the server gave block sizes; if not, Min,
	// Preferred and Max are what section "Block size constraints" advises: 512,
	// 4096 and 32 MiB.
	BlockSizes          bool
	Min, Preferred, Max uint32
	// Mode is the header format of the session.
	Mode nbd.Mode
	// Contexts are those negotiated, or those that exist (see Inspect).
	Contexts []string
	TLS      bool
}

// Has reports whether all flags of f are set.
func (e *Export) Has(f nbd.TransmissionFlags) bool { return e.Flags&f == f }

// Same reports whether two descriptions are of an export that nothing distinguishes.
func (e *Export) Same(o *Export) bool {
	return e.Size == o.Size && e.Flags == o.Flags && e.Mode == o.Mode &&
		e.Min == o.Min && e.Preferred == o.Preferred && e.Max == o.Max && slices.Equal(e.Contexts, o.Contexts)
}

// handshake is the state of a negotiation on one connection. It reads exactly
// the bytes of each message, so nothing that a third party sent before TLS
// began can be taken for the server's words after it.
type handshake struct {
	cfg    *Config
	nc     net.Conn // plain or TLS
	buf    []byte
	server nbd.HandshakeFlags
	export Export
	ids    []uint32 // ids of export.Contexts
}

// connect opens a connection and negotiates up to, not including, the choice
// of the export. ctx bounds the time.
func connect(ctx context.Context, cfg *Config) (*handshake, error) {
	nc, err := cfg.Dialer(ctx, cfg.Network, cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("connect to NBD server: %w", err)
	}
	h := &handshake{cfg: cfg, nc: nc, export: Export{Name: cfg.Export}}
	if err := h.within(ctx, h.begin); err != nil {
		nc.Close()
		return nil, err
	}
	return h, nil
}

// within runs a part of the handshake that ends when ctx does.
func (h *handshake) within(ctx context.Context, f func() error) error {
	nc := h.nc
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	err := f()
	if stop() && err == nil {
		return nil
	}
	if err = cmp.Or(ctx.Err(), err); errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %v: %w", h.cfg.HandshakeTimeout, err)
	}
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("the server closed the connection: %w", io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("NBD handshake with %s: %w", h.cfg.Addr, err)
}

func (h *handshake) begin() error {
	b, err := h.read(nbd.GreetingSize)
	if err != nil {
		return err
	}
	if h.server, err = nbd.DecodeGreeting(b); err != nil {
		return err
	}
	flags := h.server & (nbd.FlagFixedNewstyle | nbd.FlagNoZeroes)
	if err := h.write(nbd.AppendClientFlags(nil, flags)); err != nil {
		return err
	}
	if h.cfg.TLS != nil {
		return h.startTLS()
	}
	return nil
}

func (h *handshake) fixed() bool { return h.server&nbd.FlagFixedNewstyle != 0 }

func (h *handshake) startTLS() error {
	if !h.fixed() {
		return ErrNoTLS
	}
	if err := h.ask(nbd.OptStartTLS, nil, nil); err != nil {
		var refused *OptionError
		if errors.As(err, &refused) && refused.noTLS() {
			return fmt.Errorf("%w (%w)", ErrNoTLS, err)
		}
		return err
	}
	t := tls.Client(h.nc, h.cfg.TLS)
	if err := t.Handshake(); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	h.nc, h.export.TLS = t, true
	return nil
}

// open chooses the export; after it the transmission phase begins.
func (h *handshake) open() error {
	if !h.fixed() {
		return h.exportName()
	}
	if err := h.headers(); err != nil {
		return err
	}
	if err := h.contexts(); err != nil {
		return err
	}
	err := h.info(nbd.OptGo)
	var refused *OptionError
	if errors.As(err, &refused) && refused.Reply == nbd.RepErrUnsupported {
		return h.exportName()
	}
	return err
}

// headers negotiates the header format, best first.
func (h *handshake) headers() error {
	steps := []struct {
		limit  Headers
		option nbd.Option
		mode   nbd.Mode
	}{
		{ExtendedHeaders, nbd.OptExtendedHeaders, nbd.Extended},
		{StructuredReplies, nbd.OptStructuredReply, nbd.Structured},
	}
	for _, s := range steps {
		if h.cfg.Headers > s.limit {
			continue
		}
		ok, err := h.try(s.option, nil, nil)
		if err != nil {
			return err
		}
		if ok {
			h.export.Mode = s.mode
			return nil
		}
	}
	return nil
}

// contexts negotiates the wanted meta contexts.
func (h *handshake) contexts() error {
	if h.export.Mode == nbd.Simple || len(h.cfg.Contexts) == 0 {
		return nil
	}
	want, err := h.wanted()
	if err != nil {
		return err
	}
	h.export.Contexts, h.ids = nil, nil
	_, err = h.try(nbd.OptSetMetaContext, nbd.AppendMetaQuery(nil, h.cfg.Export, want), h.addContext)
	return err
}

// wanted is Config.Contexts with the server's names for those that end in a colon.
func (h *handshake) wanted() (list []string, err error) {
	for _, name := range h.cfg.Contexts {
		if !strings.HasSuffix(name, ":") {
			list = append(list, name)
			continue
		}
		h.export.Contexts, h.ids = nil, nil
		if _, err := h.try(nbd.OptListMetaContext, nbd.AppendMetaQuery(nil, h.cfg.Export, []string{name}), h.addContext); err != nil {
			return nil, err
		}
		if found := h.export.Contexts; len(found) == 1 && strings.HasPrefix(found[0], name) {
			list = append(list, found[0])
		}
	}
	return list, nil
}

func (h *handshake) addContext(t nbd.OptionReplyType, b []byte) error {
	if t != nbd.RepMetaContext {
		return malformed("reply %v to a query of contexts", t)
	}
	id, name, err := nbd.DecodeMetaContext(b)
	if err != nil {
		return err
	}
	h.export.Contexts, h.ids = append(h.export.Contexts, name), append(h.ids, id)
	return nil
}

// info asks by INFO or GO what the export is.
func (h *handshake) info(o nbd.Option) error {
	want := []nbd.InfoType{nbd.InfoBlockSize, nbd.InfoDescription}
	seen := false
	err := h.ask(o, nbd.AppendGo(nil, h.cfg.Export, want), func(t nbd.OptionReplyType, b []byte) error {
		if t != nbd.RepInfo {
			return malformed("reply %v to %v", t, o)
		}
		i, err := nbd.DecodeInfo(b)
		seen = seen || i.Type == nbd.InfoExport
		if err == nil {
			err = h.export.learn(i)
		}
		return err
	})
	if err == nil && !seen {
		err = malformed("the server did not tell the size of the export")
	}
	h.export.settle()
	return err
}

func (e *Export) learn(i nbd.Info) error {
	switch i.Type {
	case nbd.InfoExport:
		return e.setSize(i.Size, i.Flags)
	case nbd.InfoDescription:
		e.Description = i.Text
	case nbd.InfoBlockSize:
		e.BlockSizes, e.Min, e.Preferred, e.Max = true, i.Min, i.Preferred, i.Max
	}
	return nil
}

func (e *Export) setSize(size uint64, f nbd.TransmissionFlags) error {
	if size > math.MaxInt64 {
		return malformed("export of %d bytes", size)
	}
	if f&nbd.FlagHasFlags == 0 {
		f = 0
	}
	e.Size, e.Flags = int64(size), f
	return nil
}

// settle fills in the block sizes of a server that gave none.
func (e *Export) settle() {
	if !e.BlockSizes {
		e.Min, e.Preferred, e.Max = 512, 4096, 32<<20
	}
}

// exportName chooses the export the old way, without any answer but the size;
// a server without such an export hangs up.
func (h *handshake) exportName() error {
	if err := h.write(nbd.AppendOption(nil, nbd.OptExportName, []byte(h.cfg.Export))); err != nil {
		return err
	}
	n := nbd.ExportNameReplySize(h.server&nbd.FlagNoZeroes != 0)
	b, err := h.read(n)
	if err != nil {
		return fmt.Errorf("export %q: %w", h.cfg.Export, err)
	}
	size, f, err := nbd.DecodeExportNameReply(b)
	if err != nil {
		return err
	}
	h.export.settle()
	return h.export.setSize(size, f)
}

// try is ask for an option that the server may lack. A server that insists on
// TLS is an error all the same.
func (h *handshake) try(o nbd.Option, data []byte, each func(nbd.OptionReplyType, []byte) error) (bool, error) {
	err := h.ask(o, data, each)
	var refused *OptionError
	if errors.As(err, &refused) && !errors.Is(err, ErrTLSRequired) && refused.Reply != nbd.RepErrShutdown {
		return false, nil
	}
	return err == nil, err
}

// ask sends an option and hands the replies before the final ACK to each.
func (h *handshake) ask(o nbd.Option, data []byte, each func(nbd.OptionReplyType, []byte) error) error {
	if err := h.write(nbd.AppendOption(nil, o, data)); err != nil {
		return err
	}
	for range maxOptionReplies {
		t, b, err := h.reply(o)
		switch {
		case err != nil:
			return err
		case t == nbd.RepAck:
			return nil
		case t.IsError():
			return &OptionError{Option: o, Reply: t, Message: string(b[:min(len(b), nbd.MaxString)])}
		case each == nil:
			return malformed("reply %v to %v", t, o)
		}
		if err := each(t, b); err != nil {
			return err
		}
	}
	return malformed("more than %d replies to %v", maxOptionReplies, o)
}

func (h *handshake) reply(o nbd.Option) (nbd.OptionReplyType, []byte, error) {
	b, err := h.read(nbd.OptionReplyHeaderSize)
	if err != nil {
		return 0, nil, err
	}
	r, err := nbd.DecodeOptionReplyHeader(b)
	if err != nil {
		return 0, nil, err
	}
	if r.Option != o {
		return 0, nil, malformed("reply to %v where one to %v belongs", r.Option, o)
	}
	if r.Len > maxOptionReply {
		return 0, nil, malformed("option reply of %d bytes", r.Len)
	}
	b, err = h.read(int(r.Len))
	return r.Type, b, err
}

// read returns the next n bytes; the slice is valid until the next read.
func (h *handshake) read(n int) ([]byte, error) {
	if cap(h.buf) < n {
		h.buf = make([]byte, n)
	}
	_, err := io.ReadFull(h.nc, h.buf[:n])
	return h.buf[:n], err
}

// write sends b. Under TLS 1.3 a server that refuses the client's certificate, or misses
// it, says so when the client takes the handshake for done, and closes; what is then
// written meets a closed connection, while the server's alert waits to be read.
func (h *handshake) write(b []byte) error {
	_, err := h.nc.Write(b)
	if err == nil || !h.export.TLS {
		return err
	}
	if _, why := h.nc.Read(make([]byte, 1)); isAlert(why) {
		return fmt.Errorf("TLS: %w", why)
	}
	return err
}

// isAlert reports whether an error of crypto/tls is the other end's word.
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// abort ends a handshake that chose no export.
func (h *handshake) abort() {
	_ = h.nc.SetDeadline(time.Now().Add(time.Second))
	_ = h.ask(nbd.OptAbort, nil, nil)
	_ = h.nc.Close()
}
