package server

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/mem"
)

// hanging is a back end whose opening, or closing, hangs until it is let go.
type hanging struct {
	*disk.Disk
	opening chan struct{} // receives when an open has begun
	letGo   chan struct{}
}

func newHanging(t *testing.T) *hanging {
	below, err := mem.Open(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	return &hanging{Disk: below, opening: make(chan struct{}, 100), letGo: make(chan struct{})}
}

// open is the daemon's Opener. URLs say what hangs: /open heeds its context, /stuck does
// not, as the open of a file on a dead NFS server does not; /close hangs in Close.
func (h *hanging) open(ctx context.Context, u *url.URL, _ Access) (*disk.Disk, error) {
	h.opening <- struct{}{}
	switch u.Path {
	case "/open":
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-h.letGo:
		}
	case "/stuck":
		<-h.letGo
	case "/close":
		return disk.New(&hangsInClose{h}, "hangs in close"), nil
	}
	return disk.New(&staysOpen{h.Disk}, "hanging"), nil
}

type staysOpen struct{ *disk.Disk }

func (*staysOpen) Close() error { return nil }

type hangsInClose struct{ *hanging }

func (d *hangsInClose) Close() error {
	<-d.letGo
	return nil
}

// get sends a GET of the ticket's image and leaves its connection open.
func (d *daemon) get(id string) net.Conn {
	d.t.Helper()
	c, err := net.Dial("unix", d.cfg.Local.Socket)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	fmt.Fprintf(c, "GET /images/%s HTTP/1.1\r\n\r\n", id)
	return c
}

// DELETE of a ticket whose back end hangs keeps to remove_timeout, and says 409 as long
// as the image is in use. An open that can be canceled is.
func TestRemoveWhileOpening(t *testing.T) {
	for _, timeout := range []float64{0.1, 0} {
		for _, what := range []string{"/open", "/stuck", "/close"} {
			h := newHanging(t)
			d := startDaemonOver(t, func(c *Config) { c.Control.RemoveTimeout = timeout }, h.open)
			id := d.ticket(what, 4096, nil)
			conn := d.get(id)
			<-h.opening
			if what == "/close" {
				readHead(t, bufio.NewReader(conn))
			}
			remove := func() (code int) {
				start := time.Now()
				code, _ = d.do(d.control, "DELETE", "http://control/tickets/"+id, nil)
				if took := time.Since(start); took > 6*time.Second {
					t.Errorf("%s, remove_timeout %v: DELETE took %v", what, timeout, took)
				}
				return code
			}
			want := map[string]int{"/open": 204, "/stuck": 409, "/close": 409}[what]
			if timeout == 0 {
				want = 204
			}
			if code := remove(); code != want {
				t.Errorf("%s, remove_timeout %v: DELETE: %d, want %d", what, timeout, code, want)
			}
			if code, text := d.do(http.DefaultClient, "GET", d.remote+"/images/"+id, nil); code != 403 {
				t.Errorf("%s, remove_timeout %v: GET of a removed ticket: %d %s", what, timeout, code, text)
			}
			close(h.letGo)
			waitFor(t, func() bool {
				remove()
				code, _ := d.do(d.control, "GET", "http://control/tickets/"+id, nil)
				return code == 404
			})
			d.stop()
		}
	}
}

// One client's hanging open leaves other tickets, of the same image too, able to give up.
func TestHangingOpenIsShared(t *testing.T) {
	h := newHanging(t)
	d := startDaemonOver(t, nil, h.open)
	defer close(h.letGo)
	first, second := d.ticket("/stuck", 4096, nil), d.ticket("/stuck", 4096, nil)
	d.get(first)
	<-h.opening
	d.get(second)
	waitFor(t, func() bool { return d.state(second).Active })
	if code, text := d.do(d.control, "DELETE", "http://control/tickets/"+second, nil); code != 204 {
		t.Errorf("DELETE of a ticket that waits for its turn: %d %s", code, text)
	}
	if code, text := d.do(http.DefaultClient, "GET", d.remote+"/images/"+d.ticket("/good", 4096, nil), nil); code != 200 {
		t.Errorf("another image: %d %s", code, text)
	}
}

// SIGTERM ends the daemon within its bound whatever hangs.
func TestStopWithHangingBackEnd(t *testing.T) {
	for _, what := range []string{"/open", "/stuck", "/close"} {
		h := newHanging(t)
		cfg := DefaultConfig()
		cfg.TLS.Enable, cfg.Control.Enable = false, false
		cfg.Remote = RemoteConfig{Host: "127.0.0.1"}
		dir := t.TempDir()
		cfg.Local.Socket, cfg.Log = dir+"/local.sock", LogConfig{Level: "INFO", File: dir + "/log"}
		s, err := New(cfg, h.open)
		if err != nil {
			t.Fatal(err)
		}
		s.drainTime, s.hangTime = 200*time.Millisecond, 200*time.Millisecond
		if _, err := s.Tickets().Add([]byte(`{"uuid":"id","size":4096,"ops":["read"],"timeout":300,"url":"file://` + what + `"}`)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(ctx) }()
		d := &daemon{Server: s, t: t, dir: dir}
		conn := d.get("id")
		<-h.opening
		if what == "/close" {
			readHead(t, bufio.NewReader(conn))
		}
		cancel()
		select {
		case err := <-ended:
			if what == "/open" && err != nil || what != "/open" && (err == nil || !strings.Contains(err.Error(), "storage does not answer")) {
				t.Errorf("%s: %v", what, err)
			}
		case <-time.After(20 * time.Second):
			t.Errorf("%s: the daemon does not end", what)
		}
		close(h.letGo)
	}
}
