package server_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/file"
	"github.com/vmdisk/vmdisk/nbd"
)

// lender is a disk that lends a file for large writes.
type lender struct {
	*below
	fd    int
	short bool // lends half of what is asked for
	lent  atomic.Int32
	plain atomic.Int32 // ordinary writes
	fail  error        // of ordinary writes
	turn  turns
}

// turns is a lock that knows how often it was had.
type turns struct {
	sync.Mutex
	had atomic.Int32
}

func (t *turns) Lock() {
	t.Mutex.Lock()
	t.had.Add(1)
}

func (l *lender) FileRange(off, n int64, write bool) (disk.FileRange, bool) {
	if !write {
		return disk.FileRange{}, false
	}
	l.lent.Add(1)
	if l.short {
		n /= 2
	}
	return disk.FileRange{FD: l.fd, Off: off, Len: n, Turn: &l.turn}, true
}

func (l *lender) WriteAt(ctx context.Context, p []byte, off int64, f disk.Flags) error {
	l.plain.Add(1)
	if l.fail != nil {
		return l.fail
	}
	return l.below.WriteAt(ctx, p, off, f)
}

// lend makes a disk over a file that it lends by a descriptor opened with flags.
func lend(t *testing.T, size int64, flags int) *lender {
	t.Helper()
	path := filepath.Join(t.TempDir(), "img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	d, err := file.OpenDisk(context.Background(), path, file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return &lender{below: &below{d: d}, fd: fd}
}

const splicedSize = 4 << 20

// largeWrites sends ten writes one after the other, in parts of any size, and
// returns what the disk should hold.
func largeWrites(t *testing.T, p *peer, want nbd.Errno) []byte {
	t.Helper()
	rng, model := rand.New(rand.NewPCG(3, 4)), make([]byte, splicedSize)
	content := rand.NewChaCha8([32]byte{5})
	for i, n := range []int{100_000, 65537, 1 << 20, 262144, 262144, 300_001, 1 << 20, 70_000, 131072, 65536 + 4096} {
		off := rng.IntN(splicedSize - n)
		payload := make([]byte, n)
		_, _ = content.Read(payload)
		copy(model[off:], payload)
		req := nbd.Request{Command: nbd.CmdWrite, Cookie: uint64(i), Offset: uint64(off), Length: uint64(n)}
		wire := append(req.Append(nil, p.mode), payload...)
		for len(wire) > 0 {
			part := min(1+rng.IntN(200_000), len(wire))
			p.write(wire[:part])
			wire = wire[part:]
			if part%4 == 0 {
				time.Sleep(time.Millisecond) // the server finds the socket empty
			}
		}
		if got := p.reply(req); got.errno != want {
			t.Fatalf("write %d of %d bytes: %v, want %v", i, n, got.errno, want)
		}
	}
	return model
}

// Whatever becomes of the splice, the data gets where it belongs or the client is told.
func TestLargeWritesThroughPipe(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		flags int
		short bool
		fail  error
		errno nbd.Errno
	}{
		"spliced":    {flags: unix.O_RDWR, fail: unix.EIO}, // no ordinary write
		"refused":    {flags: unix.O_WRONLY | unix.O_APPEND},
		"unwritable": {flags: unix.O_RDONLY},
		"short":      {flags: unix.O_RDWR, short: true},
		"full":       {flags: unix.O_RDONLY, fail: unix.ENOSPC, errno: nbd.ENOSPC},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := lend(t, splicedSize, c.flags)
			l.short, l.fail = c.short, c.fail
			p := serveDisk(t, disk.New(l, "lender")).connect(t, nbd.Structured, "d")
			// The first request may have been read ahead, and then goes the ordinary way.
			p.do(nbd.Request{Command: nbd.CmdWrite, Length: 65537}, make([]byte, 65537))
			before := l.plain.Load()
			model := largeWrites(t, p, c.errno)
			if l.lent.Load() == 0 || name == "refused" && l.lent.Load() > 3 || name != "spliced" && l.plain.Load() == before {
				t.Errorf("lent %d times, %d ordinary writes", l.lent.Load(), l.plain.Load()-before)
			}
			if had := l.turn.had.Load(); !l.turn.TryLock() || had == 0 != c.short {
				t.Errorf("the file's turn was had %d times, or is still had", had)
			}
			if c.errno != nbd.OK {
				return
			}
			got := make([]byte, splicedSize)
			if err := l.d.ReadAt(context.Background(), got, 0); err != nil || !bytes.Equal(got, model) {
				t.Errorf("other data (error %v)", err)
			}
		})
	}
}

