package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/mem"
	"github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/server"
)

var modes = []nbd.Mode{nbd.Simple, nbd.Structured, nbd.Extended}

// Every command with every flag, on connections that were offered different
// things: a flag that was not offered, or that the command does not take, is EINVAL.
func TestCommandFlags(t *testing.T) {
	t.Parallel()
	fast := memDisk(t, 1<<20)
	slow := disk.New(&below{d: memDisk(t, 1<<20), info: func(i *disk.Info) { i.FastZero = disk.None }}, "slow")
	r := serve(t, server.Config{Exports: []server.Export{{Name: "fast", Disk: fast}, {Name: "slow", Disk: slow}}})
	takes := map[nbd.Command]nbd.CommandFlags{
		nbd.CmdRead: nbd.CmdFlagDF, nbd.CmdWriteZeroes: nbd.CmdFlagNoHole | nbd.CmdFlagFastZero,
		nbd.CmdBlockStatus: nbd.CmdFlagReqOne,
	}
	for _, m := range modes {
		for _, export := range []string{"fast", "slow"} {
			var contexts []string
			if m > nbd.Simple {
				contexts = []string{"base:allocation"}
			}
			p := r.connect(t, m, export, contexts...)
			for cmd := nbd.CmdRead; cmd <= nbd.CmdResize+1; cmd++ {
				if cmd == nbd.CmdDisconnect {
					continue
				}
				for bit := range 16 {
					f := nbd.CommandFlags(1) << bit
					if f == nbd.CmdFlagPayloadLen && m == nbd.Extended {
						continue // changes the framing: TestPayloads
					}
					want := nbd.EINVAL
					switch {
					case cmd > nbd.CmdBlockStatus, cmd == nbd.CmdBlockStatus && m == nbd.Simple:
					case f == nbd.CmdFlagFUA:
						want = nbd.OK
					case f == nbd.CmdFlagDF && m == nbd.Simple, f == nbd.CmdFlagFastZero && export == "slow":
					case takes[cmd]&f != 0:
						want = nbd.OK
					}
					req := nbd.Request{Command: cmd, Flags: f, Length: 512}
					if cmd == nbd.CmdFlush {
						req.Length = 0
					}
					var payload []byte
					if cmd == nbd.CmdWrite {
						payload = make([]byte, 512)
					}
					if got := p.do(req, payload).errno; got != want {
						t.Errorf("%v %s: %v with flag %#x: %v, want %v", m, export, cmd, f, got, want)
					}
				}
			}
			p.alive()
		}
	}
}

func TestRangesAndReadOnly(t *testing.T) {
	t.Parallel()
	const size = 1<<20 + 13
	d := memDisk(t, size)
	r := serve(t, server.Config{Exports: []server.Export{{Name: "rw", Disk: d}, {Name: "ro", Disk: d, ReadOnly: true}}})
	for _, m := range modes {
		var contexts []string
		if m > nbd.Simple {
			contexts = []string{"base:allocation"}
		}
		for _, c := range []struct {
			off, n uint64
			beyond bool
		}{
			{0, 512, false}, {size - 1, 1, false}, {size - 512, 512, false}, {0, size, false},
			{size, 1, true}, {size - 1, 2, true}, {1 << 63, 512, true}, {^uint64(0), 512, true}, {^uint64(0) - 100, 512, true},
		} {
			rw, ro := r.connect(t, m, "rw", contexts...), r.connect(t, m, "ro", contexts...)
			for cmd, code := range map[nbd.Command]nbd.Errno{
				nbd.CmdRead: nbd.EINVAL, nbd.CmdWrite: nbd.ENOSPC, nbd.CmdWriteZeroes: nbd.ENOSPC,
				nbd.CmdTrim: nbd.EINVAL, nbd.CmdCache: nbd.EINVAL, nbd.CmdBlockStatus: nbd.EINVAL,
			} {
				req := nbd.Request{Command: cmd, Offset: c.off, Length: c.n}
				var payload []byte
				if cmd == nbd.CmdWrite {
					payload = make([]byte, c.n)
				}
				want, wantRO := nbd.OK, nbd.OK
				if c.beyond || cmd == nbd.CmdBlockStatus && m == nbd.Simple {
					want, wantRO = code, code
				}
				switch cmd {
				case nbd.CmdWrite, nbd.CmdWriteZeroes, nbd.CmdTrim:
					wantRO = nbd.EPERM
				}
				if got := rw.do(req, payload).errno; got != want {
					t.Errorf("%v %v %d+%d: %v, want %v", m, cmd, c.off, c.n, got, want)
				}
				if got := ro.do(req, payload).errno; got != wantRO {
					t.Errorf("%v read-only %v %d+%d: %v, want %v", m, cmd, c.off, c.n, got, wantRO)
				}
			}
			rw.alive()
			ro.alive()
		}
	}
}

