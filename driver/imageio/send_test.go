package imageio

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/imageio/client"
	"github.com/vmdisk/vmdisk/imageio/server"
)

// keyPair writes the certificate and key of a server for 127.0.0.1, and returns who
// signed it.
func keyPair(t *testing.T, dir string) (c server.TLSConfig, trusted *x509.CertPool) {
	t.Helper()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	der, err := x509.MarshalPKCS8PrivateKey(s.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	c = server.TLSConfig{Enable: true, CertFile: filepath.Join(dir, "cert"), KeyFile: filepath.Join(dir, "key")}
	for path, b := range map[string]*pem.Block{
		c.CertFile: {Type: "CERTIFICATE", Bytes: s.Certificate().Raw}, c.KeyFile: {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	trusted = x509.NewCertPool()
	trusted.AddCert(s.Certificate())
	return c, trusted
}

// TestWriteFromFile: what a file holds arrives, with the kernel's help and under TLS;
// a file that cannot be read has changed nothing, one that is too short is an error.
func TestWriteFromFile(t *testing.T) {
	t.Parallel()
	secure, trusted := keyPair(t, t.TempDir())
	for name, config := range map[string]server.TLSConfig{"plain": {}, "tls": secure} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			image := serve(t, 4<<20, func(c *server.Config) { c.TLS = config }, "")
			cfg := client.Config{URL: image, NoUnixSocket: true}
			if config.Enable {
				cfg.URL, cfg.TLS = strings.Replace(image, "http://", "https://", 1), &tls.Config{RootCAs: trusted}
			}
			d, err := Open(t.Context(), cfg, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			want := make([]byte, 3<<20+512)
			rand.New(rand.NewSource(1)).Read(want)
			f, err := os.Create(filepath.Join(t.TempDir(), "source"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.Write(want); err != nil {
				t.Fatal(err)
			}
			from := disk.FileRange{FD: int(f.Fd()), Off: 512, Len: 3 << 20}
			if err := d.WriteFromFile(t.Context(), 4096, from, 0); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 4<<20)
			check := func() {
				t.Helper()
				if err := d.ReadAt(t.Context(), got, 0); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got[4096:4096+3<<20], want[512:]) || !zero(got[:4096]) || !zero(got[4096+3<<20:]) {
					t.Error("the image is not what was sent")
				}
			}
			check()
			dir, err := os.Open(t.TempDir()) // a folder cannot be read
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			if err := d.WriteFromFile(t.Context(), 0, disk.FileRange{FD: int(dir.Fd()), Len: 4096}, 0); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("from a folder: %v", err)
			}
			check()
			from.Off += 4096
			if err := d.WriteFromFile(t.Context(), 4096, from, 0); err == nil || !strings.Contains(err.Error(), "ended") {
				t.Errorf("from a file that is too short: %v", err)
			}
		})
	}
}

func zero(p []byte) bool { return len(bytes.Trim(p, "\x00")) == 0 }
