package interop

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/interop/peer"
	"github.com/vmdisk/vmdisk/interop/rawnbd"
)

const (
	cmdFlush   = 3
	cmdZero    = 6
	flagFUA    = 1
	block      = 4096
	flagNoHole = 2
)

// TestDurability: over a server that forgets with SIGKILL what was not flushed,
// a flush on any connection covers the finished writes of all, FUA covers its
// own request, and what neither covered is gone (or the test would prove nothing).
func TestDurability(t *testing.T) {
	t.Parallel()
	image := empty(t, 1<<20)
	s := volatileServer(t, image)
	a, b := connected(t, s), connected(t, s)
	full := bytes.Repeat([]byte{0xa5}, block)
	write := func(c net.Conn, flags uint16, n uint64) {
		simple(t, c, rawnbd.Command{Type: cmdWrite, Flags: flags, Offset: n * block, Length: block, Data: full})
	}
	write(a, 0, 0)
	write(b, 0, 1)
	write(a, 0, 2)
	simple(t, b, rawnbd.Command{Type: cmdFlush})
	write(a, flagFUA, 3)
	write(b, 0, 4) // lost
	simple(t, a, rawnbd.Command{Type: cmdZero, Flags: flagFUA | flagNoHole, Offset: 1 * block, Length: block})
	simple(t, a, rawnbd.Command{Type: cmdZero, Offset: 2 * block, Length: block}) // lost
	s.Kill()

	got := readFile(t, image)
	for n, want := range []byte{0xa5, 0, 0xa5, 0xa5, 0} {
		if have := got[n*block : (n+1)*block]; !bytes.Equal(have, bytes.Repeat([]byte{want}, block)) {
			t.Errorf("block %d begins with %#x, want %#x", n, have[0], want)
		}
	}
}

func connected(t *testing.T, s *peer.Server) net.Conn {
	t.Helper()
	c, _, err := rawnbd.Dial(t.Context(), "unix", s.Socket, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

// simple sends a request other than a read, which must succeed.
func simple(t *testing.T, c net.Conn, r rawnbd.Command) {
	t.Helper()
	r.Cookie = 5
	if err := r.Send(c); err != nil {
		t.Fatal(err)
	}
	if errno, cookie, err := rawnbd.ReadSimple(c); err != nil || errno != 0 || cookie != r.Cookie {
		t.Fatalf("command %d is answered by error %d, cookie %d, %v", r.Type, errno, cookie, err)
	}
}