func TestZeroLengths(t *testing.T) {
	t.Parallel()
	r := serveDisk(t, memDisk(t, 1<<20))
	for _, m := range modes {
		p := r.connect(t, m, "d")
		for cmd := nbd.CmdRead; cmd < nbd.CmdBlockStatus; cmd++ {
			if cmd == nbd.CmdDisconnect || cmd == nbd.CmdWrite && m == nbd.Extended {
				continue
			}
			if got := p.do(nbd.Request{Command: cmd, Offset: 0}, nil).errno; got != nbd.OK {
				t.Errorf("%v %v: %v", m, cmd, got)
			}
		}
		for _, req := range []nbd.Request{{Command: nbd.CmdFlush, Length: 1}, {Command: nbd.CmdFlush, Offset: 1}} {
			if got := p.do(req, nil).errno; got != nbd.EINVAL {
				t.Errorf("%v flush %+v: %v", m, req, got)
			}
		}
		p.alive()
	}
}

// Lengths at and above the limits; what follows is still understood.
func TestLongRequests(t *testing.T) {
	t.Parallel()
	r := serveDisk(t, memDisk(t, 128<<20))
	const most = 64 << 20
	for _, m := range modes {
		p := r.connect(t, m, "d")
		for _, c := range []struct {
			req  nbd.Request
			want nbd.Errno
		}{
			{nbd.Request{Command: nbd.CmdRead, Length: most}, nbd.OK},
			{nbd.Request{Command: nbd.CmdRead, Length: most + 1}, nbd.EINVAL},
			{nbd.Request{Command: nbd.CmdWrite, Length: most}, nbd.OK},
			{nbd.Request{Command: nbd.CmdWrite, Length: most + 1}, nbd.EINVAL},
			{nbd.Request{Command: nbd.CmdWriteZeroes, Length: 128 << 20}, nbd.OK},
			{nbd.Request{Command: nbd.CmdTrim, Length: 128 << 20}, nbd.OK},
		} {
			var payload []byte
			if c.req.Command == nbd.CmdWrite {
				payload = make([]byte, c.req.Length)
			}
			if got := p.do(c.req, payload).errno; got != c.want {
				t.Errorf("%v %v of %d: %v, want %v", m, c.req.Command, c.req.Length, got, c.want)
			}
		}
		p.alive()
		p.send(nbd.Request{Command: nbd.CmdWrite, Flags: payloadFlag(m), Length: 1<<32 - 1}, nil)
		p.mustClose()
	}
}

func payloadFlag(m nbd.Mode) nbd.CommandFlags {
	if m == nbd.Extended {
		return nbd.CmdFlagPayloadLen
	}
	return 0
}

