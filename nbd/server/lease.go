package server

import (
	"context"
	"fmt"
	"slices"

	"github.com/vmdisk/vmdisk/nbd"
)

// Lease is an export that exists for one connection, from Config.Resolve.
type Lease struct {
	Export
	// Until, if not nil, cuts the connection when it ends.
	Until context.Context
	// Release, if not nil, is called once: when the connection has ended and
	// nothing uses the disk any more, or when the client chose another export.
	Release func()
}

// resolve asks Config.Resolve for a name that is not among the exports; nil if
// that knows no better. A client that names it again gets the same lease.
func (h *haggler) resolve(name string) *export {
	for _, e := range h.leases {
		if e.Name == name {
			return e
		}
	}
	l, err := h.s.cfg.Resolve(h.s.ctx, name)
	if err != nil {
		h.s.log.Info("no export for a client", "client", clientName(h.v.nc), "error", err)
		return nil
	}
	l.Name = name
	e := &export{Export: l.Export, lease: &l}
	h.leases = append(h.leases, e)
	return e
}

// find returns the export for a name that the client sent, or nil.
func (h *haggler) find(name string) *export {
	if e := h.s.find(name); e != nil || h.s.cfg.Resolve == nil || len(name) > nbd.MaxString {
		return e
	}
	return h.resolve(name)
}

// releaseLeases gives back what was resolved in the negotiation, except keep.
func (h *haggler) releaseLeases(keep *export) {
	for _, e := range h.leases {
		if e != keep {
			e.release()
		}
	}
	h.leases = slices.DeleteFunc(h.leases, func(e *export) bool { return e != keep })
}

func (e *export) release() {
	if e.lease != nil && e.lease.Release != nil {
		e.lease.Release()
	}
}

// watchLease cuts the connection when its lease ends.
func (c *conn) watchLease() {
	l := c.exp.lease
	if l == nil || l.Until == nil {
		return
	}
	c.unwatch = context.AfterFunc(l.Until, func() {
		c.s.mu.Lock()
		defer c.s.mu.Unlock()
		if _, open := c.s.conns[c]; open {
			c.s.log.Info("the export's lease ended, disconnecting", "client", c.peer, "error", fmt.Sprint(context.Cause(l.Until)))
			c.kill()
		}
	})
}

// endLease follows the end of the connection.
func (c *conn) endLease() {
	if c.unwatch != nil {
		c.unwatch()
	}
	if c.exp.lease != nil {
		c.s.poll.ensureWaiter() // what closes a disk may take long
	}
	c.exp.release()
}
