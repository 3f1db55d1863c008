package nbd_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
	"github.com/vmdisk/vmdisk/driver/mem"
	"github.com/vmdisk/vmdisk/driver/nbd"
	"github.com/vmdisk/vmdisk/nbd/client"
	"github.com/vmdisk/vmdisk/nbd/server"
)

// ownServer serves d on a unix socket, or on addr, until the test ends.
func ownServer(tb testing.TB, d *disk.Disk, addr string, cfg server.Config) client.Config {
	tb.Helper()
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		tb.Fatal(err)
	}
	network := "tcp"
	if addr == "" {
		network, addr = "unix", filepath.Join(dir, "s")
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		tb.Fatal(err)
	}
	cfg.Exports = []server.Export{{Name: "d", Disk: d}}
	s, err := server.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(context.Background(), l) }()
	tb.Cleanup(func() {
		if err := errors.Join(s.Shutdown(context.Background()), <-ended, d.Close()); err != nil {
			tb.Error(err)
		}
		os.RemoveAll(dir)
	})
	return client.Config{Network: network, Addr: l.Addr().String(), Export: "d"}
}

func openOwn(size int64, edit func(*nbd.Config)) disktest.Opener {
	return func(tb testing.TB) *disk.Disk {
		m, err := mem.Open(size)
		if err != nil {
			tb.Fatal(err)
		}
		cfg := nbd.Config{Client: ownServer(tb, m, "", server.Config{})}
		if edit != nil {
			edit(&cfg)
		}
		d, err := nbd.Open(context.Background(), cfg)
		if err != nil {
			tb.Fatal(err)
		}
		return d
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*nbd.Config){
		"extended":       nil,
		"structured":     func(c *nbd.Config) { c.Client.Headers = client.StructuredReplies },
		"simple":         func(c *nbd.Config) { c.Client.Headers = client.SimpleReplies },
		"one connection": func(c *nbd.Config) { c.Client.Connections = 1 },
		"no replay":      func(c *nbd.Config) { c.NoReplay = true },
		"small log":      func(c *nbd.Config) { c.ReplayLimit = 100 << 10 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disktest.Conformance(t, openOwn(3<<20+12345, edit), disktest.Options{Ops: 150})
		})
	}
}

// Over TCP, in the clear and encrypted; also what the peers do not offer.
func TestNetwork(t *testing.T) {
	t.Parallel()
	cert, pool := certificate(t)
	for name, c := range map[string]struct {
		addr   string
		server server.Config
		tls    *tls.Config
	}{
		"tcp":       {addr: "127.0.0.1:0"},
		"tls":       {"127.0.0.1:0", server.Config{TLSMode: server.TLSRequire, TLS: &tls.Config{Certificates: []tls.Certificate{cert}}}, &tls.Config{RootCAs: pool}},
		"tls, unix": {"", server.Config{TLSMode: server.TLSOn, TLS: &tls.Config{Certificates: []tls.Certificate{cert}}}, &tls.Config{RootCAs: pool}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disktest.Conformance(t, func(tb testing.TB) *disk.Disk {
				m, err := mem.Open(2 << 20)
				if err != nil {
					tb.Fatal(err)
				}
				cfg := nbd.Config{Client: ownServer(tb, m, c.addr, c.server)}
				cfg.Client.TLS = c.tls
				d, err := nbd.Open(bg, cfg)
				if err != nil {
					tb.Fatal(err)
				}
				return d
			}, disktest.Options{Ops: 60})
		})
	}
}

// certificate makes one for localhost and 127.0.0.1, and the pool to trust it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestAllocations(t *testing.T) {
	if raced {
		t.Skip("the race detector allocates")
	}
	disktest.Allocations(t, openPeer("nbdkit", "-f", "-U", "SOCK", "memory", "8M")(t))
}

func BenchmarkDriver(b *testing.B) { disktest.Benchmark(b, openOwn(1<<30, nil)) }

func TestWriteFromFile(t *testing.T) {
	t.Parallel()
	content := make([]byte, 1<<20)
	for i := range content {
		content[i] = byte(i * 7 / 5)
	}
	path := filepath.Join(t.TempDir(), "f")
	must(t, os.WriteFile(path, content, 0o600))
	file, err := os.Open(path)
	must(t, err)
	defer file.Close()
	src := disk.FileRange{FD: int(file.Fd()), Off: 100, Len: 900 << 10}
	d := openOwn(4<<20, func(c *nbd.Config) { c.NoReplay = true })(t)
	defer d.Close()
	must(t, d.WriteFromFile(bg, 8192, src, disk.FUA))
	got := make([]byte, src.Len)
	must(t, d.ReadAt(bg, got, 8192))
	if !bytes.Equal(got, content[100:][:len(got)]) {
		t.Error("other bytes arrived")
	}
	// What cannot be kept for a reconnect is not sent this way.
	kept := openOwn(4<<20, nil)(t)
	defer kept.Close()
	if err := kept.WriteFromFile(bg, 0, src, 0); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}
