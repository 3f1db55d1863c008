package client

import (
	"context"
	"errors"
	"testing"

	"github.com/vmdisk/vmdisk/nbd"
)

// A reply of chunks that bring nothing is cut, whoever waits for it: a hostile server that went on with it
// would hold a client for good, as it is never silent.
func TestEndlessReplies(t *testing.T) {
	t.Parallel()
	const n = 4096
	for name, c := range map[string]struct {
		junk    func(to nbd.ReplyTo) []byte
		discard bool
	}{
		"errors": {func(to nbd.ReplyTo) []byte { return to.AppendError(nil, 0, nbd.EIO, "no") }, false},
		"errors of offsets": {func(to nbd.ReplyTo) []byte {
			return to.AppendErrorOffset(nil, 0, nbd.EIO, "no", to.Offset)
		}, false},
		"errors to nobody": {func(to nbd.ReplyTo) []byte { return to.AppendError(nil, 0, nbd.EIO, "no") }, true},
		"data to nobody":   {func(to nbd.ReplyTo) []byte { return data(to, 0, 0, fill(n, 1)) }, true},
		"holes to nobody":  {func(to nbd.ReplyTo) []byte { return to.AppendHole(nil, 0, 0, n) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			told := make(chan struct{})
			client := dial(t, fake{mode: nbd.Structured}.config(t, func(f *fake) {
				r, _, ok := f.request()
				if !ok {
					return
				}
				if c.discard {
					f.send(data(f.to(r), 0, 0, fill(1, 1)))
					cancel()
					<-told
				}
				junk := c.junk(f.to(r))
				for range 2 * maxIdleChunks {
					if _, err := f.nc.Write(junk); err != nil {
						return
					}
				}
				f.answer(r, nbd.EIO)
				for r, _, ok := f.request(); ok; r, _, ok = f.request() {
					f.answer(r, nbd.OK)
				}
			}))
			err := client.ReadAt(ctx, make([]byte, n), 0)
			close(told)
			if c.discard {
				err = client.Flush(context.Background())
			}
			if !errors.Is(err, nbd.ErrMalformed) {
				t.Errorf("%v", err)
			}
		})
	}
}

// So is one that answers for the contexts that were not asked for.
func TestEndlessContexts(t *testing.T) {
	t.Parallel()
	const other = contextID + 1
	server := fake{mode: nbd.Structured, option: func(f *fake, o nbd.Option, _ []byte) bool {
		if o == nbd.OptSetMetaContext {
			f.reply(o, nbd.RepMetaContext, nbd.AppendMetaContext(nil, contextID, nbd.ContextAllocation))
			f.reply(o, nbd.RepMetaContext, nbd.AppendMetaContext(nil, other, nbd.ContextDirtyPrefix+"a"))
			f.reply(o, nbd.RepAck, nil)
		}
		return o == nbd.OptSetMetaContext
	}}
	one := []nbd.Status{{Length: 4096}}
	cfg := server.config(t, func(f *fake) {
		r, _, ok := f.request()
		if !ok {
			return
		}
		junk := f.to(r).AppendBlockStatus(nil, 0, other, one)
		for range 2 * maxIdleChunks {
			if _, err := f.nc.Write(junk); err != nil {
				return
			}
		}
		f.send(f.to(r).AppendBlockStatus(nil, nbd.ChunkDone, contextID, one))
	})
	cfg.Contexts = []string{nbd.ContextAllocation, nbd.ContextDirtyPrefix + "a"}
	_, err := dial(t, cfg).BlockStatus(context.Background(), 0, 0, 4096, make([]nbd.Status, 0, 8))
	if !errors.Is(err, nbd.ErrMalformed) {
		t.Errorf("%v", err)
	}
}
