package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/interop/peer"
	"github.com/vmdisk/vmdisk/interop/rawnbd"
)

// flagPayloadLen is NBD_CMD_FLAG_PAYLOAD_LEN.
const flagPayloadLen = 1 << 5

// extended negotiates extended headers on a new connection.
func extended(t *testing.T, s *peer.Server) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", s.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	err = option(func(c net.Conn) error {
		if err := rawnbd.SendOption(c, 11, nil); err != nil {
			return err
		}
		if kind, _, err := rawnbd.ReadReply(c, 11); kind != 1 || err != nil {
			return errors.Join(err, fmt.Errorf("extended headers are answered by %#x", kind))
		}
		if err := rawnbd.SendOption(c, 7, make([]byte, 6)); err != nil {
			return err
		}
		for {
			if kind, _, err := rawnbd.ReadReply(c, 7); kind == 1 || err != nil {
				return err
			}
		}
	})(c)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ask sends an extended request and reads the one chunk that answers it: its
// type and payload.
func ask(t *testing.T, c net.Conn, flags, kind uint16, off, n uint64, data []byte) (uint16, []byte) {
	t.Helper()
	p := be.AppendUint32(nil, 0x21e41c71)
	p = be.AppendUint16(p, flags)
	p = be.AppendUint16(p, kind)
	p = be.AppendUint64(p, 77) // cookie
	p = be.AppendUint64(p, off)
	p = be.AppendUint64(p, n)
	if _, err := c.Write(append(p, data...)); err != nil {
		t.Fatal(err)
	}
	var h [32]byte
	if _, err := io.ReadFull(c, h[:]); err != nil {
		t.Fatal(err)
	}
	if be.Uint32(h[:]) != 0x6e8a278c || be.Uint64(h[8:]) != 77 || be.Uint64(h[16:]) != off {
		t.Fatalf("reply header % x", h)
	}
	payload := make([]byte, be.Uint64(h[24:]))
	if _, err := io.ReadFull(c, payload); err != nil {
		t.Fatal(err)
	}
	return be.Uint16(h[6:]), payload
}

// TestExtendedWrites: a write is followed by its data whether or not the client
// says so: libnbd sets the flag, QEMU (8.2 to 10.0 at least) does not.
func TestExtendedWrites(t *testing.T) {
	t.Parallel()
	s := serve(t, "mem:8T")
	c := extended(t, s)
	for i, flags := range []uint16{flagPayloadLen, 0, flagPayloadLen | 1, 1} {
		off, data := uint64(i)<<40+512, bytes.Repeat([]byte{byte(i + 1)}, 70_000)
		if kind, payload := ask(t, c, flags, cmdWrite, off, uint64(len(data)), data); kind != 0 {
			t.Fatalf("a write with flags %#x is answered by %#x %q", flags, kind, payload)
		}
		kind, payload := ask(t, c, 4, cmdRead, off, 4096, nil) // DF: one chunk
		if kind != 1 || be.Uint64(payload) != off || !bytes.Equal(payload[8:], data[:4096]) {
			t.Fatalf("the read is answered by %#x and %d bytes", kind, len(payload))
		}
	}
	// 64-bit lengths.
	const zero, trim = 6, 4
	for _, kind := range []uint16{zero, trim} {
		if got, payload := ask(t, c, 0, kind, 0, 8<<40, nil); got != 0 {
			t.Errorf("command %d of 8 TiB is answered by %#x %q", kind, got, payload)
		}
	}
}

// newerPeers is a root with the tools of a later Debian, whose QEMU and libnbd
// speak extended headers; scripts/mkpeers.sh makes it.
func newerPeers(t *testing.T) string {
	t.Helper()
	if os.Getenv("VMDISK_NEWER_PEERS") == "" {
		t.Skip("needs a root with newer peers, which takes minutes to download; set VMDISK_NEWER_PEERS=1")
	}
	needRoot(t)
	module, err := peer.Root()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(run(t, filepath.Join(module, "scripts", "mkpeers.sh")))
}

// TestNewerPeers: QEMU and libnbd with extended headers, at both ends.
func TestNewerPeers(t *testing.T) {
	root := newerPeers(t)
	dir, err := os.MkdirTemp(filepath.Join(root, "run"), "t")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	inside := strings.TrimPrefix(dir, root)
	in := func(argv ...string) string { return run(t, append([]string{"chroot", root}, argv...)...) }

	const size = 64 << 20
	image, target := holey(t, size, 1), empty(t, size)
	for name, args := range map[string][]string{"from": {"--read-only", "raw:" + image}, "to": {"raw:" + target}, "big": {"mem:8T"}} {
		p, err := peer.Start("vmdisk", append([]string{bin(t), "serve", "--nbd", "unix:" + filepath.Join(dir, name)}, args...), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Kill)
		eventually(t, name+" listens", func() bool { return peer.Greeted(t.Context(), "unix", filepath.Join(dir, name)) == nil })
	}
	uri := func(name string) string { return peer.UnixURI(inside+"/"+name, "") }

	var info struct {
		Extended bool `json:"extended"`
	}
	unmarshal(t, in("nbdinfo", "--json", uri("big")), &info)
	if !info.Extended {
		t.Error("nbdinfo sees no extended headers")
	}
	in("qemu-img", "convert", "-W", "-n", "-f", "raw", "-O", "raw", uri("from"), uri("to"))
	in("qemu-img", "compare", "-f", "raw", "-F", "raw", uri("from"), uri("to"))
	in("qemu-io", "-f", "raw", "-c", "write -f -P 3 5T 1M", "-c", "write -z -u 5T 1G", "-c", "read -P 0 5T 1M", "-c", "flush", uri("big"))
	in("nbdcopy", "--flush", uri("from"), uri("to"))
	script := filepath.Join(dir, "extended.py")
	if err := os.WriteFile(script, readFile(t, "testdata/newer/extended.py"), 0o600); err != nil {
		t.Fatal(err)
	}
	in(python, strings.TrimPrefix(script, root), inside+"/big", inside+"/from")

	// And our client with their server.
	theirs := filepath.Join(dir, "disk")
	sparseFile(t, theirs, size)
	p, err := peer.Start("qemu-nbd", []string{"chroot", root, "qemu-nbd", "-t", "-e", "8", "-f", "raw", "-k", inside + "/theirs", inside + "/disk"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	socket := filepath.Join(dir, "theirs")
	eventually(t, "qemu-nbd listens", func() bool { return peer.Greeted(t.Context(), "unix", socket) == nil })
	ours(t, "copy", "--verify", "raw:"+image, peer.UnixURI(socket, ""))
	ours(t, "compare", "raw:"+image, peer.UnixURI(socket, ""))
	if out := ours(t, "info", peer.UnixURI(socket, "")); !strings.Contains(out, "extended") {
		t.Errorf("our client did not agree on extended headers: %s", out)
	}
	p.Kill()
	sameFiles(t, image, theirs)
}
