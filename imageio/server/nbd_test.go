package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/mem"
	"github.com/vmdisk/vmdisk/driver/nbd"
	"github.com/vmdisk/vmdisk/nbd/client"
	nbdserver "github.com/vmdisk/vmdisk/nbd/server"
)

// nbdDaemon offers its tickets over NBD on a unix socket as well.
func nbdDaemon(t *testing.T, change func(*Config)) *daemon {
	t.Helper()
	return startDaemon(t, func(c *Config) {
		c.NBD.Address = "unix:" + filepath.Join(filepath.Dir(c.Control.Socket), "nbd.sock")
		if change != nil {
			change(c)
		}
	})
}

func (d *daemon) openNBD(id string) (*disk.Disk, error) {
	d.t.Helper()
	return nbd.Open(d.t.Context(), nbd.Config{Reconnect: nbd.Reconnect{Disabled: true}, Client: client.Config{
		Network: "unix", Addr: strings.TrimPrefix(d.cfg.NBD.Address, "unix:"), Export: id, Connections: 1}})
}

func (d *daemon) mustNBD(id string) *disk.Disk {
	d.t.Helper()
	got, err := d.openNBD(id)
	if err != nil {
		log, _ := os.ReadFile(d.cfg.Log.File)
		d.t.Fatalf("%v\n%s", err, log)
	}
	d.t.Cleanup(func() { _ = got.Close() })
	return got
}

type ticketState struct {
	Transferred, Connections int64
	Active, Canceled         bool
}

func (d *daemon) state(id string) (s ticketState) {
	d.t.Helper()
	_, text := d.do(d.control, "GET", "http://control/tickets/"+id, nil)
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		d.t.Fatalf("%s: %v", text, err)
	}
	return s
}

// A ticket is the same over NBD as over HTTP: one image, one account.
func TestNBD(t *testing.T) {
	d := nbdDaemon(t, nil)
	content := randomBytes(1 << 20)
	path := d.image("disk", content)
	id := d.ticket(path, 1<<20, nil)
	_, options := d.do(http.DefaultClient, "OPTIONS", d.remote+"/images/"+id, nil)
	if !strings.Contains(options, `"nbd_url": "nbd+unix:///`+id+`?socket=`+url.QueryEscape(strings.TrimPrefix(d.cfg.NBD.Address, "unix:"))+`"`) {
		t.Errorf("OPTIONS names no NBD URL: %s", options)
	}
	n := d.mustNBD(id)
	got := make([]byte, 100000)
	if err := n.ReadAt(t.Context(), got, 5000); err != nil || !bytes.Equal(got, content[5000:105000]) {
		t.Errorf("read over NBD: %v, equal %t", err, bytes.Equal(got, content[5000:105000]))
	}
	copy(content[50000:], got)
	if err := n.WriteAt(t.Context(), got, 50000, disk.FUA); err != nil {
		t.Fatal(err)
	}
	clear(content[300000:400000])
	if err := n.Zero(t.Context(), 300000, 100000, 0); err != nil {
		t.Fatal(err)
	}
	if _, text := d.do(http.DefaultClient, "GET", d.remote+"/images/"+id, nil); text != string(content) {
		t.Error("what was written over NBD is not what HTTP reads")
	}
	id2 := d.ticket(path, 1<<20, map[string]any{"ops": []string{"read"}})
	r := d.mustNBD(id2)
	if err := r.ReadAt(t.Context(), got, 100); err != nil {
		t.Fatal(err)
	}
	if s := d.state(id2); s.Transferred != 100000 || s.Connections != 1 {
		t.Errorf("the ticket says %+v after 100000 bytes on one connection", s)
	}
	if err := r.WriteAt(t.Context(), got, 0, 0); !errors.Is(err, disk.ErrReadOnly) {
		t.Errorf("write with a read ticket: %v", err)
	}
	if n.Info().Trim != disk.None || r.Size() != 1<<20 {
		t.Errorf("trim %v on a ticket that is not sparse, size %d", n.Info().Trim, r.Size())
	}
	_ = r.Close()
	waitFor(t, func() bool { return d.state(id2).Connections == 0 })
	_, metrics := d.do(d.control, "GET", "http://control/metrics", nil)
	if !strings.Contains(metrics, `vmdisk_imageio_bytes_total{op="zero"} 100000`) {
		t.Errorf("metrics do not count NBD:\n%s", metrics)
	}
}

