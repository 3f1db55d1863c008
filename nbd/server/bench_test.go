package server_test

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/nbd"
)

// hotRequest is a request made again and again, by a client that allocates nothing.
type hotRequest struct {
	name  string
	cmd   nbd.Command
	n     int
	file  bool // on a file instead of RAM
	slow  bool // on a disk that does nothing inline
	batch int
}

var hotRequests = []hotRequest{
	{"read 4k", nbd.CmdRead, 4 << 10, false, false, 1},
	{"read 4k file x16", nbd.CmdRead, 4 << 10, true, false, 16},
	{"read 4k by workers", nbd.CmdRead, 4 << 10, false, true, 4},
	{"read 256k file", nbd.CmdRead, 256 << 10, true, false, 1},
	{"read 1m by workers", nbd.CmdRead, 1 << 20, false, true, 1},
	{"write 4k", nbd.CmdWrite, 4 << 10, false, false, 1},
	{"write 4k file x16", nbd.CmdWrite, 4 << 10, true, false, 16},
	{"write 4k by workers", nbd.CmdWrite, 4 << 10, false, true, 4},
	{"write 256k file", nbd.CmdWrite, 256 << 10, true, false, 1},
	{"write 256k by workers", nbd.CmdWrite, 256 << 10, false, true, 1},
	{"zero 64k", nbd.CmdWriteZeroes, 64 << 10, false, false, 1},
	{"zero 64k file", nbd.CmdWriteZeroes, 64 << 10, true, false, 1},
}

// prepare returns a function that sends the batch and receives the replies.
func (h hotRequest) prepare(tb testing.TB, m nbd.Mode) func() {
	d := memDisk(tb, 16<<20)
	if h.file {
		d = fileDisk(tb, 16<<20)
	}
	data := make([]byte, 16<<20)
	for i := range data {
		data[i] = byte(i) | 1
	}
	if err := d.WriteAt(tb.Context(), data, 0, 0); err != nil {
		tb.Fatal(err)
	}
	if h.slow {
		d = disk.New(&below{d: d}, "below")
	}
	p := serveDisk(tb, d).connect(tb, m, "d")
	_ = p.conn.SetDeadline(time.Now().Add(10 * patience))
	var out []byte
	for i := range h.batch {
		req := nbd.Request{Command: h.cmd, Cookie: uint64(i), Offset: uint64(i * h.n), Length: uint64(h.n)}
		out = req.Append(out, m)
		if h.cmd == nbd.CmdWrite {
			out = append(out, data[:h.n]...)
		}
	}
	replyLen := nbd.SimpleReplySize
	if h.cmd == nbd.CmdRead {
		replyLen = m.DataHeaderSize() + h.n
		if m == nbd.Structured && h.n > 64<<10 && h.file {
			replyLen += nbd.StructuredReplySize // sendfile's replies end with a chunk of their own
		}
	}
	in := make([]byte, replyLen*h.batch)
	return func() {
		if _, err := p.conn.Write(out); err != nil {
			tb.Error(err)
		}
		if _, err := io.ReadFull(p.conn, in); err != nil {
			tb.Error(err)
		}
	}
}

// Reads, writes and zeroes allocate nothing, in the reader and on workers. Not
// parallel: it counts for the whole process.
func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, h := range hotRequests {
		for _, m := range []nbd.Mode{nbd.Simple, nbd.Structured} {
			t.Run(fmt.Sprint(h.name, "/", m), func(t *testing.T) {
				run := h.prepare(t, m)
				for range 50 {
					run()
				}
				// A pause of the collector empties the pools; it may happen once.
				if n := testing.AllocsPerRun(300, run); n > 0 {
					t.Errorf("%v allocations per batch", n)
				}
			})
		}
	}
}

func BenchmarkRequests(b *testing.B) {
	for _, h := range hotRequests {
		b.Run(h.name, func(b *testing.B) {
			run := h.prepare(b, nbd.Structured)
			b.SetBytes(int64(h.n * h.batch))
			b.ReportAllocs()
			for b.Loop() {
				run()
			}
		})
	}
}
