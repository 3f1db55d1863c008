package interop

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/interop/peer"
)

// certs makes a folder with certificates for the two ends.
func certs(t *testing.T) string {
	t.Helper()
	dir := tempDir(t)
	if err := peer.Certs(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func serverFlags(dir string) []string {
	return []string{"--tls-cert", filepath.Join(dir, "server-cert.pem"), "--tls-key", filepath.Join(dir, "server-key.pem")}
}

func clientFlags(dir string) []string {
	return []string{
		"--tls-ca", filepath.Join(dir, "ca-cert.pem"), "--tls-hostname", "localhost",
		"--tls-cert", filepath.Join(dir, "client-cert.pem"), "--tls-key", filepath.Join(dir, "client-key.pem"),
	}
}

// secure is the URI of a server that libnbd reaches with the certificates of dir.
func secure(socket, dir string) string {
	return "nbds+unix://localhost/?socket=" + socket + "&tls-certificates=" + dir
}

// TestTLSServer: libnbd and QEMU as clients of our server.
func TestTLSServer(t *testing.T) {
	t.Parallel()
	dir, stranger := certs(t), certs(t)
	image := holey(t, 4<<20, 1)
	ca := []string{"--tls-ca", filepath.Join(dir, "ca-cert.pem")}
	for _, c := range []struct {
		name  string
		flags []string
		plain bool // clients without TLS get in
	}{
		{"required", []string{"--tls", "require"}, false},
		{"optional", []string{"--tls", "on"}, true},
		{"client certificates", append([]string{"--tls", "require"}, ca...), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, append(append(serverFlags(dir), c.flags...), "--read-only", "raw:"+image)...)
			var info exportInfo
			unmarshal(t, run(t, "nbdinfo", "--json", secure(s.Socket, dir)), &info)
			if !info.TLS {
				t.Error("nbdinfo sees no TLS")
			}
			out := filepath.Join(tempDir(t), "out")
			run(t, "nbdcopy", secure(s.Socket, dir), out)
			sameFiles(t, image, out)
			run(t, qemuTLS(s.Socket, dir, image)...)
			if c.plain {
				run(t, "nbdinfo", s.URI())
			} else {
				fail(t, 1, "nbdinfo", s.URI())
			}
			// The stranger trusts another authority: it refuses the server.
			// (QEMU, since libnbd does not verify over a unix socket.)
			fail(t, 2, qemuTLS(s.Socket, stranger, image)...)
			stop(t, s)
		})
	}
}

// TestTLSClientCertificates: a client that has none is refused where they are
// demanded, by our server.
func TestTLSClientCertificates(t *testing.T) {
	t.Parallel()
	dir := certs(t)
	nameless := tempDir(t)
	if err := os.WriteFile(filepath.Join(nameless, "ca-cert.pem"), readFile(t, filepath.Join(dir, "ca-cert.pem")), 0o600); err != nil {
		t.Fatal(err)
	}
	open := serve(t, append(serverFlags(dir), "mem:1M")...)
	run(t, "nbdinfo", "--size", secure(open.Socket, nameless))
	closed := serve(t, append(serverFlags(dir), "--tls-ca", filepath.Join(dir, "ca-cert.pem"), "mem:1M")...)
	fail(t, 1, "nbdinfo", "--size", secure(closed.Socket, nameless))
	run(t, "nbdinfo", "--size", secure(closed.Socket, dir))
}

// qemuTLS compares what a server has with image, with the certificates of dir.
func qemuTLS(socket, dir, image string) []string {
	return []string{"qemu-img", "compare", "--object", "tls-creds-x509,id=t,endpoint=client,dir=" + dir, "--image-opts",
		"driver=raw,file.driver=nbd,file.server.type=unix,file.server.path=" + socket + ",file.tls-creds=t,file.tls-hostname=localhost",
		"driver=raw,file.driver=file,file.filename=" + image}
}

// TestTLSClient: our client against nbdkit and qemu-nbd.
func TestTLSClient(t *testing.T) {
	t.Parallel()
	dir, stranger := certs(t), certs(t)
	image := holey(t, 4<<20, 2)
	for _, c := range []struct {
		name  string
		start func(t *testing.T) *peer.Server
	}{
		{"nbdkit", func(t *testing.T) *peer.Server {
			return nbdkit(t, "-r", "--tls=require", "--tls-certificates="+dir, "file", image)
		}},
		{"nbdkit, client certificates", func(t *testing.T) *peer.Server {
			return nbdkit(t, "-r", "--tls=require", "--tls-verify-peer", "--tls-certificates="+dir, "file", image)
		}},
		{"qemu-nbd", func(t *testing.T) *peer.Server {
			return qemuNBD(t, "-r", "-f", "raw", "--object", "tls-creds-x509,id=t,endpoint=server,verify-peer=yes,dir="+dir, "--tls-creds", "t", image)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.start(t)
			uri := "nbds+unix:///?socket=" + s.Socket
			out := filepath.Join(tempDir(t), "out")
			ours(t, append([]string{"copy", uri, "raw:" + out}, clientFlags(dir)...)...)
			sameFiles(t, image, out)
			oneLine(t, fail(t, 1, append([]string{bin(t), "info", uri}, clientFlags(stranger)...)...))
			// nbds never falls back to plain text, nor does plain text get in.
			oneLine(t, fail(t, 1, bin(t), "info", "nbd+unix:///?socket="+s.Socket))
		})
	}
	plain := nbdkit(t, "-r", "file", image)
	oneLine(t, fail(t, 1, append([]string{bin(t), "info", "nbds+unix:///?socket=" + plain.Socket}, clientFlags(dir)...)...))
}

// oneLine fails unless the message is one line that says something.
func oneLine(t *testing.T, msg string) {
	t.Helper()
	if n := strings.Count(strings.TrimSpace(msg), "\n") + 1; n != 1 || len(strings.TrimSpace(msg)) < 10 {
		t.Errorf("the error is %d lines: %s", n, msg)
	}
}
