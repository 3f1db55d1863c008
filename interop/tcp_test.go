package interop

import (
	"net"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/interop/peer"
)

// serveTCP starts `vmdisk serve` on a TCP port of the loopback interface and
// returns the port.
func serveTCP(t *testing.T, args ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	p, err := peer.Start("vmdisk", append([]string{bin(t), "serve", "--nbd", "127.0.0.1:" + port}, args...), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	eventually(t, "the server listens", func() bool {
		c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return port
}

// TestTCP: every client over TCP.
func TestTCP(t *testing.T) {
	t.Parallel()
	image := holey(t, 4<<20, 1)
	uri := "nbd://127.0.0.1:" + serveTCP(t, "--read-only", "disk=raw:"+image) + "/disk"
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri)
	dir := tempDir(t)
	run(t, "nbdcopy", uri, filepath.Join(dir, "theirs"))
	sameFiles(t, image, filepath.Join(dir, "theirs"))
	ours(t, "copy", uri, "raw:"+filepath.Join(dir, "ours"))
	sameFiles(t, image, filepath.Join(dir, "ours"))
}

// TestTLSOverTCP: the server's name and authority are verified, both ways.
func TestTLSOverTCP(t *testing.T) {
	t.Parallel()
	dir, stranger := certs(t), certs(t)
	image := holey(t, 4<<20, 1)
	port := serveTCP(t, append(serverFlags(dir), "--tls", "require", "--read-only", "raw:"+image)...)
	for _, host := range []string{"localhost", "127.0.0.1"} {
		uri := "nbds://" + host + ":" + port + "/"
		run(t, "nbdinfo", "--size", uri+"?tls-certificates="+dir)
		fail(t, 1, "nbdinfo", "--size", uri+"?tls-certificates="+stranger)
		ca := filepath.Join(dir, "ca-cert.pem")
		ours(t, "compare", "--tls-ca", ca, uri, "raw:"+image)
		oneLine(t, fail(t, 1, bin(t), "info", "--tls-ca", filepath.Join(stranger, "ca-cert.pem"), uri))
		oneLine(t, fail(t, 1, bin(t), "info", "--tls-ca", ca, "--tls-hostname", "elsewhere", uri))
	}
	oneLine(t, fail(t, 1, bin(t), "info", "nbd://localhost:"+port+"/"))
}
