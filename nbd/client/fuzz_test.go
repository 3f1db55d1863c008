package client

import (
	"bytes"
	"net"
	"testing"

	"github.com/vmdisk/vmdisk/nbd"
)

// FuzzReplies lets a server say anything to a read, a block status request, a
// write and a read into two buffers, in flight in this order. Every request must
// end exactly once, and nothing outside the buffers may change.
func FuzzReplies(f *testing.F) {
	const readOff, n = 4096, 1024
	cookies := [4]uint64{1 << 32, 2<<32 | 1, 3<<32 | 2, 4<<32 | 3}
	for m := nbd.Simple; m <= nbd.Extended; m++ {
		to := func(i int, off uint64) nbd.ReplyTo { return nbd.ReplyTo{Mode: m, Cookie: cookies[i], Offset: off} }
		if m == nbd.Simple {
			b := append(nbd.AppendSimpleReply(nil, cookies[0], 0), make([]byte, n)...)
			f.Add(byte(m), nbd.AppendSimpleReply(nbd.AppendSimpleReply(b, cookies[2], nbd.EIO), cookies[3], nbd.EIO))
			continue
		}
		good := data(to(0, readOff), nbd.ChunkDone, readOff, make([]byte, n))
		good = to(1, 0).AppendBlockStatus(good, nbd.ChunkDone, contextID, []nbd.Status{{Length: 512, Flags: 3}, {Length: 4096}})
		good = to(2, 0).AppendNone(good)
		f.Add(byte(m), good)
		b := to(0, readOff).AppendHole(nil, 0, readOff, 100)
		b = append(b, data(to(0, readOff), 0, readOff+200, make([]byte, 100))...)
		b = to(0, readOff).AppendErrorOffset(b, nbd.ChunkDone, nbd.EIO, "bad", readOff+100)
		b = to(1, 0).AppendError(b, nbd.ChunkDone, nbd.EINVAL, "no")
		b = to(3, 8192).AppendHole(b, 0, 8192+500, 524)
		f.Add(byte(m), append(b, data(to(3, 8192), nbd.ChunkDone, 8192, make([]byte, 500))...))
		f.Add(byte(m), to(0, readOff).AppendHole(good[:40], 0, readOff, 1<<32-1))
	}
	f.Fuzz(func(t *testing.T, mode byte, stream []byte) {
		ours, theirs := net.Pipe()
		e := Export{Size: fakeSize, Flags: fakeFlags, Mode: nbd.Mode(mode % 3), Contexts: []string{nbd.ContextAllocation}}
		e.settle()
		c := newClient([]*handshake{{nc: ours, export: e, ids: []uint32{contextID}}}, -1)
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			buf := make([]byte, 4096)
			for {
				if _, err := theirs.Read(buf); err != nil {
					return
				}
			}
		}()
		mem := fill(4*n, 0xcc)
		rs := []*Request{
			{Command: nbd.CmdRead, Offset: readOff, Length: n, Vec: [][]byte{mem[100 : 100+n]}},
			{Command: nbd.CmdBlockStatus, Length: 1 << 16, Status: make([]nbd.Status, 0, 2)},
			{Command: nbd.CmdWrite, Length: 512, Vec: [][]byte{make([]byte, 512)}},
			{Command: nbd.CmdRead, Offset: 8192, Length: n, Vec: [][]byte{mem[2*n : 2*n+1], mem[2*n+1 : 3*n]}},
		}
		for _, r := range rs {
			r.Owner = newCounted()
			c.Start(r)
		}
		go func() {
			_, _ = theirs.Write(stream)
			theirs.Close()
		}()
		<-c.conns[0].done
		<-drained
		for i, r := range rs {
			if got := r.Owner.(*counted).n.Load(); got != 1 {
				t.Errorf("request %d ended %d times", i, got)
			}
		}
		if len(rs[1].Status) > 2 {
			t.Errorf("%d extents in room for 2", len(rs[1].Status))
		}
		for _, gap := range [][]byte{mem[:100], mem[100+n : 2*n], mem[3*n:]} {
			if !bytes.Equal(gap, fill(len(gap), 0xcc)) {
				t.Error("memory outside the buffers was touched")
			}
		}
		c.Abort()
	})
}

// FuzzHandshake lets a server say anything in the handshake.
func FuzzHandshake(f *testing.F) {
	greeting := nbd.AppendGreeting(nil, nbd.FlagFixedNewstyle|nbd.FlagNoZeroes)
	b := nbd.AppendOptionReply(bytes.Clone(greeting), nbd.OptExtendedHeaders, nbd.RepErrUnsupported, []byte("no"))
	b = nbd.AppendOptionReply(b, nbd.OptStructuredReply, nbd.RepAck, nil)
	b = nbd.AppendOptionReply(b, nbd.OptSetMetaContext, nbd.RepMetaContext, nbd.AppendMetaContext(nil, 1, nbd.ContextAllocation))
	b = nbd.AppendOptionReply(b, nbd.OptSetMetaContext, nbd.RepAck, nil)
	b = nbd.AppendOptionReply(b, nbd.OptGo, nbd.RepInfo, nbd.Info{Type: nbd.InfoExport, Size: 512, Flags: 1}.Append(nil))
	b = nbd.AppendOptionReply(b, nbd.OptGo, nbd.RepInfo, nbd.Info{Type: nbd.InfoBlockSize, Min: 1, Preferred: 4096, Max: 1 << 20}.Append(nil))
	f.Add(nbd.AppendOptionReply(b, nbd.OptGo, nbd.RepAck, nil))
	f.Add(nbd.AppendExportNameReply(nbd.AppendGreeting(nil, 0), 1<<20, 1, false))
	f.Add(append(bytes.Clone(greeting), make([]byte, 200)...))
	f.Fuzz(func(t *testing.T, stream []byte) {
		ours, theirs := net.Pipe()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = theirs.Write(stream)
			theirs.Close()
		}()
		go func() {
			buf := make([]byte, 4096)
			for {
				if _, err := theirs.Read(buf); err != nil {
					return
				}
			}
		}()
		cfg := Config{Network: "fake", Dialer: dialTo(ours)}.withDefaults()
		h, err := dialExport(t.Context(), &cfg)
		if err == nil {
			if h.export.Size < 0 || h.export.Min == 0 || h.export.Max < h.export.Min || len(h.export.Contexts) != len(h.ids) {
				t.Errorf("%+v", h.export)
			}
			h.nc.Close()
		}
		ours.Close()
		<-ended
	})
}
