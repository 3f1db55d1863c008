package server

import "github.com/vmdisk/vmdisk/nbd"

// list answers LIST. The more there is to list the fewer times it is done.
func (h *haggler) list() {
	if !h.empty(nbd.OptList) {
		return
	}
	h.left -= len(h.s.exports) / 8
	var b []byte
	for _, e := range h.s.exports {
		if h.outErr != nil {
			return
		}
		b = nbd.AppendServer(b[:0], e.Name, e.Description)
		h.reply(nbd.OptList, nbd.RepServer, b)
	}
	h.ack(nbd.OptList)
}

// info answers INFO and GO, whose replies are the same; an agreement ends the
// negotiation. Whatever is asked twice is told once.
func (h *haggler) info(o nbd.Option) *agreement {
	name := string(h.data.string("export name"))
	var asked [nbd.InfoBlockSize + 1]bool
	for n := h.data.uint16("count of information requests"); n > 0 && !h.data.failed(); n-- {
		if t := h.data.uint16("information requests"); int(t) < len(asked) {
			asked[t] = true
		}
	}
	if !h.decoded(o) {
		return nil
	}
	e := h.find(name)
	if e == nil {
		h.refuse(o, nbd.RepErrUnknown, "no such export")
		return nil
	}
	a := h.agree(e)
	h.info1(o, nbd.Info{Type: nbd.InfoExport, Size: uint64(e.Disk.Size()), Flags: a.flags})
	if asked[nbd.InfoName] {
		h.info1(o, nbd.Info{Type: nbd.InfoName, Text: e.Name})
	}
	if asked[nbd.InfoDescription] {
		h.info1(o, nbd.Info{Type: nbd.InfoDescription, Text: e.Description})
	}
	if asked[nbd.InfoBlockSize] {
		h.info1(o, e.blockSize())
	}
	h.ack(o)
	if o == nbd.OptInfo {
		return nil
	}
	return a
}

func (h *haggler) info1(o nbd.Option, i nbd.Info) { h.reply(o, nbd.RepInfo, i.Append(nil)) }

func (h *haggler) setMode(o nbd.Option) {
	switch {
	case !h.empty(o):
	case o == nbd.OptStructuredReply && h.mode == nbd.Extended:
		h.refuse(o, nbd.RepErrExtHeaderReqd, "extended headers are already on")
	case o == nbd.OptStructuredReply && h.mode == nbd.Structured, o == nbd.OptExtendedHeaders && h.mode == nbd.Extended:
		h.refuse(o, nbd.RepErrInvalid, "already negotiated")
	default:
		h.mode = nbd.Structured
		if o == nbd.OptExtendedHeaders {
			h.mode = nbd.Extended
		}
		h.ack(o)
	}
}

// metaContext answers LIST_META_CONTEXT and SET_META_CONTEXT. A SET that fails
// still clears the earlier selection.
func (h *haggler) metaContext(o nbd.Option) {
	if o == nbd.OptSetMetaContext {
		h.contexts, h.contextsOf = nil, nil
	}
	if h.mode < nbd.Structured {
		h.refuse(o, nbd.RepErrInvalid, "structured replies come first")
		return
	}
	e, matched := h.queries(o == nbd.OptListMetaContext)
	if !h.decoded(o) {
		return
	}
	if e == nil {
		h.refuse(o, nbd.RepErrUnknown, "no such export")
		return
	}
	for i, c := range matched {
		id := uint32(0)
		if o == nbd.OptSetMetaContext {
			id = contextID(i)
		}
		h.reply(o, nbd.RepMetaContext, nbd.AppendMetaContext(nil, id, c.name))
	}
	h.ack(o)
	if o == nbd.OptSetMetaContext {
		h.contexts, h.contextsOf = matched, e
	}
}

// queries decodes an export, nil if there is no such, and queries, and returns the
// contexts that they match.
func (h *haggler) queries(listing bool) (*export, []metaContext) {
	name := h.data.string("export name")
	if h.data.failed() {
		return nil, nil
	}
	e := h.find(string(name))
	var all []metaContext
	if e != nil {
		all = e.contexts()
	}
	n := h.data.uint32("count of queries")
	if uint64(n)*4 > uint64(h.data.rest()) {
		h.data.fail("%d queries in %d bytes", n, h.data.rest())
	}
	found := make([]bool, len(all))
	for range n {
		q := h.data.string("context query")
		if h.data.failed() {
			return nil, nil
		}
		for i := range all {
			found[i] = found[i] || matches(all[i].name, q, listing)
		}
	}
	var matched []metaContext
	for i, c := range all {
		if found[i] || listing && n == 0 {
			matched = append(matched, c)
		}
	}
	return e, matched
}

// contextID is the wire's id of the i-th selected context.
func contextID(i int) uint32 { return uint32(i) + 1 }

// matches reports whether a query selects the context. When listing, one that ends in
// a colon is a wildcard ("base:", "qemu:", "qemu:dirty-bitmap:"); when setting, wildcards
// select nothing.
func matches(name string, query []byte, listing bool) bool {
	n := len(query)
	return string(query) == name || listing && n > 0 && n < len(name) && query[n-1] == ':' && name[:n] == string(query)
}
