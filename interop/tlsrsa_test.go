package interop

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/vmdisk/vmdisk/interop/peer"
)

// certtoolCerts makes certificates as the manuals of QEMU and libnbd say, with RSA keys.
func certtoolCerts(t *testing.T) string {
	t.Helper()
	dir := tempDir(t)
	in := func(name string) string { return filepath.Join(dir, name) }
	for name, template := range map[string]string{
		"ca.info":     "cn = Authority\nca\ncert_signing_key\n",
		"server.info": "cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\ntls_www_server\nencryption_key\nsigning_key\n",
		"client.info": "organization = Somebody\ncn = client\ntls_www_client\nencryption_key\nsigning_key\n",
	} {
		if err := os.WriteFile(in(name), []byte(template), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key := func(name string) {
		run(t, "certtool", "--generate-privkey", "--key-type=rsa", "--bits=2048", "--outfile", in(name))
	}
	key("ca-key.pem")
	run(t, "certtool", "--generate-self-signed", "--template", in("ca.info"), "--load-privkey", in("ca-key.pem"), "--outfile", in("ca-cert.pem"))
	for _, name := range []string{"server", "client"} {
		key(name + "-key.pem")
		run(t, "certtool", "--generate-certificate", "--template", in(name+".info"), "--load-ca-certificate", in("ca-cert.pem"),
			"--load-ca-privkey", in("ca-key.pem"), "--load-privkey", in(name+"-key.pem"), "--outfile", in(name+"-cert.pem"))
	}
	return dir
}

// TestTLSClientKeys: clients with certificates of either kind of key get in, by either version of TLS. With
// RSA keys and TLS 1.3, GnuTLS sent no certificate to a server that named its authority.
func TestTLSClientKeys(t *testing.T) {
	t.Parallel()
	image := holey(t, 4<<20, 3)
	for kind, dir := range map[string]string{"RSA": certtoolCerts(t), "ECDSA": certs(t)} {
		stranger := certs(t)
		s := serve(t, append(serverFlags(dir), "--tls", "require", "--tls-ca", filepath.Join(dir, "ca-cert.pem"), "--read-only", "raw:"+image)...)
		for _, version := range []string{"TLS1.2", "TLS1.3"} {
			t.Run(kind+" "+version, func(t *testing.T) {
				priority := "NORMAL:-VERS-ALL:+VERS-" + version
				run(t, withPriority(qemuTLS(s.Socket, dir, image), priority)...)
				// No certificate, and one of another authority.
				nameless := tempDir(t)
				if err := os.WriteFile(filepath.Join(nameless, "ca-cert.pem"), readFile(t, filepath.Join(dir, "ca-cert.pem")), 0o600); err != nil {
					t.Fatal(err)
				}
				fail(t, 2, withPriority(qemuTLS(s.Socket, nameless, image), priority)...)
				for _, name := range []string{"client-cert.pem", "client-key.pem"} {
					if err := os.WriteFile(filepath.Join(nameless, name), readFile(t, filepath.Join(stranger, name)), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				fail(t, 2, withPriority(qemuTLS(s.Socket, nameless, image), priority)...)
			})
		}
		run(t, "nbdinfo", "--size", secure(s.Socket, dir)) // libnbd, by the version that it likes best
		// Our own client has them, too, and so have QEMU and nbdkit as servers.
		out := filepath.Join(tempDir(t), "out")
		ours(t, append([]string{"copy", "nbds+unix:///?socket=" + s.Socket, "raw:" + out}, clientFlags(dir)...)...)
		sameFiles(t, image, out)
		for _, other := range []*peer.Server{
			nbdkit(t, "-r", "--tls=require", "--tls-verify-peer", "--tls-certificates="+dir, "file", image),
			qemuNBD(t, "-r", "-f", "raw", "--object", "tls-creds-x509,id=t,endpoint=server,verify-peer=yes,dir="+dir, "--tls-creds", "t", image),
		} {
			ours(t, append([]string{"checksum", "nbds+unix:///?socket=" + other.Socket}, clientFlags(dir)...)...)
		}
	}
}

// withPriority gives QEMU's credentials GnuTLS's priority string.
func withPriority(args []string, priority string) []string {
	out := append([]string{}, args...)
	for i, a := range out {
		if a == "--object" {
			out[i+1] += ",priority=" + priority
		}
	}
	return out
}
