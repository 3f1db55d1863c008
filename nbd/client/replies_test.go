package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/vmdisk/vmdisk/nbd"
)

func fill(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n) }

// chunkOf is a chunk with any type and payload.
func chunkOf(to nbd.ReplyTo, f nbd.ChunkFlags, t nbd.ChunkType, payload []byte) []byte {
	h := nbd.Reply{Flags: f, Type: t, Cookie: to.Cookie, Offset: to.Offset, Length: uint64(len(payload))}
	return append(h.Append(nil, to.Mode), payload...)
}

func data(to nbd.ReplyTo, f nbd.ChunkFlags, off int, p []byte) []byte {
	return append(to.AppendDataHeader(nil, f, uint64(off), len(p)), p...)
}

// Odd replies to a read of 4096 bytes at 8192. want "" is success with the bytes
// of content, "malformed" ends the session, an errno fails the request alone.
func TestReadReplies(t *testing.T) {
	t.Parallel()
	const off, n = 8192, 4096
	all := nbd.Structured // chunks are tried in both formats
	for _, c := range []struct {
		name    string
		mode    nbd.Mode
		reply   func(to nbd.ReplyTo) []byte
		want    error
		content []byte
	}{
		{"whole", all, func(to nbd.ReplyTo) []byte { return data(to, nbd.ChunkDone, off, fill(n, 1)) }, nil, fill(n, 1)},
		{"hole", all, func(to nbd.ReplyTo) []byte { return to.AppendHole(nil, nbd.ChunkDone, off, n) }, nil, fill(n, 0)},
		{"backwards, hole in the middle, done apart", all, func(to nbd.ReplyTo) []byte {
			b := data(to, 0, off+3000, fill(1096, 3))
			b = append(b, data(to, 0, off, fill(1000, 1))...)
			b = to.AppendHole(b, 0, off+1000, 2000)
			return to.AppendNone(b)
		}, nil, append(append(fill(1000, 1), fill(2000, 0)...), fill(1096, 3)...)},
		{"missing tail", all, func(to nbd.ReplyTo) []byte { return data(to, nbd.ChunkDone, off, fill(n-1, 1)) }, nbd.ErrMalformed, nil},
		{"nothing", all, func(to nbd.ReplyTo) []byte { return to.AppendNone(nil) }, nbd.ErrMalformed, nil},
		{"too long", all, func(to nbd.ReplyTo) []byte { return data(to, nbd.ChunkDone, off, fill(n+1, 1)) }, nbd.ErrMalformed, nil},
		{"before the range", all, func(to nbd.ReplyTo) []byte { return data(to, nbd.ChunkDone, off-1, fill(n, 1)) }, nbd.ErrMalformed, nil},
		{"past the range", all, func(to nbd.ReplyTo) []byte { return data(to, nbd.ChunkDone, off+1, fill(n, 1)) }, nbd.ErrMalformed, nil},
		{"offset of 2^64-1", all, func(to nbd.ReplyTo) []byte { return data(to, nbd.ChunkDone, -1, fill(10, 1)) }, nbd.ErrMalformed, nil},
		{"hole of 4 GiB", all, func(to nbd.ReplyTo) []byte { return to.AppendHole(nil, nbd.ChunkDone, off, 1<<32-1) }, nbd.ErrMalformed, nil},
		{"empty hole", all, func(to nbd.ReplyTo) []byte { return to.AppendHole(nil, 0, off, 0) }, nbd.ErrMalformed, nil},
		{"empty data", all, func(to nbd.ReplyTo) []byte { return data(to, 0, off, nil) }, nbd.ErrMalformed, nil},
		{"overlap", all, func(to nbd.ReplyTo) []byte {
			return append(data(to, 0, off, fill(2049, 1)), data(to, nbd.ChunkDone, off+2048, fill(2048, 1))...)
		}, nbd.ErrMalformed, nil},
		{"twice", all, func(to nbd.ReplyTo) []byte {
			return to.AppendHole(data(to, 0, off, fill(n, 1)), nbd.ChunkDone, off, n)
		}, nbd.ErrMalformed, nil},
		{"short data chunk", all, func(to nbd.ReplyTo) []byte { return chunkOf(to, 0, nbd.ChunkOffsetData, fill(7, 0)) }, nbd.ErrMalformed, nil},
		{"short hole chunk", all, func(to nbd.ReplyTo) []byte { return chunkOf(to, 0, nbd.ChunkOffsetHole, fill(11, 0)) }, nbd.ErrMalformed, nil},
		{"NONE with payload", all, func(to nbd.ReplyTo) []byte { return chunkOf(to, nbd.ChunkDone, nbd.ChunkNone, fill(1, 0)) }, nbd.ErrMalformed, nil},
		{"NONE without DONE", all, func(to nbd.ReplyTo) []byte { return chunkOf(to, 0, nbd.ChunkNone, nil) }, nbd.ErrMalformed, nil},
		{"unknown chunk", all, func(to nbd.ReplyTo) []byte { return chunkOf(to, nbd.ChunkDone, 99, nil) }, nbd.ErrMalformed, nil},
		{"status to a read", all, func(to nbd.ReplyTo) []byte {
			return to.AppendBlockStatus(nil, nbd.ChunkDone, contextID, []nbd.Status{{Length: 1}})
		}, nbd.ErrMalformed, nil},
		{"error", all, func(to nbd.ReplyTo) []byte { return to.AppendError(nil, nbd.ChunkDone, nbd.EIO, "bad disk") }, syscall.EIO, nil},
		{"data, then error, then data", all, func(to nbd.ReplyTo) []byte {
			b := data(to, 0, off, fill(10, 1))
			b = to.AppendErrorOffset(b, 0, nbd.EIO, "bad sector", off+10)
			return append(b, data(to, nbd.ChunkDone, off+512, fill(10, 1))...)
		}, syscall.EIO, nil},
		{"unknown error chunk", all, func(to nbd.ReplyTo) []byte {
			return chunkOf(to, nbd.ChunkDone, 1<<15+77, []byte{0, 0, 0, 12, 0, 0})
		}, syscall.ENOMEM, nil},
		{"unknown error number", all, func(to nbd.ReplyTo) []byte { return to.AppendError(nil, nbd.ChunkDone, 4711, "") }, syscall.EINVAL, nil},
		{"error 0", all, func(to nbd.ReplyTo) []byte { return to.AppendError(nil, nbd.ChunkDone, 0, "") }, nbd.ErrMalformed, nil},
		{"message beyond the chunk", all, func(to nbd.ReplyTo) []byte {
			return chunkOf(to, nbd.ChunkDone, nbd.ChunkError, []byte{0, 0, 0, 5, 0, 200, 'x'})
		}, nbd.ErrMalformed, nil},
		{"message of 5000 bytes", all, func(to nbd.ReplyTo) []byte {
			return chunkOf(to, nbd.ChunkDone, nbd.ChunkError, append([]byte{0, 0, 0, 5, 5000 >> 8, 5000 & 255}, fill(5000, 'x')...))
		}, nbd.ErrMalformed, nil},
		{"simple reply", nbd.Structured, func(to nbd.ReplyTo) []byte {
			return append(nbd.AppendSimpleReply(nil, to.Cookie, 0), fill(n, 1)...)
		}, nbd.ErrMalformed, nil},
		{"simple error", nbd.Structured, func(to nbd.ReplyTo) []byte { return nbd.AppendSimpleReply(nil, to.Cookie, nbd.EIO) }, nbd.ErrMalformed, nil},
		{"wrong cookie", all, func(to nbd.ReplyTo) []byte { to.Cookie++; return to.AppendNone(nil) }, nbd.ErrMalformed, nil},
		{"cookie out of range", all, func(to nbd.ReplyTo) []byte { to.Cookie |= 0xffffffff; return to.AppendNone(nil) }, nbd.ErrMalformed, nil},
		{"garbage", all, func(nbd.ReplyTo) []byte { return fill(100, 0xa5) }, nbd.ErrMalformed, nil},
		{"cut in the header", all, func(to nbd.ReplyTo) []byte { return to.AppendNone(nil)[:9] }, ErrDisconnected, nil},
		{"cut in the data", all, func(to nbd.ReplyTo) []byte { return data(to, nbd.ChunkDone, off, fill(n, 1))[:100] }, ErrDisconnected, nil},
		{"nothing at all", all, func(nbd.ReplyTo) []byte { return nil }, ErrDisconnected, nil},
		{"wrong offset", nbd.Extended, func(to nbd.ReplyTo) []byte { to.Offset++; return to.AppendNone(nil) }, nbd.ErrMalformed, nil},
		{"data of 2^63 bytes", nbd.Extended, func(to nbd.ReplyTo) []byte {
			h := nbd.Reply{Type: nbd.ChunkOffsetData, Cookie: to.Cookie, Offset: to.Offset, Length: 1 << 63}
			return h.Append(nil, to.Mode)
		}, nbd.ErrMalformed, nil},
		{"error of 2^63 bytes", nbd.Extended, func(to nbd.ReplyTo) []byte {
			h := nbd.Reply{Type: nbd.ChunkError, Cookie: to.Cookie, Offset: to.Offset, Length: 1 << 63}
			return h.Append(nil, to.Mode)
		}, nbd.ErrMalformed, nil},
		{"structured to simple", nbd.Simple, func(to nbd.ReplyTo) []byte { to.Mode = nbd.Structured; return to.AppendNone(nil) }, nbd.ErrMalformed, nil},
		{"whole", nbd.Simple, func(to nbd.ReplyTo) []byte {
			return append(nbd.AppendSimpleReply(nil, to.Cookie, 0), fill(n, 5)...)
		}, nil, fill(n, 5)},
		{"error", nbd.Simple, func(to nbd.ReplyTo) []byte { return nbd.AppendSimpleReply(nil, to.Cookie, nbd.EIO) }, syscall.EIO, nil},
		{"cut", nbd.Simple, func(to nbd.ReplyTo) []byte {
			return append(nbd.AppendSimpleReply(nil, to.Cookie, 0), fill(n-1, 5)...)
		}, ErrDisconnected, nil},
	} {
		modes := []nbd.Mode{c.mode}
		if c.mode == all && !strings.HasPrefix(c.name, "simple") {
			modes = append(modes, nbd.Extended)
		}
		for _, mode := range modes {
			t.Run(fmt.Sprintf("%v/%s", mode, c.name), func(t *testing.T) {
				t.Parallel()
				client := dial(t, fake{mode: mode}.config(t, func(f *fake) {
					if r, _, ok := f.request(); ok {
						f.send(c.reply(f.to(r)))
					}
				}))
				// The memory around the buffer must stay as it is, in two pieces or one.
				mem := fill(n+200, 0xcc)
				k := newCall(nbd.CmdRead, 0, off, n)
				k.Vec = [][]byte{mem[100:1234], mem[1234 : n+100]}
				err := client.do(context.Background(), k)
				if !errors.Is(err, c.want) || c.want == nil && err != nil {
					t.Fatalf("got %v, want %v", err, c.want)
				}
				if c.want == nbd.ErrMalformed && !errors.Is(err, ErrDisconnected) {
					t.Errorf("a broken protocol did not end the session: %v", err)
				}
				if c.content != nil && !bytes.Equal(mem[100:n+100], c.content) {
					t.Error("wrong content")
				}
				if !bytes.Equal(mem[:100], fill(100, 0xcc)) || !bytes.Equal(mem[n+100:], fill(100, 0xcc)) {
					t.Error("memory outside the buffer was touched")
				}
			})
		}
	}
}