// What has come of a payload is written while the rest is still on its way.
func TestLargeWriteInSteps(t *testing.T) {
	t.Parallel()
	l := lend(t, splicedSize, unix.O_RDWR)
	p := serveDisk(t, disk.New(l, "lender")).connect(t, nbd.Structured, "d")
	p.do(nbd.Request{Command: nbd.CmdWrite, Length: 65537}, make([]byte, 65537))
	payload := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{6}).Read(payload)
	const off, sent, step = 12345, 200_000, 64 << 10
	req := nbd.Request{Command: nbd.CmdWrite, Cookie: 7, Offset: off, Length: uint64(len(payload))}
	p.write(append(req.Append(nil, p.mode), payload[:sent]...))
	got := make([]byte, len(payload))
	for deadline := time.Now().Add(patience); !bytes.Equal(got[:sent-step], payload[:sent-step]); {
		if time.Now().After(deadline) {
			t.Fatal("nothing is written before all has come")
		}
		time.Sleep(time.Millisecond)
		if err := l.d.ReadAt(context.Background(), got, off); err != nil {
			t.Fatal(err)
		}
	}
	p.write(payload[sent:])
	if r := p.reply(req); r.errno != nbd.OK {
		t.Fatal(r.errno)
	}
	if err := l.d.ReadAt(context.Background(), got, off); err != nil || !bytes.Equal(got, payload) {
		t.Errorf("other data (error %v)", err)
	}
}

// Over TCP, too; and a client that goes away in the middle of a payload leaves nothing.
func TestLargeWritesOverTCP(t *testing.T) {
	t.Parallel()
	l := lend(t, splicedSize, unix.O_RDWR)
	r := serveDisk(t, disk.New(l, "lender"))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- r.Serve(context.Background(), ln) }()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	p := (&peer{t: t, conn: nc}).greet(nbd.FlagFixedNewstyle)
	p.haggle(nbd.Structured, "d")
	model := largeWrites(t, p, nbd.OK)
	got := make([]byte, splicedSize)
	if err := l.d.ReadAt(context.Background(), got, 0); err != nil || !bytes.Equal(got, model) {
		t.Errorf("other data (error %v)", err)
	}
	if l.lent.Load() == 0 {
		t.Error("the file was never lent")
	}
	req := nbd.Request{Command: nbd.CmdWrite, Length: 1 << 20}
	p.write(append(req.Append(nil, p.mode), make([]byte, 500_000)...))
	nc.Close()
	if err := r.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// readLender lends its file for reads, or half of what is asked for.
type readLender struct {
	*lender
	short bool
	reads atomic.Int32
}

func (l *readLender) FileRange(off, n int64, write bool) (disk.FileRange, bool) {
	if write {
		return disk.FileRange{}, false
	}
	l.reads.Add(1)
	if l.short {
		n /= 2
	}
	return disk.FileRange{FD: l.fd, Off: off, Len: n}, true
}

// TryRead has it all in memory.
func (l *readLender) TryRead(p []byte, off int64) error {
	return l.d.ReadAt(context.Background(), p, off)
}

func (l *readLender) TryWrite([]byte, int64, disk.Flags) error { return disk.ErrWouldBlock }

// Reads from 64 KiB on go from the file to the socket, and come whole where they cannot.
func TestReadsFromFile(t *testing.T) {
	t.Parallel()
	for _, short := range []bool{false, true} {
		l := &readLender{lender: lend(t, splicedSize, unix.O_RDONLY), short: short}
		content := make([]byte, splicedSize)
		_, _ = rand.NewChaCha8([32]byte{7}).Read(content)
		if err := l.d.WriteAt(context.Background(), content, 0, 0); err != nil {
			t.Fatal(err)
		}
		r := serveDisk(t, disk.New(l, "lender"))
		for _, m := range modes {
			p := r.connect(t, m, "d")
			for n, lent := range map[int]int32{4096: 0, 64<<10 - 1: 0, 64 << 10: 1, 64<<10 + 1: 1, 1 << 20: 1} {
				before := l.reads.Load()
				got := p.do(nbd.Request{Command: nbd.CmdRead, Offset: 12345, Length: uint64(n)}, nil)
				if got.errno != nbd.OK || !bytes.Equal(got.data, content[12345:12345+n]) {
					t.Errorf("%v, %d bytes: %v, or other data", m, n, got.errno)
				}
				if asked := l.reads.Load() - before; asked != lent {
					t.Errorf("%v, %d bytes: the file was asked for %d times, want %d", m, n, asked, lent)
				}
			}
		}
	}
}