func TestDontFragment(t *testing.T) {
	t.Parallel()
	d := memDisk(t, 8<<20)
	if err := d.WriteAt(context.Background(), bytes.Repeat([]byte{7}, 4096), 64<<10, 0); err != nil {
		t.Fatal(err)
	}
	r := serveDisk(t, d)
	for _, m := range modes[1:] {
		p := r.connect(t, m, "d")
		for _, n := range []uint64{1, 4096, 64 << 10, 200 << 10, 1 << 20} {
			got := p.do(nbd.Request{Command: nbd.CmdRead, Flags: nbd.CmdFlagDF, Length: n}, nil)
			if got.errno != nbd.OK || got.chunks != 1 || got.holes != 0 {
				t.Errorf("%v %d: %+v", m, n, got.errno)
			}
		}
		if got := p.do(nbd.Request{Command: nbd.CmdRead, Flags: nbd.CmdFlagDF, Length: 1<<20 + 1}, nil); got.errno != nbd.EOVERFLOW {
			t.Errorf("%v: %v", m, got.errno)
		}
		p.alive()
	}
}

// Extended requests with and without a payload.
func TestPayloads(t *testing.T) {
	t.Parallel()
	r := serveDisk(t, memDisk(t, 1<<20))
	p := r.connect(t, nbd.Extended, "d", "base:allocation")
	const withPayload = nbd.CmdFlagPayloadLen
	// A payload where none belongs is received and refused.
	for _, cmd := range []nbd.Command{nbd.CmdRead, nbd.CmdTrim, nbd.CmdFlush, nbd.CmdCache, nbd.CmdWriteZeroes, 99} {
		if got := p.do(nbd.Request{Command: cmd, Flags: withPayload, Length: 700}, make([]byte, 700)); got.errno != nbd.EINVAL {
			t.Errorf("%v with a payload: %v", cmd, got.errno)
		}
	}
	// A WRITE's payload follows without the flag too: QEMU sends it so.
	req := nbd.Request{Command: nbd.CmdWrite, Cookie: 5, Length: 512}
	if got := p.do(req, make([]byte, 512)); got.errno != nbd.OK {
		t.Errorf("WRITE without the payload flag: %v", got.errno)
	}
	for name, c := range map[string]struct {
		payload []byte
		want    nbd.Errno
	}{
		"the context":     {nbd.AppendStatusPayload(nil, 4096, []uint32{1}), nbd.OK},
		"no context":      {nbd.AppendStatusPayload(nil, 4096, nil), nbd.EINVAL},
		"unknown context": {nbd.AppendStatusPayload(nil, 4096, []uint32{9}), nbd.EINVAL},
		"context 0":       {nbd.AppendStatusPayload(nil, 4096, []uint32{0}), nbd.EINVAL},
		"repeated":        {nbd.AppendStatusPayload(nil, 4096, []uint32{1, 1}), nbd.EINVAL},
		"beyond the end":  {nbd.AppendStatusPayload(nil, 1<<40, []uint32{1}), nbd.EINVAL},
		"length 0":        {nbd.AppendStatusPayload(nil, 0, []uint32{1}), nbd.EINVAL},
		"cut":             {[]byte{1, 2, 3}, nbd.EINVAL},
		"huge":            {make([]byte, 100000), nbd.EINVAL},
	} {
		got := p.do(nbd.Request{Command: nbd.CmdBlockStatus, Flags: withPayload, Length: uint64(len(c.payload))}, c.payload)
		if got.errno != c.want || c.want == nbd.OK && len(got.statuses) != 1 {
			t.Errorf("%s: %v, %v", name, got.errno, got.statuses)
		}
	}
	p.alive()
	// Without contexts the form was not offered.
	p = r.connect(t, nbd.Extended, "d")
	b := nbd.AppendStatusPayload(nil, 4096, []uint32{1})
	if got := p.do(nbd.Request{Command: nbd.CmdBlockStatus, Flags: withPayload, Length: uint64(len(b))}, b); got.errno != nbd.EINVAL {
		t.Errorf("not offered: %v", got.errno)
	}
	p.alive()
}

// failing fails every operation with err.
type failing struct {
	*below
	err error
}

