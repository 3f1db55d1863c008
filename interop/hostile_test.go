package interop

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/interop/peer"
	"github.com/vmdisk/vmdisk/interop/rawnbd"
)

const (
	cmdRead  = 0
	cmdWrite = 1
)

// TestHostile: what a broken or malicious client sends ends at most its own
// connection; the server goes on serving others and no byte is changed.
func TestHostile(t *testing.T) {
	t.Parallel()
	image := holey(t, 1<<20, 1)
	s := serve(t, "raw:"+image)
	before := readFile(t, image)
	good, _, err := rawnbd.Dial(t.Context(), "unix", s.Socket, "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = good.Close() }()

	for _, c := range []struct {
		name string
		do   func(c net.Conn) error
	}{
		{"nothing", func(c net.Conn) error { return nil }},
		{"garbage at once", func(c net.Conn) error { return send(c, bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 100)) }},
		{"zeros at once", func(c net.Conn) error { return send(c, make([]byte, 1<<20)) }},
		{"half a greeting", func(c net.Conn) error { return send(c, []byte{0, 0}) }},
		{"unknown client flags", func(c net.Conn) error { return send(c, []byte{0xff, 0xff, 0xff, 0xff}) }},
		{"half an option", option(func(c net.Conn) error { return send(c, []byte("IHAVEO")) })},
		{"wrong option magic", option(func(c net.Conn) error { return send(c, bytes.Repeat([]byte{7}, 64)) })},
		{"an option of 4 GiB", option(func(c net.Conn) error {
			return send(c, append([]byte("IHAVEOPT"), 0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff))
		})},
		{"name longer than the option", option(func(c net.Conn) error {
			return rawnbd.SendOption(c, 7, []byte{0xff, 0xff, 0xff, 0xff, 'a', 0, 0})
		})},
		{"many options", option(func(c net.Conn) error {
			for range 1000 {
				if err := rawnbd.SendOption(c, 0x7fff, nil); err != nil {
					return err
				}
			}
			return nil
		})},
		{"plain text after STARTTLS", option(func(c net.Conn) error {
			return errors.Join(rawnbd.SendOption(c, 5, nil), rawnbd.SendOption(c, 7, make([]byte, 6)))
		})},
		{"wrong request magic", entered(func(c net.Conn) error { return send(c, bytes.Repeat([]byte{0x25}, 28)) })},
		{"half a request", entered(func(c net.Conn) error { return send(c, []byte{0x25, 0x60, 0x95, 0x13}) })},
		{"unknown command", entered(func(c net.Conn) error { return rawnbd.Command{Type: 99, Length: 512}.Send(c) })},
		{"half of a write's data", entered(func(c net.Conn) error {
			return rawnbd.Command{Type: cmdWrite, Length: 1 << 20, Data: make([]byte, 1000)}.Send(c)
		})},
		{"a write of 4 GiB", entered(func(c net.Conn) error {
			return rawnbd.Command{Type: cmdWrite, Length: 0xffffffff, Data: make([]byte, 1<<20)}.Send(c)
		})},
		{"reads whose replies nobody takes", entered(func(c net.Conn) error {
			for i := range uint64(200) {
				if err := (rawnbd.Command{Type: cmdRead, Cookie: i, Length: 1 << 20}).Send(c); err != nil {
					return err
				}
			}
			return nil
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			attack(t, s, c.do)
			if got := readOver(t, good, 4096); !bytes.Equal(got, before[:4096]) {
				t.Error("another connection no longer reads what is there")
			}
			run(t, "nbdinfo", "--size", s.URI())
		})
	}
	stop(t, s)
	if !bytes.Equal(before, readFile(t, image)) {
		t.Error("the disk was changed")
	}
}

// attack does something on a new connection and closes it without reading on.
func attack(t *testing.T, s *peer.Server, do func(net.Conn) error) {
	t.Helper()
	c, err := net.Dial("unix", s.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	// A server may well hang up in the middle, or stop reading.
	if err := do(c); err != nil {
		t.Logf("the server ends it: %v", err)
	}
}

func send(c net.Conn, p []byte) error {
	_, err := c.Write(p)
	return err
}

// option greets, then does f.
func option(f func(net.Conn) error) func(net.Conn) error {
	return func(c net.Conn) error {
		if err := rawnbd.Greet(c); err != nil {
			return err
		}
		return f(c)
	}
}

// entered does f in the transmission phase.
func entered(f func(net.Conn) error) func(net.Conn) error {
	return option(func(c net.Conn) error { return enter(c, f) })
}

// enter ends the handshake with GO and does f.
func enter(c net.Conn, f func(net.Conn) error) error {
	if err := rawnbd.SendOption(c, 7, make([]byte, 6)); err != nil {
		return err
	}
	for {
		kind, _, err := rawnbd.ReadReply(c, 7)
		if err != nil {
			return err
		}
		if kind == 1 { // NBD_REP_ACK
			return f(c)
		}
	}
}

// readOver reads the first n bytes of the disk on a connection.
func readOver(t *testing.T, c net.Conn, n uint32) []byte {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if err := (rawnbd.Command{Type: cmdRead, Cookie: 42, Length: n}).Send(c); err != nil {
		t.Fatal(err)
	}
	errno, cookie, err := rawnbd.ReadSimple(c)
	if err != nil || errno != 0 || cookie != 42 {
		t.Fatalf("read: error %d, cookie %d, %v", errno, cookie, err)
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(c, p); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestIdleConnections: 1,000 clients that do nothing cost little and hinder
// nobody; one that stops in the handshake is shown the door.
func TestIdleConnections(t *testing.T) {
	t.Parallel()
	image := holey(t, 8<<20, 2)
	s := serve(t, "--read-only", "raw:"+image)
	for range 1000 {
		c, _, err := rawnbd.Dial(t.Context(), "unix", s.Socket, "")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
	}
	slow, err := net.Dial("unix", s.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slow.Close() }()
	out := tempDir(t) + "/out"
	run(t, "nbdcopy", s.URI(), out)
	sameFiles(t, image, out)
	_, peak, err := s.Memory()
	if err != nil {
		t.Fatal(err)
	}
	if peak > 64<<20 {
		t.Errorf("the server took %d MiB with 1,000 idle connections", peak>>20)
	}
	if testing.Short() {
		return
	}
	_ = slow.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.Copy(io.Discard, slow); err != nil {
		t.Errorf("a client that never answers the greeting is still there after 30 s: %v", err)
	}
}

// TestDrain: on SIGTERM the server answers what it has begun.
func TestDrain(t *testing.T) {
	t.Parallel()
	image := empty(t, 1<<20)
	s := serve(t, "--filter", "delay:write=500ms", "raw:"+image)
	c, _, err := rawnbd.Dial(t.Context(), "unix", s.Socket, "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	const writes = 8
	for i := range uint64(writes) {
		w := rawnbd.Command{Type: cmdWrite, Cookie: i, Offset: i * 4096, Length: 4096, Data: bytes.Repeat([]byte{byte(i + 1)}, 4096)}
		if err := w.Send(c); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(100 * time.Millisecond)
	stopped := make(chan error, 1)
	go func() { stopped <- s.Stop() }()
	acknowledged := map[uint64]bool{}
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		errno, cookie, err := rawnbd.ReadSimple(c)
		if err != nil {
			break
		}
		if errno == 0 {
			acknowledged[cookie] = true
		}
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if len(acknowledged) == 0 {
		t.Error("no write was acknowledged: the server dropped what it had begun")
	}
	got := readFile(t, image)
	for i := range acknowledged {
		if want := bytes.Repeat([]byte{byte(i + 1)}, 4096); !bytes.Equal(got[i*4096:(i+1)*4096], want) {
			t.Errorf("write %d was acknowledged and is lost", i)
		}
	}
}

// be is the byte order of NBD.
var be = binary.BigEndian

// TestStructuredOnly: after structured replies were agreed on, not even an
// error of a read is a simple reply.
func TestStructuredOnly(t *testing.T) {
	t.Parallel()
	s := serve(t, "mem:1M")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", s.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if err := structured(func(net.Conn) error { return nil })(c); err != nil {
		t.Fatal(err)
	}
	for _, r := range []rawnbd.Command{
		{Type: cmdRead, Offset: 1 << 40, Length: 512}, {Type: cmdRead, Offset: 1<<64 - 512, Length: 512},
		{Type: cmdRead, Flags: 1 << 14, Length: 512}, {Type: cmdRead, Length: 128 << 20},
	} {
		if err := r.Send(c); err != nil {
			t.Fatal(err)
		}
		var h [20]byte
		if _, err := io.ReadFull(c, h[:]); err != nil {
			t.Fatal(err)
		}
		if be.Uint32(h[:]) != 0x668e33ef || be.Uint16(h[6:])&(1<<15) == 0 {
			t.Fatalf("%+v: the reply is % x, not an error chunk", r, h)
		}
		if _, err := io.CopyN(io.Discard, c, int64(be.Uint32(h[16:]))); err != nil {
			t.Fatal(err)
		}
	}
}
