package nbd

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"syscall"
	"testing"
)

func TestRequestRoundTrip(t *testing.T) {
	t.Parallel()
	want := Request{Flags: CmdFlagFUA | CmdFlagNoHole, Command: CmdWriteZeroes, Cookie: 0x0102030405060708, Offset: 1 << 40, Length: 1 << 31}
	for _, m := range []Mode{Simple, Structured, Extended} {
		b := want.Append(nil, m)
		if len(b) != m.RequestHeaderSize() {
			t.Errorf("%v: %d bytes", m, len(b))
		}
		var got Request
		for n := range b {
			if _, err := got.Decode(b[:n], m); !errors.Is(err, ErrShort) {
				t.Errorf("%v: %d of %d bytes: %v", m, n, len(b), err)
			}
		}
		if n, err := got.Decode(b, m); err != nil || n != len(b) || got != want {
			t.Errorf("%v: got %+v, %d, %v", m, got, n, err)
		}
		b[0]++
		if _, err := got.Decode(b, m); !errors.Is(err, ErrMalformed) {
			t.Errorf("%v: bad magic: %v", m, err)
		}
	}
}

// The bytes of the compact request and simple reply, from doc/proto.md.
func TestWireBytes(t *testing.T) {
	t.Parallel()
	r := Request{Flags: CmdFlagFUA, Command: CmdWrite, Cookie: 1, Offset: 2, Length: 3}
	want := []byte("\x25\x60\x95\x13\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x03")
	if got := r.Append(nil, Simple); !bytes.Equal(got, want) {
		t.Errorf("request %x", got)
	}
	want = []byte("\x67\x44\x66\x98\x00\x00\x00\x1c\x00\x00\x00\x00\x00\x00\x00\x09")
	if got := AppendSimpleReply(nil, 9, ENOSPC); !bytes.Equal(got, want) {
		t.Errorf("simple reply %x", got)
	}
	want = []byte("\x66\x8e\x33\xef\x00\x01\x00\x02\x00\x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x0c" +
		"\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x02\x00")
	if got := (ReplyTo{Mode: Structured, Cookie: 9}).AppendHole(nil, ChunkDone, 4096, 512); !bytes.Equal(got, want) {
		t.Errorf("hole %x", got)
	}
	want = []byte("\x6e\x8a\x27\x8c\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x09" +
		"\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00\x00")
	if got := (ReplyTo{Mode: Extended, Cookie: 9, Offset: 7}).AppendNone(nil); !bytes.Equal(got, want) {
		t.Errorf("none %x", got)
	}
}

