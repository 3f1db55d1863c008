package batch_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/imageio/batch"
)

// counted counts the sends of a connection, and fails them from one on.
type counted struct {
	net.Conn
	sends  atomic.Int32
	failAt int32 // 0: never
}

var errBroken = errors.New("broken")

func (c *counted) Write(p []byte) (int, error) {
	if n := c.sends.Add(1); c.failAt > 0 && n >= c.failAt {
		return 0, errBroken
	}
	return c.Conn.Write(p)
}

// configs are those of a server and its client.
func configs(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "t"}, DNSNames: []string{"t"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return batch.Config(&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}),
		batch.Config(&tls.Config{RootCAs: roots, ServerName: "t"})
}

// pair is a client that has shaken hands with a server.
func pair(t *testing.T) (client *batch.Conn, below *counted, server *batch.Conn) {
	t.Helper()
	forServer, forClient := configs(t)
	return connect(t, forServer, forClient)
}

func connect(t *testing.T, forServer, forClient *tls.Config) (client *batch.Conn, below *counted, server *batch.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	below = &counted{Conn: dialled}
	server = batch.Server(accepted, forServer)
	client = batch.Client(below, forClient)
	shaken := make(chan error, 1)
	go func() { shaken <- server.Handshake() }()
	if err := errors.Join(client.Handshake(), <-shaken); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, below, server
}

// A client that comes again resumes its session: a new handshake costs the server a
// signature.
func TestResumes(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		forServer, forClient := configs(t)
		forClient.MaxVersion, forClient.ClientSessionCache = version, tls.NewLRUClientSessionCache(1)
		for i := range 2 {
			client, _, server := connect(t, forServer, forClient)
			written := make(chan error, 1)
			go func() {
				_, err := server.Write([]byte("a"))
				written <- err
			}()
			// The ticket of TLS 1.3 comes before the first data.
			if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if err := <-written; err != nil {
				t.Fatal(err)
			}
			if got := client.ConnectionState().DidResume; got != (i > 0) {
				t.Errorf("%s, connection %d: resumed: %t", tls.VersionName(version), i+1, got)
			}
		}
	}
}

// What is written arrives when Write returns, in a quarter of the sends.
func TestWrite(t *testing.T) {
	t.Parallel()
	client, below, server := pair(t)
	for _, size := range []int{0, 1, 16 << 10, 16<<10 + 1, 64 << 10, 1 << 20, 100} {
		data := make([]byte, size)
		_, _ = rand.Read(data)
		got := make([]byte, size)
		read := make(chan error, 1)
		go func() {
			_, err := io.ReadFull(server, got)
			read <- err
		}()
		before := below.sends.Load()
		if n, err := client.Write(data); n != size || err != nil {
			t.Fatalf("%d bytes: %d, %v", size, n, err)
		}
		sends := int(below.sends.Load() - before)
		if err := <-read; err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes: %v, equal %t", size, err, bytes.Equal(got, data))
		}
		records := (size + 16<<10 - 1) >> 14
		if want := (records + 3) / 4; sends > max(want, 1) {
			t.Errorf("%d bytes in %d records: %d sends, want %d", size, records, sends, want)
		}
	}
}

// A send that fails fails the Write, also if it is the last one.
func TestWriteError(t *testing.T) {
	t.Parallel()
	for _, later := range []int32{1, 2} {
		client, below, server := pair(t)
		go func() { _, _ = io.Copy(io.Discard, server) }()
		below.failAt = below.sends.Load() + later
		if _, err := client.Write(make([]byte, 100<<10)); !errors.Is(err, errBroken) {
			t.Errorf("send %d fails: %v", later, err)
		}
	}
}