func TestStatusReplies(t *testing.T) {
	t.Parallel()
	two := []nbd.Status{{Length: 4096, Flags: 3}, {Length: 1 << 16}}
	for _, c := range []struct {
		name  string
		reply func(to nbd.ReplyTo) []byte
		want  error
	}{
		{"two extents", func(to nbd.ReplyTo) []byte { return to.AppendBlockStatus(nil, nbd.ChunkDone, contextID, two) }, nil},
		{"done apart", func(to nbd.ReplyTo) []byte {
			return to.AppendNone(to.AppendBlockStatus(nil, 0, contextID, two))
		}, nil},
		{"none", func(to nbd.ReplyTo) []byte { return to.AppendNone(nil) }, nbd.ErrMalformed},
		{"unknown context", func(to nbd.ReplyTo) []byte { return to.AppendBlockStatus(nil, nbd.ChunkDone, 8, two) }, nbd.ErrMalformed},
		{"twice", func(to nbd.ReplyTo) []byte {
			return to.AppendBlockStatus(to.AppendBlockStatus(nil, 0, contextID, two), nbd.ChunkDone, contextID, two)
		}, nbd.ErrMalformed},
		{"empty extent", func(to nbd.ReplyTo) []byte {
			return to.AppendBlockStatus(nil, nbd.ChunkDone, contextID, []nbd.Status{{}})
		}, nbd.ErrMalformed},
		{"huge", func(to nbd.ReplyTo) []byte {
			h := nbd.Reply{Type: nbd.ChunkBlockStatus, Cookie: to.Cookie, Offset: to.Offset, Length: 1<<32 - 4}
			if to.Mode == nbd.Extended {
				h.Type = nbd.ChunkBlockStatusExt
			}
			return h.Append(nil, to.Mode)
		}, nbd.ErrMalformed},
		{"the other format", func(to nbd.ReplyTo) []byte {
			ty := nbd.ChunkBlockStatusExt
			if to.Mode == nbd.Extended {
				ty = nbd.ChunkBlockStatus
			}
			return chunkOf(to, nbd.ChunkDone, ty, append([]byte{0, 0, 0, contextID, 0, 0, 0, 1}, fill(16, 1)...))
		}, nbd.ErrMalformed},
		{"error", func(to nbd.ReplyTo) []byte { return to.AppendError(nil, nbd.ChunkDone, nbd.EINVAL, "") }, syscall.EINVAL},
		{"data", func(to nbd.ReplyTo) []byte { return data(to, nbd.ChunkDone, 0, fill(1, 1)) }, nbd.ErrMalformed},
	} {
		for _, mode := range []nbd.Mode{nbd.Structured, nbd.Extended} {
			t.Run(fmt.Sprintf("%v/%s", mode, c.name), func(t *testing.T) {
				t.Parallel()
				client := dial(t, fake{mode: mode}.config(t, func(f *fake) {
					if r, _, ok := f.request(); ok {
						f.send(c.reply(f.to(r)))
					}
				}))
				got, err := client.BlockStatus(context.Background(), 0, 0, 1<<16, make([]nbd.Status, 0, 8))
				if !errors.Is(err, c.want) || c.want == nil && err != nil {
					t.Fatalf("got %v, want %v", err, c.want)
				}
				if err == nil && (len(got) != 2 || got[0] != two[0] || got[1] != two[1]) {
					t.Errorf("%v", got)
				}
			})
		}
	}
}

