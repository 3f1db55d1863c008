package server_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/server"
)

// unreadBytes is how much of what was sent on a unix socket the other end has not read.
func unreadBytes(nc net.Conn) int {
	raw, err := nc.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	return n
}

func inUse() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// hostileHandshakes are what a client may send behind the greeting to make the server
// take memory. None of them reads an answer.
func hostileHandshakes() map[string][]byte {
	many := make([]nbd.InfoType, 32700)
	for i := range many {
		many[i] = nbd.InfoName
	}
	info := nbd.AppendOption(nil, nbd.OptInfo, nbd.AppendGo(nil, "d", many))
	queries := func(o nbd.Option, n int, q string) []byte {
		list := make([]string, n)
		for i := range list {
			list[i] = q
		}
		b := nbd.AppendOption(nil, nbd.OptStructuredReply, nil)
		return nbd.AppendOption(b, o, nbd.AppendMetaQuery(nil, "d", list))
	}
	hello := nbd.AppendOption(nil, nbd.OptStartTLS, nil)
	for left := 60 << 10; left > 0; left -= 16000 { // a ClientHello that never ends, in records
		record := make([]byte, 5+16000)
		record[0], record[1], record[2] = 22, 3, 1
		binary.BigEndian.PutUint16(record[3:], 16000)
		if left == 60<<10 {
			copy(record[5:], []byte{1, 0, 0xf0, 0})
		}
		hello = append(hello, record...)
	}
	unknown := nbd.AppendOption(nil, 4242, make([]byte, 60<<10))
	huge := append(nbd.AppendOption(nil, 4242, nil)[:12], 0, 0x0f, 0xff, 0xff)
	return map[string][]byte{
		"equal information requests": info,
		"half of them":               info[:len(info)-1],
		"30 such options":            append(info, info...),
		"empty queries":              queries(nbd.OptSetMetaContext, 16000, ""),
		"long queries":               queries(nbd.OptSetMetaContext, 15, strings.Repeat("q", 4096)),
		"equal queries":              queries(nbd.OptSetMetaContext, 3000, nbd.ContextAllocation),
		"wildcards":                  queries(nbd.OptListMetaContext, 7000, "base:"),
		"half of an unknown option":  unknown[:len(unknown)-1],
		"half of a huge option":      append(huge, make([]byte, 100<<10)...),
		"list after list":            []byte(strings.Repeat(string(nbd.AppendOption(nil, nbd.OptList, nil)), 32)),
		"half a ClientHello":         hello,
	}
}

// What 1,000 clients can make the server hold before it knows who they are. Not
// parallel: it looks at the whole process.
func TestHandshakeMemory(t *testing.T) {
	srv, _ := certificate(t)
	cfg := server.Config{TLS: srv, TLSMode: server.TLSOn, HandshakeTimeout: patience}
	d := memDisk(t, 1<<20)
	cfg.Exports = append(cfg.Exports, server.Export{Name: "d", Description: strings.Repeat("x", 4096), Disk: d})
	for i := range 200 {
		cfg.Exports = append(cfg.Exports, server.Export{Name: fmt.Sprint(i), Description: strings.Repeat("x", 4096), Disk: d})
	}
	for name, b := range hostileHandshakes() {
		t.Run(name, func(t *testing.T) {
			r := serve(t, cfg)
			runtime.GC()
			before, most := inUse(), int64(0)
			var all []net.Conn
			for range 1000 {
				p := r.dial(t)
				_ = p.conn.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)) // it may not take all
				_, _ = p.conn.Write(append(nbd.AppendClientFlags(nil, nbd.FlagFixedNewstyle), b...))
				all = append(all, p.conn)
			}
			for same, last := 0, -1; same < 10; time.Sleep(20 * time.Millisecond) {
				left := 0
				for _, nc := range all {
					left += unreadBytes(nc)
				}
				if same++; left != last {
					same, last = 0, left
				}
				most = max(most, inUse()-before)
			}
			t.Logf("%d MiB", most>>20)
			if most > 48<<20 {
				t.Errorf("the server holds %d MiB for 1,000 handshakes", most>>20)
			}
			honest := r.connect(t, nbd.Structured, "d", nbd.ContextAllocation)
			honest.alive()
			for _, nc := range all {
				nc.Close()
			}
		})
	}
}
