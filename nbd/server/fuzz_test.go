package server_test

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/server"
)

// FuzzSession sends a client's whole stream, after the greeting. Whatever it is,
// the server answers or disconnects, and serves the next client.
func FuzzSession(f *testing.F) {
	begin := nbd.AppendClientFlags(nil, nbd.FlagFixedNewstyle|nbd.FlagNoZeroes)
	goD := nbd.AppendOption(nil, nbd.OptGo, nbd.AppendGo(nil, "d", nil))
	add := func(parts ...[]byte) {
		b := append([]byte{}, begin...)
		for _, p := range parts {
			b = append(b, p...)
		}
		f.Add(b)
	}
	req := func(m nbd.Mode, c nbd.Command, fl nbd.CommandFlags, off, n uint64) []byte {
		r := nbd.Request{Command: c, Flags: fl, Cookie: 1, Offset: off, Length: n}
		return r.Append(nil, m)
	}
	structured := nbd.AppendOption(nil, nbd.OptStructuredReply, nil)
	extended := nbd.AppendOption(nil, nbd.OptExtendedHeaders, nil)
	contexts := nbd.AppendOption(nil, nbd.OptSetMetaContext, nbd.AppendMetaQuery(nil, "d", []string{"base:allocation"}))
	add(goD, req(0, nbd.CmdRead, 0, 0, 4096), req(0, nbd.CmdDisconnect, 0, 0, 0))
	add(goD, req(0, nbd.CmdWrite, 1, 0, 5), []byte("hello"), req(0, nbd.CmdFlush, 0, 0, 0))
	add(structured, contexts, goD, req(0, nbd.CmdBlockStatus, 0, 0, 4096), req(0, nbd.CmdRead, 0, 0, 1<<20))
	add(extended, contexts, goD, req(2, nbd.CmdBlockStatus, nbd.CmdFlagPayloadLen, 0, 12), nbd.AppendStatusPayload(nil, 4096, []uint32{1}))
	add(extended, goD, req(2, nbd.CmdWrite, nbd.CmdFlagPayloadLen, 0, 1<<20), make([]byte, 100))
	add(nbd.AppendOption(nil, nbd.OptList, nil), nbd.AppendOption(nil, nbd.OptAbort, nil))
	add(nbd.AppendOption(nil, nbd.OptExportName, []byte("d")), req(0, nbd.CmdTrim, 0, 0, 4096))

	r := serve(f, server.Config{Exports: []server.Export{{Name: "d", Disk: memDisk(f, 4<<20)}}})
	f.Fuzz(func(t *testing.T, b []byte) {
		nc, err := net.Dial("unix", r.path)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_ = nc.SetDeadline(time.Now().Add(patience))
		go func() {
			_, _ = nc.Write(b)
			_ = nc.(*net.UnixConn).CloseWrite()
		}()
		if _, err := io.Copy(io.Discard, nc); err != nil && isTimeout(err) {
			t.Fatal("the server keeps a connection whose client has ended")
		}
		r.connect(t, nbd.Simple, "d").alive()
	})
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