// What a ticket forbids over HTTP it forbids over NBD, and no log shows an id.
func TestNBDRules(t *testing.T) {
	d := nbdDaemon(t, nil)
	path := d.image("disk", make([]byte, 1<<20))
	expired := d.ticket(path, 1<<20, map[string]any{"timeout": 0})
	part := d.ticket(path, 8192, map[string]any{"sparse": true})
	live := d.ticket(path, 1<<20, nil)
	for _, id := range []string{"", "missing", expired} {
		if n, err := d.openNBD(id); err == nil {
			_ = n.Close()
			t.Errorf("export %q exists", id)
		}
	}
	if list, err := client.List(t.Context(), client.Config{Network: "unix", Addr: strings.TrimPrefix(d.cfg.NBD.Address, "unix:")}); err != nil || len(list) != 0 {
		t.Errorf("LIST shows %v, %v", list, err)
	}
	n := d.mustNBD(part)
	if n.Size() != 8192 || n.Info().Trim == disk.None {
		t.Errorf("a sparse ticket of 8192 bytes: size %d, trim %v", n.Size(), n.Info().Trim)
	}
	// It expires while it is open, and is extended again.
	d.Tickets().get(part).extend(0)
	if err := n.WriteAt(t.Context(), make([]byte, 512), 0, 0); !errors.Is(err, syscall.EPERM) {
		t.Errorf("write after the ticket expired: %v", err)
	}
	d.Tickets().get(part).extend(100)
	if err := n.WriteAt(t.Context(), make([]byte, 512), 0, 0); err != nil {
		t.Errorf("write after the ticket was extended: %v", err)
	}
	cut, kept := d.mustNBD(live), n
	if code, text := d.do(d.control, "DELETE", "http://control/tickets/"+live, nil); code != 204 {
		t.Fatalf("DELETE: %d %s", code, text)
	}
	waitFor(t, func() bool { return cut.ReadAt(context.Background(), make([]byte, 512), 0) != nil })
	if err := kept.ReadAt(t.Context(), make([]byte, 512), 0); err != nil {
		t.Errorf("another ticket's connection: %v", err)
	}
	d.stop()
	log, err := os.ReadFile(d.cfg.Log.File)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{expired, part, live} {
		if bytes.Contains(log, []byte(id[9:])) {
			t.Errorf("the log shows a ticket:\n%s", log)
		}
	}
	if !bytes.Contains(log, []byte("[nbd] CLOSE connection=")) {
		t.Errorf("the log has no line at the end of an NBD connection:\n%s", log)
	}
}

// writeKeyPair writes the certificate and key of a server for 127.0.0.1, and
// returns who signed it.
func writeKeyPair(t *testing.T, cert, key string) *x509.CertPool {
	t.Helper()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	der, err := x509.MarshalPKCS8PrivateKey(s.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for path, b := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: s.Certificate().Raw}, key: {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return pool
}

// Over TCP the exports need TLS where the remote service has it.
func TestNBDTLS(t *testing.T) {
	var trusted *x509.CertPool
	d := startDaemon(t, func(c *Config) {
		dir := filepath.Dir(c.Control.Socket)
		c.TLS = TLSConfig{Enable: true, CertFile: filepath.Join(dir, "cert"), KeyFile: filepath.Join(dir, "key")}
		trusted = writeKeyPair(t, c.TLS.CertFile, c.TLS.KeyFile)
		c.NBD.Address = "127.0.0.1:0"
	})
	id := d.ticket(d.image("disk", make([]byte, 4096)), 4096, nil)
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}}}
	defer web.CloseIdleConnections()
	_, options := d.do(web, "OPTIONS", strings.Replace(d.remote, "http:", "https:", 1)+"/images/"+id, nil)
	addr := d.nbd.listener.Addr().String()
	if !strings.Contains(options, `"nbd_url": "nbds://`+addr+`/`+id+`"`) {
		t.Errorf("OPTIONS: %s", options)
	}
	cfg := client.Config{Network: "tcp", Addr: addr, Export: id}
	if c, err := client.Dial(t.Context(), cfg); err == nil {
		_ = c.Close()
		t.Error("the export is there without TLS")
	}
	cfg.TLS = &tls.Config{RootCAs: trusted}
	c, err := client.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestNBDConfig(t *testing.T) {
	t.Parallel()
	for address, ok := range map[string]bool{"": true, "unix:/x": true, "unix:": false, "h:1": true, "[::]:0": true, "h": false, "h:": false} {
		if err := (NBDConfig{address}).check(true); (err == nil) != ok {
			t.Errorf("%q: %v", address, err)
		}
	}
	if err := (NBDConfig{"unix:/x"}).check(false); err == nil {
		t.Error("NBD without extensions is accepted")
	}
}

// When the NBD server behind a ticket goes away, its transfers fail and others
// do not; a new connection finds it again.
func TestNBDBackEndGone(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "sock")
	image, err := mem.Open(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	start := func() (stop func()) {
		s, err := nbdserver.New(nbdserver.Config{Exports: []nbdserver.Export{{Disk: image}}})
		if err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(socket)
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- s.Serve(context.Background(), l) }()
		return func() {
			if err := errors.Join(s.Shutdown(context.Background()), <-served); err != nil {
				t.Error(err)
			}
		}
	}
	d := startDaemonOver(t, nil, func(ctx context.Context, u *url.URL, a Access) (*disk.Disk, error) {
		if u.Scheme == "file" {
			return openFile(ctx, u, a)
		}
		return nbd.Open(ctx, nbd.Config{Reconnect: nbd.Reconnect{Disabled: true}, Client: client.Config{Network: "unix", Addr: socket}})
	})
	good := d.ticket(d.image("good", make([]byte, 4096)), 4096, nil)
	id := d.ticket("", 1<<20, map[string]any{"url": "nbd:unix:" + socket})
	get := func(id string, want int) {
		t.Helper()
		local := unixClient(d.cfg.Local.Socket) // a new connection: the daemon opens the image anew
		defer local.CloseIdleConnections()
		if code, text := d.do(local, "PUT", "http://local/images/"+id, strings.NewReader("data")); code != want {
			t.Errorf("%d %s, want %d", code, text, want)
		}
	}
	stop := start()
	get(id, 200)
	waitFor(t, func() bool { return d.state(id).Connections == 0 })
	stop()
	get(id, 500)
	get(good, 200)
	waitFor(t, func() bool { return d.state(id).Connections == 0 })
	stop = start()
	get(id, 200)
	stop()
}