func (f *failing) ReadAt(context.Context, []byte, int64) error { return f.err }
func (f *failing) WriteAt(context.Context, []byte, int64, disk.Flags) error {
	return f.err
}
func (f *failing) Zero(context.Context, int64, int64, disk.Flags) error { return f.err }
func (f *failing) Trim(context.Context, int64, int64, disk.Flags) error { return f.err }
func (f *failing) Extents(context.Context, disk.MapName, int64, int64, []disk.Extent) ([]disk.Extent, error) {
	return nil, f.err
}

func TestErrorMapping(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want nbd.Errno
		fast nbd.Errno // of a fast zero
	}{
		{syscall.EPERM, nbd.EPERM, nbd.EPERM},
		{syscall.EROFS, nbd.EPERM, nbd.EPERM},
		{fs.ErrPermission, nbd.EPERM, nbd.EPERM},
		{disk.ErrReadOnly, nbd.EPERM, nbd.EPERM},
		{syscall.EIO, nbd.EIO, nbd.EIO},
		{syscall.ENXIO, nbd.EIO, nbd.EIO},
		{syscall.ENOMEM, nbd.ENOMEM, nbd.ENOMEM},
		{syscall.EINVAL, nbd.EINVAL, nbd.EINVAL},
		{disk.ErrRange, nbd.EINVAL, nbd.EINVAL},
		{syscall.ENOSPC, nbd.ENOSPC, nbd.ENOSPC},
		{syscall.EDQUOT, nbd.ENOSPC, nbd.ENOSPC},
		{syscall.EFBIG, nbd.ENOSPC, nbd.ENOSPC},
		{syscall.EOVERFLOW, nbd.EINVAL, nbd.EINVAL},
		{syscall.ESHUTDOWN, nbd.EIO, nbd.EIO},
		{disk.ErrCorrupt, nbd.EIO, nbd.EIO},
		{disk.ErrNotFast, nbd.EINVAL, nbd.ENOTSUP},
		{errors.New("secret path /etc/shadow"), nbd.EIO, nbd.EIO},
	} {
		d := disk.New(&failing{&below{d: memDisk(t, 4<<20)}, fmt.Errorf("the disk: %w", c.err)}, "failing")
		r := serveDisk(t, d)
		for _, m := range modes {
			p := r.connect(t, m, "d")
			for _, req := range []nbd.Request{
				{Command: nbd.CmdRead, Length: 512}, {Command: nbd.CmdRead, Length: 300000}, {Command: nbd.CmdWrite, Length: 512},
				{Command: nbd.CmdWrite, Length: 300000}, {Command: nbd.CmdWrite, Length: 3000000},
			} {
				var payload []byte
				if req.Command == nbd.CmdWrite {
					payload = make([]byte, req.Length)
				}
				got := p.do(req, payload)
				if got.errno != c.want {
					t.Errorf("%v: %v %v of %d: %v, want %v", c.err, m, req.Command, req.Length, got.errno, c.want)
				}
				if bytes.Contains([]byte(got.message), []byte("secret")) {
					t.Errorf("the client is told %q", got.message)
				}
			}
			if got := p.do(nbd.Request{Command: nbd.CmdWriteZeroes, Flags: nbd.CmdFlagFastZero, Length: 512}, nil); got.errno != c.fast {
				t.Errorf("%v: %v fast zero: %v, want %v", c.err, m, got.errno, c.fast)
			}
		}
		if got := r.Counters("d").Snapshot(); got.Errors != 3*6 || got.Read.Ops != 3*2 || got.Write.Ops != 3*3 || got.Zero.Ops != 3 {
			t.Errorf("%v: counted %+v", c.err, got)
		}
	}
}

// halfBroken cannot read its second half.
type halfBroken struct{ *below }

func (h *halfBroken) ReadAt(ctx context.Context, p []byte, off int64) error {
	if off+int64(len(p)) > h.d.Size()/2 {
		return syscall.EIO
	}
	return h.below.ReadAt(ctx, p, off)
}

