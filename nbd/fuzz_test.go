package nbd

import (
	"bytes"
	"reflect"
	"testing"
)

// Every option's data: decoding must not panic, and what decodes encodes to the
// same bytes.
func FuzzOptions(f *testing.F) {
	f.Add(AppendOption(nil, OptGo, AppendGo(nil, "disk", []InfoType{InfoBlockSize, InfoName})))
	f.Add(AppendOption(nil, OptSetMetaContext, AppendMetaQuery(nil, "disk", []string{"base:allocation", "qemu:"})))
	f.Add(AppendOption(nil, OptStartTLS, nil))
	f.Add(AppendOption(nil, OptExportName, []byte("disk")))
	f.Add(append(AppendOption(nil, OptListMetaContext, nil), 0, 0, 0, 1, 'd', 255, 255, 255, 255))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = DecodeClientFlags(b)
		h, err := DecodeOptionHeader(b)
		if err != nil {
			return
		}
		data := b[OptionHeaderSize:]
		if uint64(h.Len) < uint64(len(data)) {
			data = data[:h.Len]
		}
		if name, infos, err := DecodeGo(data); err == nil && !bytes.Equal(AppendGo(nil, name, infos), data) {
			t.Errorf("GO %q %v", name, infos)
		}
		if name, queries, err := DecodeMetaQuery(data); err == nil && !bytes.Equal(AppendMetaQuery(nil, name, queries), data) {
			t.Errorf("META_CONTEXT %q %q", name, queries)
		}
	})
}

// Everything that a server may answer during negotiation.
func FuzzOptionReplies(f *testing.F) {
	for _, i := range []Info{
		{Type: InfoExport, Size: 1 << 30, Flags: FlagHasFlags}, {Type: InfoName, Text: "disk"},
		{Type: InfoBlockSize, Min: 1, Preferred: 4096, Max: 1 << 25},
	} {
		f.Add(AppendOptionReply(nil, OptGo, RepInfo, i.Append(nil)))
	}
	f.Add(AppendOptionReply(nil, OptList, RepServer, AppendServer(nil, "disk", "a disk")))
	f.Add(AppendOptionReply(nil, OptSetMetaContext, RepMetaContext, AppendMetaContext(nil, 1, ContextAllocation)))
	f.Add(AppendOptionReply(nil, OptGo, RepErrUnknown, []byte("no such export")))
	f.Add(AppendGreeting(nil, FlagFixedNewstyle))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = DecodeGreeting(b)
		_, _, _ = DecodeExportNameReply(b)
		if _, err := DecodeOptionReplyHeader(b); err != nil {
			return
		}
		data := b[OptionReplyHeaderSize:]
		if i, err := DecodeInfo(data); err == nil && i.Type <= InfoBlockSize && !bytes.Equal(i.Append(nil), data) {
			t.Errorf("INFO %+v", i)
		}
		if name, text, err := DecodeServer(data); err == nil && !bytes.Equal(AppendServer(nil, name, text), data) {
			t.Errorf("SERVER %q %q", name, text)
		}
		if id, name, err := DecodeMetaContext(data); err == nil && !bytes.Equal(AppendMetaContext(nil, id, name), data) {
			t.Errorf("META_CONTEXT %d %q", id, name)
		}
	})
}

func FuzzRequests(f *testing.F) {
	for _, m := range []Mode{Simple, Extended} {
		r := Request{Flags: CmdFlagFUA, Command: CmdWrite, Cookie: 1, Offset: 2, Length: 3}
		f.Add(r.Append(nil, m), uint8(m))
	}
	f.Add(AppendStatusPayload(nil, 4096, []uint32{1, 2}), uint8(Extended))
	f.Fuzz(func(t *testing.T, b []byte, mode uint8) {
		m := Mode(mode % 3)
		var r Request
		if n, err := r.Decode(b, m); err == nil && !bytes.Equal(r.Append(nil, m), b[:n]) {
			t.Errorf("%v %+v", m, r)
		}
		if n, ids, err := DecodeStatusPayload(b, nil); err == nil && !bytes.Equal(AppendStatusPayload(nil, n, ids), b) {
			t.Errorf("status payload %d %v", n, ids)
		}
	})
}

func FuzzReplies(f *testing.F) {
	f.Add(AppendSimpleReply(nil, 1, EIO), uint8(Simple))
	for _, m := range []Mode{Structured, Extended} {
		to := ReplyTo{Mode: m, Cookie: 1, Offset: 4096}
		f.Add(append(to.AppendDataHeader(nil, 0, 4096, 3), "abc"...), uint8(m))
		f.Add(to.AppendHole(nil, ChunkDone, 4096, 512), uint8(m))
		f.Add(to.AppendBlockStatus(nil, ChunkDone, 1, []Status{{4096, 3}, {8192, 0}}), uint8(m))
		f.Add(to.AppendError(nil, ChunkDone, EIO, "text"), uint8(m))
		f.Add(to.AppendErrorOffset(nil, ChunkDone, EIO, "text", 4096), uint8(m))
	}
	f.Fuzz(func(t *testing.T, b []byte, mode uint8) {
		m := Mode(mode % 3)
		var r Reply
		n, err := r.Decode(b, m)
		if err != nil {
			return
		}
		if !r.Simple && !bytes.Equal(r.Append(nil, m), b[:n]) {
			t.Errorf("%v %+v", m, r)
		}
		p := b[n:]
		_, _ = DecodeDataOffset(p)
		_, _, _ = DecodeHole(p)
		if e, err := DecodeError(r.Type, p); err == nil && (e.Errno == OK || len(e.Message) > MaxString) {
			t.Errorf("error %+v", e)
		}
		for _, ty := range []ChunkType{ChunkBlockStatus, ChunkBlockStatusExt} {
			id, x, err := DecodeBlockStatus(ty, p, nil)
			if err != nil {
				continue
			}
			again := (ReplyTo{Mode: map[ChunkType]Mode{ChunkBlockStatus: Structured, ChunkBlockStatusExt: Extended}[ty]}).AppendBlockStatus(nil, 0, id, x)
			_, y, err := DecodeBlockStatus(ty, again[len(again)-len(p):], nil)
			if err != nil || !reflect.DeepEqual(x, y) {
				t.Errorf("%v: %v, again %v, %v", ty, x, y, err)
			}
		}
	})
}