func TestReplyRoundTrip(t *testing.T) {
	t.Parallel()
	for _, m := range []Mode{Structured, Extended} {
		to := ReplyTo{Mode: m, Cookie: 77}
		if m == Extended {
			to.Offset = 4096
		}
		decode := func(b []byte) (Reply, []byte) {
			t.Helper()
			var r Reply
			n, err := r.Decode(b, m)
			if err != nil || uint64(len(b)-n) != r.Length || r.Cookie != 77 || r.Offset != to.Offset {
				t.Fatalf("%v: %+v, %d of %d, %v", m, r, n, len(b), err)
			}
			return r, b[n:]
		}
		r, p := decode(append(to.AppendDataHeader(nil, 0, 4096, 3), "abc"...))
		off, err := DecodeDataOffset(p)
		if r.Type != ChunkOffsetData || r.Done() || off != 4096 || err != nil || string(p[8:]) != "abc" {
			t.Errorf("%v data: %+v %d %v", m, r, off, err)
		}
		r, p = decode(to.AppendHole(nil, ChunkDone, 8192, 512))
		off, n, err := DecodeHole(p)
		if r.Type != ChunkOffsetHole || !r.Done() || off != 8192 || n != 512 || err != nil {
			t.Errorf("%v hole: %+v %d %d %v", m, r, off, n, err)
		}
		extents := []Status{{4096, 3}, {1 << 31, 0}}
		r, p = decode(to.AppendBlockStatus(nil, 0, 5, extents))
		id, got, err := DecodeBlockStatus(r.Type, p, nil)
		if id != 5 || !reflect.DeepEqual(got, extents) || err != nil {
			t.Errorf("%v status: %d %v %v", m, id, got, err)
		}
		r, p = decode(to.AppendError(nil, ChunkDone, ENOSPC, "full"))
		e, err := DecodeError(r.Type, p)
		if e != (ErrorChunk{ENOSPC, "full", 0}) || err != nil || !r.Type.IsError() {
			t.Errorf("%v error: %+v %v", m, e, err)
		}
		r, p = decode(to.AppendErrorOffset(nil, ChunkDone, EIO, "bad", 12345))
		e, err = DecodeError(r.Type, p)
		if e != (ErrorChunk{EIO, "bad", 12345}) || err != nil {
			t.Errorf("%v error: %+v %v", m, e, err)
		}
	}
	var r Reply
	b := AppendSimpleReply(nil, 3, EPERM)
	if n, err := r.Decode(b, Structured); n != 16 || err != nil || !r.Simple || !r.Done() || r.Error != EPERM || r.Cookie != 3 {
		t.Errorf("simple: %+v %v", r, err)
	}
	if !bytes.Equal(r.Append(nil, Structured), b) {
		t.Error("a simple reply does not re-encode")
	}
	for _, c := range []struct {
		mode Mode
		b    []byte
	}{
		{Extended, b},
		{Simple, (ReplyTo{Mode: Structured}).AppendNone(nil)},
		{Extended, (ReplyTo{Mode: Structured}).AppendNone(nil)},
		{Structured, (ReplyTo{Mode: Extended}).AppendNone(nil)},
	} {
		if _, err := r.Decode(c.b, c.mode); !errors.Is(err, ErrMalformed) {
			t.Errorf("mode %v took %x: %v", c.mode, c.b[:4], err)
		}
	}
}

func TestHandshakeRoundTrip(t *testing.T) {
	t.Parallel()
	g := AppendGreeting(nil, FlagFixedNewstyle|FlagNoZeroes)
	if f, err := DecodeGreeting(g); len(g) != GreetingSize || f != 3 || err != nil {
		t.Errorf("greeting: %d bytes, %v, %v", len(g), f, err)
	}
	if _, err := DecodeGreeting(append(append([]byte{}, g[:8]...), "\x00\x00\x42\x02\x81\x86\x12\x53\x00\x00"...)); err == nil || !strings.Contains(err.Error(), "oldstyle") {
		t.Errorf("oldstyle: %v", err)
	}
	if f, err := DecodeClientFlags(AppendClientFlags(nil, FlagNoZeroes)); f != FlagNoZeroes || err != nil {
		t.Errorf("client flags: %v %v", f, err)
	}
	if _, err := DecodeClientFlags([]byte{0, 0, 0, 4}); !errors.Is(err, ErrMalformed) {
		t.Errorf("unknown client flags: %v", err)
	}
	o := AppendOption(nil, OptGo, AppendGo(nil, "disk", []InfoType{InfoBlockSize, InfoName}))
	h, err := DecodeOptionHeader(o)
	if h.Option != OptGo || int(h.Len) != len(o)-OptionHeaderSize || err != nil {
		t.Errorf("option: %+v %v", h, err)
	}
	name, infos, err := DecodeGo(o[OptionHeaderSize:])
	if name != "disk" || !reflect.DeepEqual(infos, []InfoType{InfoBlockSize, InfoName}) || err != nil {
		t.Errorf("go: %q %v %v", name, infos, err)
	}
	queries := []string{"base:allocation", "qemu:"}
	name, got, err := DecodeMetaQuery(AppendMetaQuery(nil, "d", queries))
	if name != "d" || !reflect.DeepEqual(got, queries) || err != nil {
		t.Errorf("meta query: %q %v %v", name, got, err)
	}
	r := AppendOptionReply(nil, OptSetMetaContext, RepMetaContext, AppendMetaContext(nil, 4, ContextAllocation))
	rh, err := DecodeOptionReplyHeader(r)
	if rh.Option != OptSetMetaContext || rh.Type != RepMetaContext || rh.Type.IsError() || err != nil {
		t.Errorf("option reply: %+v %v", rh, err)
	}
	id, name, err := DecodeMetaContext(r[OptionReplyHeaderSize:])
	if id != 4 || name != ContextAllocation || err != nil {
		t.Errorf("context: %d %q %v", id, name, err)
	}
	name, text, err := DecodeServer(AppendServer(nil, "d", "a disk"))
	if name != "d" || text != "a disk" || err != nil {
		t.Errorf("server: %q %q %v", name, text, err)
	}
	for _, pad := range []bool{false, true} {
		b := AppendExportNameReply(nil, 1<<30, FlagHasFlags, pad)
		size, f, err := DecodeExportNameReply(b)
		if len(b) != ExportNameReplySize(pad) || size != 1<<30 || f != FlagHasFlags || err != nil {
			t.Errorf("export name: %d bytes, %d %v %v", len(b), size, f, err)
		}
	}
	for _, want := range []Info{
		{Type: InfoExport, Size: 1 << 40, Flags: FlagHasFlags | FlagReadOnly},
		{Type: InfoName, Text: "n"},
		{Type: InfoDescription, Text: "d"},
		{Type: InfoBlockSize, Min: 512, Preferred: 4096, Max: 32 << 20},
		{Type: 99},
	} {
		if got, err := DecodeInfo(want.Append(nil)); got != want || err != nil {
			t.Errorf("info %+v: %+v %v", want, got, err)
		}
	}
}