// A READ that fails in the middle is an error where the protocol can still say
// so; else the connection ends rather than tell a lie.
func TestReadFailsHalfway(t *testing.T) {
	t.Parallel()
	r := serveDisk(t, disk.New(&halfBroken{&below{d: memDisk(t, 8<<20), info: func(i *disk.Info) { i.Maps = nil }}}, "half"))
	for _, m := range modes {
		p := r.connect(t, m, "d")
		req := nbd.Request{Command: nbd.CmdRead, Cookie: 3, Length: 8 << 20}
		if m == nbd.Simple {
			p.send(req, nil)
			p.mustClose()
			continue
		}
		p.send(req, nil)
		if got := p.reply(req); got.errno != nbd.EIO {
			t.Errorf("%v: %v", m, got.errno)
		}
		p.alive()
	}
}

// Random requests on every mode and driver against a model.
func TestRandomRequests(t *testing.T) {
	t.Parallel()
	const size = 6<<20 + 777
	disks := map[string]func(t *testing.T) *disk.Disk{
		"mem":      func(t *testing.T) *disk.Disk { return memDisk(t, size) },
		"noinline": func(t *testing.T) *disk.Disk { return disk.New(&below{d: memDisk(t, size)}, "below") },
		"file":     func(t *testing.T) *disk.Disk { return fileDisk(t, size) },
	}
	for name, open := range disks {
		for _, m := range modes {
			t.Run(fmt.Sprint(name, "/", m), func(t *testing.T) {
				t.Parallel()
				randomRequests(t, serveDisk(t, open(t)).connect(t, m, "d"), size)
			})
		}
	}
}

func randomRequests(t *testing.T, p *peer, size int) {
	model := make([]byte, size)
	rng, content := rand.New(rand.NewPCG(1, uint64(p.mode))), rand.NewChaCha8([32]byte{1})
	lengths := []int{1, 511, 512, 4096, 65536, 65537, 300000, 1 << 20, 1<<20 + 1, 5 << 20}
	for i := range 250 {
		off := rng.IntN(size)
		n := min(lengths[rng.IntN(len(lengths))], size-off)
		req := nbd.Request{Offset: uint64(off), Length: uint64(n)}
		var payload []byte
		switch rng.IntN(4) {
		case 0:
			req.Command = nbd.CmdWrite
			req.Flags = nbd.CommandFlags(rng.IntN(2)) // FUA
			payload = make([]byte, n)
			_, _ = content.Read(payload)
			copy(model[off:], payload)
		case 1:
			req.Command = nbd.CmdWriteZeroes
			req.Flags = nbd.CommandFlags(rng.IntN(4)) // FUA, NO_HOLE
			clear(model[off : off+n])
		}
		got := p.do(req, payload)
		if got.errno != nbd.OK {
			t.Fatalf("%d: %v %d+%d: %v", i, req.Command, off, n, got.errno)
		}
		if req.Command == nbd.CmdRead && !bytes.Equal(got.data, model[off:off+n]) {
			t.Fatalf("%d: %d+%d: other data", i, off, n)
		}
	}
}