// What dst has no room for is left out.
func TestStatusRoom(t *testing.T) {
	t.Parallel()
	many := make([]nbd.Status, 20000)
	for i := range many {
		many[i] = nbd.Status{Length: 512, Flags: uint64(i & 3)}
	}
	c := dial(t, fake{mode: nbd.Structured}.config(t, func(f *fake) {
		for r, _, ok := f.request(); ok; r, _, ok = f.request() {
			f.send(f.to(r).AppendBlockStatus(nil, nbd.ChunkDone, contextID, many))
		}
	}))
	for _, room := range []int{0, 1, 300, 30000} {
		got, err := c.BlockStatus(context.Background(), 0, 0, fakeSize, make([]nbd.Status, 2, 2+room))
		if err != nil || len(got) != 2+min(max(room, 1), len(many)) && room > 0 || got[len(got)-1] != many[len(got)-3] {
			t.Errorf("room %d: %d extents, %v", room, len(got), err)
		}
	}
}

// Commands without data, answered in every way a mode allows.
func TestPlainReplies(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m nbd.Mode) {
		errno := make(chan nbd.Errno, 1)
		c := dial(t, fake{mode: m}.config(t, func(f *fake) {
			for r, _, ok := f.request(); ok; r, _, ok = f.request() {
				f.answer(r, <-errno)
			}
		}))
		ctx := context.Background()
		for name, run := range map[string]func() error{
			"write":      func() error { return c.WriteAt(ctx, fill(512, 1), 0, nbd.CmdFlagFUA) },
			"zero":       func() error { return c.WriteZeroes(ctx, 0, 512, nbd.CmdFlagFastZero|nbd.CmdFlagNoHole) },
			"trim":       func() error { return c.Trim(ctx, 0, 512, 0) },
			"cache":      func() error { return c.Cache(ctx, 0, 512) },
			"flush":      func() error { return c.Flush(ctx) },
			"trim a lot": func() error { return c.Trim(ctx, 0, fakeSize, 0) },
		} {
			for e, want := range map[nbd.Errno]error{nbd.OK: nil, nbd.ENOSPC: syscall.ENOSPC, nbd.EPERM: syscall.EPERM, nbd.ENOTSUP: errors.ErrUnsupported} {
				errno <- e
				if err := run(); !errors.Is(err, want) || want == nil && err != nil {
					t.Errorf("%s, %v: %v", name, e, err)
				}
			}
		}
		// A simple reply to these is allowed beside structured ones.
		errno <- nbd.OK
		if err := c.Flush(ctx); err != nil {
			t.Error(err)
		}
	})
}

