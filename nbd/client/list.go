package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/vmdisk/vmdisk/nbd"
)

// List asks the server which exports it has. Export of cfg does not matter. Of
// each export the name and the description are known, no more (see Inspect).
func List(ctx context.Context, cfg Config) ([]Export, error) {
	var list []Export
	err := haggle(ctx, cfg, func(h *handshake) error {
		return h.ask(nbd.OptList, nil, func(t nbd.OptionReplyType, b []byte) error {
			if t != nbd.RepServer {
				return malformed("reply %v to LIST", t)
			}
			name, description, err := nbd.DecodeServer(b)
			list = append(list, Export{Name: name, Description: description, TLS: h.export.TLS})
			return err
		})
	})
	return list, err
}

// Inspect asks about an export without opening it: size, flags, block sizes,
// and every meta context that the server has for it.
func Inspect(ctx context.Context, cfg Config) (Export, error) {
	var e Export
	err := haggle(ctx, cfg, func(h *handshake) error {
		err := h.headers()
		if err == nil && h.export.Mode != nbd.Simple {
			_, err = h.try(nbd.OptListMetaContext, nbd.AppendMetaQuery(nil, h.cfg.Export, nil), h.addContext)
		}
		if err == nil {
			err = h.info(nbd.OptInfo)
		}
		e = h.export
		return err
	})
	return e, err
}

// haggle runs f in the option phase of a connection of its own.
func haggle(ctx context.Context, cfg Config, f func(*handshake) error) error {
	cfg = cfg.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, cfg.HandshakeTimeout)
	defer cancel()
	h, err := connect(ctx, &cfg)
	if err != nil {
		return err
	}
	defer h.abort()
	return h.within(ctx, func() error {
		if !h.fixed() {
			return fmt.Errorf("the server is too old to be asked: %w", errors.ErrUnsupported)
		}
		return f(h)
	})
}