// Large structured reads tell holes as such.
func TestSparseRead(t *testing.T) {
	t.Parallel()
	for name, d := range map[string]*disk.Disk{"mem": memDisk(t, 8<<20), "file": fileDisk(t, 8<<20)} {
		data := bytes.Repeat([]byte{9}, 1<<20)
		for _, off := range []int64{2 << 20, 5 << 20} {
			if err := d.WriteAt(context.Background(), data, off, 0); err != nil {
				t.Fatal(err)
			}
		}
		r := serveDisk(t, d)
		for _, m := range modes[1:] {
			p := r.connect(t, m, "d")
			got := p.do(nbd.Request{Command: nbd.CmdRead, Length: 8 << 20}, nil)
			want := make([]byte, 8<<20)
			copy(want[2<<20:], data)
			copy(want[5<<20:], data)
			if got.errno != nbd.OK || got.holes != 3 || !bytes.Equal(got.data, want) {
				t.Errorf("%s %v: %v, %d hole chunks of %d", name, m, got.errno, got.holes, got.chunks)
			}
			// All data: no hole, and no more than one data chunk a piece.
			if got := p.do(nbd.Request{Command: nbd.CmdRead, Offset: 2 << 20, Length: 1 << 20}, nil); got.holes != 0 || !bytes.Equal(got.data, data) {
				t.Errorf("%s %v: %d holes in data", name, m, got.holes)
			}
		}
	}
}

// mapped answers with extents of its own.
type mapped struct {
	*below
	extents map[disk.MapName][]disk.Extent
	calls   atomic.Int64
}

func (m *mapped) Extents(_ context.Context, name disk.MapName, off, _ int64, dst []disk.Extent) ([]disk.Extent, error) {
	m.calls.Add(1)
	for _, e := range m.extents[name] {
		if off >= e.Len {
			off -= e.Len
			continue
		}
		e.Len -= off
		off = 0
		if dst = append(dst, e); len(dst) == cap(dst) {
			break
		}
	}
	return dst, nil
}

func TestBlockStatus(t *testing.T) {
	t.Parallel()
	const hole, zero, backing = disk.ExtentHole, disk.ExtentZero, disk.ExtentBacking
	const size = 6 << 30
	base, err := mem.Open(size)
	if err != nil {
		t.Fatal(err)
	}
	d := disk.New(&mapped{
		below: &below{d: base, info: func(i *disk.Info) { i.Maps = []disk.MapName{disk.Allocation, disk.Depth, "dirty:b0"} }},
		extents: map[disk.MapName][]disk.Extent{
			disk.Allocation: {{Len: 4096}, {Len: 4096, Flags: hole | zero}, {Len: 4096, Flags: zero}, {Len: 4096, Flags: hole},
				{Len: 4096, Flags: hole | backing}, {Len: 4096, Flags: backing}, {Len: size - 6*4096, Flags: hole | zero}},
			disk.Depth: {{Len: 8192, Value: 1}, {Len: size - 8192, Value: 3}},
			"dirty:b0": {{Len: 65536, Value: 1}, {Len: size - 65536}},
		},
	}, "mapped")
	r := serveDisk(t, d)
	contexts := []string{"base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:b0"}
	for _, m := range modes[1:] {
		p := r.connect(t, m, "d", contexts...)
		ask := func(off, n uint64, f nbd.CommandFlags) map[uint32][]nbd.Status {
			t.Helper()
			got := p.do(nbd.Request{Command: nbd.CmdBlockStatus, Offset: off, Length: n, Flags: f}, nil)
			if got.errno != nbd.OK || len(got.statuses) != 3 {
				t.Fatalf("%v: %v, %d contexts", m, got.errno, len(got.statuses))
			}
			return got.statuses
		}
		// Extents that say the same to the client are merged, the last one overruns.
		got := ask(0, 5*4096+1, 0)
		want := []nbd.Status{{Length: 4096}, {Length: 4096, Flags: 3}, {Length: 4096, Flags: 2}, {Length: 4096, Flags: 1}, {Length: 8192}}
		check(t, m, "base", got[1], want)
		check(t, m, "depth", ask(0, 8192, 0)[2], []nbd.Status{{Length: 8192, Flags: 1}})
		check(t, m, "dirty", ask(4096, 4096, 0)[3], []nbd.Status{{Length: 65536 - 4096, Flags: 1}})
		one := ask(4096+100, 1000, nbd.CmdFlagReqOne)
		check(t, m, "one", one[1], []nbd.Status{{Length: 1000, Flags: 3}})
		check(t, m, "one", one[2], []nbd.Status{{Length: 1000, Flags: 1}})
		long := uint64(size - 6*4096)
		if m == nbd.Structured {
			long = 1<<32 - 64<<10
		}
		check(t, m, "long", ask(6*4096, 1<<20, 0)[1], []nbd.Status{{Length: long, Flags: 3}})
	}
}