func TestMalformedHandshake(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", MaxString+1)
	goOf := func(b []byte) error { _, _, err := DecodeGo(b); return err }
	meta := func(b []byte) error { _, _, err := DecodeMetaQuery(b); return err }
	info := func(b []byte) error { _, err := DecodeInfo(b); return err }
	for _, c := range []struct {
		name   string
		decode func([]byte) error
		b      []byte
	}{
		{"empty go", goOf, nil},
		{"name beyond the option", goOf, []byte{0, 0, 0, 9, 'a'}},
		{"name of 4 GiB", goOf, []byte{255, 255, 255, 255, 'a'}},
		{"long name", goOf, AppendGo(nil, long, nil)},
		{"name with NUL", goOf, AppendGo(nil, "a\x00b", nil)},
		{"name not UTF-8", goOf, AppendGo(nil, "\xff\xfe", nil)},
		{"no info count", goOf, appendString(nil, "x")},
		{"info beyond the option", goOf, append(appendString(nil, "x"), 0, 5, 0, 1)},
		{"trailing bytes", goOf, append(AppendGo(nil, "x", nil), 1)},
		{"no query count", meta, appendString(nil, "x")},
		{"2^32-1 queries", meta, append(appendString(nil, "x"), 255, 255, 255, 255)},
		{"long query", meta, AppendMetaQuery(nil, "x", []string{long})},
		{"query beyond the option", meta, append(appendString(nil, "x"), 0, 0, 0, 1, 0, 0, 0, 7, 'b')},
		{"bytes after the queries", meta, append(AppendMetaQuery(nil, "x", []string{"b"}), 0)},
		{"minimum not a power of 2", info, Info{Type: InfoBlockSize, Min: 3, Preferred: 4096, Max: 4096}.Append(nil)},
		{"minimum above 64 KiB", info, Info{Type: InfoBlockSize, Min: 1 << 17, Preferred: 1 << 17, Max: 1 << 20}.Append(nil)},
		{"preferred below minimum", info, Info{Type: InfoBlockSize, Min: 4096, Preferred: 512, Max: 1 << 20}.Append(nil)},
		{"maximum below minimum", info, Info{Type: InfoBlockSize, Min: 4096, Preferred: 4096, Max: 512}.Append(nil)},
		{"export info cut", info, Info{Type: InfoExport, Size: 1}.Append(nil)[:9]},
		{"info of 1 byte", info, []byte{0}},
	} {
		if err := c.decode(c.b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestMalformedChunks(t *testing.T) {
	t.Parallel()
	status := func(ty ChunkType, b []byte) error { _, _, err := DecodeBlockStatus(ty, b, nil); return err }
	e := func(ty ChunkType, b []byte) error { _, err := DecodeError(ty, b); return err }
	for _, c := range []struct {
		name   string
		decode func(ChunkType, []byte) error
		ty     ChunkType
		b      []byte
	}{
		{"no extent", status, ChunkBlockStatus, make([]byte, 4)},
		{"half an extent", status, ChunkBlockStatus, make([]byte, 10)},
		{"zero length", status, ChunkBlockStatus, make([]byte, 12)},
		{"count too large", status, ChunkBlockStatusExt, append([]byte{0, 0, 0, 1, 0, 0, 0, 2}, make([]byte, 16)...)},
		{"no error", e, ChunkError, make([]byte, 6)},
		{"short error", e, ChunkError, make([]byte, 5)},
		{"message beyond the chunk", e, ChunkError, []byte{0, 0, 0, 5, 0, 9, 'a'}},
		{"bytes after the message", e, ChunkError, []byte{0, 0, 0, 5, 0, 0, 'a'}},
		{"no offset", e, ChunkErrorOffset, []byte{0, 0, 0, 5, 0, 0}},
	} {
		if err := c.decode(c.ty, c.b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	// Unknown error types still tell their error number.
	if got, err := DecodeError(chunkError+99, []byte{0, 0, 0, 5, 0, 0, 1, 2}); got.Errno != EIO || err != nil {
		t.Errorf("unknown error type: %+v %v", got, err)
	}
}

func TestStatusPayload(t *testing.T) {
	t.Parallel()
	n, ids, err := DecodeStatusPayload(AppendStatusPayload(nil, 1<<40, []uint32{3, 1}), nil)
	if n != 1<<40 || !reflect.DeepEqual(ids, []uint32{3, 1}) || err != nil {
		t.Errorf("%d %v %v", n, ids, err)
	}
	for _, size := range []int{0, 7, 9} {
		if _, _, err := DecodeStatusPayload(make([]byte, size), nil); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func TestErrno(t *testing.T) {
	t.Parallel()
	for sys, want := range map[syscall.Errno]Errno{
		0: OK, syscall.EPERM: EPERM, syscall.EROFS: EPERM, syscall.EIO: EIO, syscall.ENOMEM: ENOMEM,
		syscall.EINVAL: EINVAL, syscall.ENOSPC: ENOSPC, syscall.EDQUOT: ENOSPC, syscall.EFBIG: ENOSPC,
		syscall.EOVERFLOW: EOVERFLOW, syscall.EOPNOTSUPP: ENOTSUP, syscall.ESHUTDOWN: ESHUTDOWN, syscall.ENXIO: EIO,
	} {
		if got := FromSystem(sys); got != want {
			t.Errorf("%v: %d, want %d", sys, got, want)
		}
	}
	if !errors.Is(ENOSPC, syscall.ENOSPC) || !errors.Is(Errno(4711), syscall.EINVAL) {
		t.Error("an error number does not match the system's")
	}
	if s := ENOSPC.Error(); !strings.Contains(s, "ENOSPC") {
		t.Error(s)
	}
}

func TestEncodersDoNotAllocate(t *testing.T) {
	b := make([]byte, 0, 4096)
	extents := []Status{{4096, 3}, {8192, 0}}
	to := ReplyTo{Mode: Structured, Cookie: 1}
	var req Request
	var rep Reply
	n := testing.AllocsPerRun(100, func() {
		b = AppendSimpleReply(b[:0], 1, OK)
		_, _ = rep.Decode(b, Simple)
		b = to.AppendDataHeader(b[:0], ChunkDone, 0, 4096)
		b = to.AppendHole(b, ChunkDone, 0, 4096)
		b = to.AppendBlockStatus(b, ChunkDone, 1, extents)
		b = to.AppendError(b, ChunkDone, EIO, "x")
		r := Request{Command: CmdRead, Length: 4096}
		b = r.Append(b[:0], Extended)
		_, _ = req.Decode(b, Extended)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