// Replies in any order find their requests.
func TestOutOfOrder(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m nbd.Mode) {
		const depth = 32
		c := dial(t, fake{mode: m}.config(t, func(f *fake) {
			var list []nbd.Request
			for range depth {
				r, _, ok := f.request()
				if !ok {
					return
				}
				list = append(list, r)
			}
			for i := range list {
				r := list[(i*7+3)%depth]
				p := fill(int(r.Length), byte(r.Offset/4096))
				if m == nbd.Simple {
					f.send(append(nbd.AppendSimpleReply(nil, r.Cookie, 0), p...))
				} else {
					f.send(data(f.to(r), nbd.ChunkDone, int(r.Offset), p))
				}
			}
		}))
		batch := make([]*Request, depth)
		for i := range batch {
			batch[i] = &Request{Command: nbd.CmdRead, Offset: int64(i) * 4096, Length: 4096, Vec: [][]byte{make([]byte, 4096)}, Owner: newCounted()}
		}
		c.Start(batch...)
		for i, r := range batch {
			o := r.Owner.(*counted)
			within(t, o.end, "read")
			if o.err != nil || !bytes.Equal(r.Vec[0], fill(4096, byte(i))) || o.n.Load() != 1 {
				t.Errorf("read %d: %v, first byte %d", i, o.err, r.Vec[0][0])
			}
		}
	})
}