func check(t *testing.T, m nbd.Mode, what string, got, want []nbd.Status) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v %s: %v, want %v", m, what, got, want)
	}
}

// A map of many extents is told completely, by as many requests as it takes.
func TestManyExtents(t *testing.T) {
	t.Parallel()
	const n = 20000
	var x []disk.Extent
	for i := range n {
		x = append(x, disk.Extent{Len: 4096, Flags: disk.ExtentFlags(i%2) * (disk.ExtentHole | disk.ExtentZero)})
	}
	m := &mapped{below: &below{d: memDisk(t, n*4096)}, extents: map[disk.MapName][]disk.Extent{disk.Allocation: x}}
	d := disk.New(m, "mapped")
	p := serveDisk(t, d).connect(t, nbd.Structured, "d", "base:allocation")
	count, requests := 0, 0
	for off := uint64(0); off < n*4096; requests++ {
		for _, s := range p.do(nbd.Request{Command: nbd.CmdBlockStatus, Offset: off, Length: n*4096 - off}, nil).statuses[1] {
			if s.Length != 4096 || s.Flags != uint64(count%2*3) {
				t.Fatalf("extent %d: %+v", count, s)
			}
			off += s.Length
			count++
		}
	}
	if count != n || requests > 4 {
		t.Errorf("%d extents in %d requests", count, requests)
	}
	// What lies below may be a server, too, that looks all of them up for each call.
	if calls := int(m.calls.Load()); calls > requests {
		t.Errorf("the disk was asked %d times for %d requests", calls, requests)
	}
}

func TestCounters(t *testing.T) {
	t.Parallel()
	r := serveDisk(t, memDisk(t, 8<<20))
	p := r.connect(t, nbd.Structured, "d", "base:allocation")
	p.do(nbd.Request{Command: nbd.CmdWrite, Length: 4096}, make([]byte, 4096))
	p.do(nbd.Request{Command: nbd.CmdWrite, Length: 3 << 20}, make([]byte, 3<<20))
	p.do(nbd.Request{Command: nbd.CmdRead, Length: 512}, nil)
	p.do(nbd.Request{Command: nbd.CmdRead, Length: 4 << 20}, nil)
	p.do(nbd.Request{Command: nbd.CmdWriteZeroes, Length: 8 << 20}, nil)
	p.do(nbd.Request{Command: nbd.CmdTrim, Length: 1 << 20}, nil)
	p.do(nbd.Request{Command: nbd.CmdCache, Length: 1 << 20}, nil)
	p.do(nbd.Request{Command: nbd.CmdFlush}, nil)
	p.do(nbd.Request{Command: nbd.CmdBlockStatus, Length: 8 << 20}, nil)
	p.do(nbd.Request{Command: nbd.CmdRead, Offset: 8 << 20, Length: 512}, nil)
	want := server.Snapshot{
		Write: server.Count{Ops: 2, Bytes: 4096 + 3<<20}, Read: server.Count{Ops: 2, Bytes: 512 + 4<<20}, Zero: server.Count{Ops: 1, Bytes: 8 << 20},
		Trim: server.Count{Ops: 1, Bytes: 1 << 20}, Cache: server.Count{Ops: 1, Bytes: 1 << 20}, Flush: server.Count{Ops: 1},
		BlockStatus: server.Count{Ops: 1, Bytes: 8 << 20}, Errors: 1,
	}
	if got := r.Counters("d").Snapshot(); got != want {
		t.Errorf("counted\n%+v, want\n%+v", got, want)
	}
	if r.Counters("other") != nil {
		t.Error("counters of an export that is none")
	}
}
