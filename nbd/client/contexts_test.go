package client

import (
	"slices"
	"testing"

	"github.com/vmdisk/vmdisk/nbd"
)

// A context that ends in a colon is the only one that the server has below it.
func TestOnlyContext(t *testing.T) {
	const below = nbd.ContextDirtyPrefix
	for _, c := range []struct {
		has, want []string
	}{
		{[]string{below + "a"}, []string{nbd.ContextAllocation, below + "a"}},
		{nil, []string{nbd.ContextAllocation}},
		{[]string{below + "a", below + "b"}, []string{nbd.ContextAllocation}},
		{[]string{"base:other"}, []string{nbd.ContextAllocation}},
	} {
		server := fake{mode: nbd.Structured, option: func(f *fake, o nbd.Option, data []byte) bool {
			_, queries, _ := nbd.DecodeMetaQuery(data)
			switch o {
			case nbd.OptListMetaContext:
				if !slices.Equal(queries, []string{below}) {
					t.Errorf("the list is asked for %q", queries)
				}
				queries = c.has
			case nbd.OptSetMetaContext:
			default:
				return false
			}
			for i, name := range queries {
				f.reply(o, nbd.RepMetaContext, nbd.AppendMetaContext(nil, uint32(i), name))
			}
			f.reply(o, nbd.RepAck, nil)
			return true
		}}
		cfg := server.config(t, func(f *fake) { f.request() })
		cfg.Contexts = []string{nbd.ContextAllocation, below}
		d, err := Dial(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Export().Contexts; !slices.Equal(got, c.want) {
			t.Errorf("of %q: %q, want %q", c.has, got, c.want)
		}
		d.Close()
	}
}