// Requests that the export does not allow are not sent.
func TestRefusedByTheClient(t *testing.T) {
	t.Parallel()
	c := dial(t, fake{mode: nbd.Structured, info: &nbd.Info{Type: nbd.InfoBlockSize, Min: 1, Preferred: 4096, Max: 1 << 16}}.config(t, func(f *fake) {
		if r, _, ok := f.request(); ok {
			t.Errorf("%+v was sent", r)
		}
	}))
	ctx := context.Background()
	for name, err := range map[string]error{
		"read past the end":     c.ReadAt(ctx, make([]byte, 512), fakeSize-511),
		"read before the start": c.ReadAt(ctx, make([]byte, 512), -1),
		"read too long":         c.ReadAt(ctx, make([]byte, 1<<16+1), 0),
		"read nothing":          c.ReadAt(ctx, nil, 0),
		"zero of negative size": c.WriteZeroes(ctx, 0, -1, 0),
		"zero past the end":     c.WriteZeroes(ctx, 1, fakeSize, 0),
		"no such context":       func() error { _, err := c.BlockStatus(ctx, 1, 0, 1, nil); return err }(),
	} {
		if err == nil || errors.Is(err, ErrDisconnected) {
			t.Errorf("%s: %v", name, err)
		}
	}
	k := newCall(nbd.CmdRead, 0, 0, 512)
	k.Vec = [][]byte{make([]byte, 511)}
	if err := c.do(ctx, k); err == nil {
		t.Error("a read with memory of another length was sent")
	}
}
