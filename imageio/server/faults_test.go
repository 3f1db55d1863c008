package server

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/file"
)

// faulty fails the operations that it is told to.
type faulty struct {
	*disk.Disk
	fail atomic.Pointer[fault]
}

type fault struct {
	op   string
	from int64 // reads and writes that begin before it succeed
	err  error
}

func (f *faulty) check(op string, off int64) error {
	if now := f.fail.Load(); now != nil && now.op == op && off >= now.from {
		return now.err
	}
	return nil
}

func (f *faulty) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := f.check("read", off); err != nil {
		return err
	}
	return f.Disk.ReadAt(ctx, p, off)
}

func (f *faulty) FileRange(int64, int64, bool) (disk.FileRange, bool) {
	return disk.FileRange{}, false
}

func (f *faulty) WriteAt(ctx context.Context, p []byte, off int64, fl disk.Flags) error {
	if err := f.check("write", off); err != nil {
		return err
	}
	return f.Disk.WriteAt(ctx, p, off, fl)
}

func (f *faulty) Zero(ctx context.Context, off, n int64, fl disk.Flags) error {
	if err := f.check("zero", off); err != nil {
		return err
	}
	return f.Disk.Zero(ctx, off, n, fl)
}

func (f *faulty) Flush(ctx context.Context) error {
	if err := f.check("flush", 0); err != nil {
		return err
	}
	return f.Disk.Flush(ctx)
}

func (f *faulty) Extents(ctx context.Context, m disk.MapName, off, n int64, dst []disk.Extent) ([]disk.Extent, error) {
	if err := f.check("extents", off); err != nil {
		return dst, err
	}
	return f.Disk.Extents(ctx, m, off, n, dst)
}

// faultyDaemon serves files; those named "bad" fail as the returned driver is told.
func faultyDaemon(t *testing.T, change func(*Config)) (*daemon, *faulty) {
	t.Helper()
	bad := &faulty{}
	d := startDaemonOver(t, change, func(ctx context.Context, u *url.URL, a Access) (*disk.Disk, error) {
		below, err := file.OpenDisk(ctx, u.Path, file.Options{ReadOnly: !a.Write, ForceShare: true})
		if err != nil || filepath.Base(u.Path) != "bad" {
			return below, err
		}
		bad.Disk = below
		return disk.New(bad, "bad"), nil
	})
	return d, bad
}

// An error of one image's storage, at any operation, has the right status, ends
// nothing but its request, and leaves other transfers alone.
func TestErrorAtEveryOperation(t *testing.T) {
	for _, extensions := range []bool{true, false} {
		d, bad := faultyDaemon(t, func(c *Config) { c.Daemon.Extensions = extensions })
		id := d.ticket(d.image("bad", make([]byte, 1<<20)), 1<<20, nil)
		good := d.ticket(d.image("good", make([]byte, 4096)), 4096, nil)
		noSpace := 500
		if extensions {
			noSpace = 507
		}
		for _, c := range []struct {
			op, method, path, body string
			err                    error
			status                 int
		}{
			{"read", "GET", "", "", syscall.EIO, 500},
			{"read", "GET", "/checksum", "", syscall.EIO, 500},
			{"write", "PUT", "", "data", syscall.EIO, 500},
			{"write", "PUT", "", "data", syscall.ENOSPC, noSpace},
			{"write", "PUT", "", strings.Repeat("x", 1<<20), syscall.ENOSPC, noSpace},
			{"zero", "PATCH", "", `{"op":"zero","size":4096}`, syscall.EIO, 500},
			{"zero", "PATCH", "", `{"op":"zero","size":4096}`, syscall.ENOSPC, noSpace},
			{"extents", "GET", "/extents", "", syscall.EIO, 500},
			{"flush", "PUT", "", "data", syscall.EIO, 500}, // the last: a failed flush is not forgotten
			{"flush", "PATCH", "", `{"op":"flush"}`, syscall.EIO, 500},
		} {
			bad.fail.Store(&fault{op: c.op, err: c.err})
			status, text := d.do(http.DefaultClient, c.method, d.remote+"/images/"+id+c.path, strings.NewReader(c.body))
			if status != c.status || strings.Contains(text, "bad") {
				t.Errorf("extensions %t: %v in %s of %s%s: %d %q, want %d", extensions, c.err, c.op, c.method, c.path, status, text, c.status)
			}
			bad.fail.Store(nil)
			if status, text := d.do(http.DefaultClient, "PUT", d.remote+"/images/"+good, strings.NewReader("data")); status != 200 {
				t.Errorf("another transfer after %s: %d %s", c.op, status, text)
			}
		}
	}
}

// When the storage fails in the middle of a GET the client sees a short body.
func TestErrorInMidGET(t *testing.T) {
	d, bad := faultyDaemon(t, nil)
	id := d.ticket(d.image("bad", make([]byte, 4<<20)), 4<<20, nil)
	bad.fail.Store(&fault{op: "read", from: 2 << 20, err: syscall.EIO})
	resp := d.request(http.DefaultClient, "GET", d.remote+"/images/"+id, nil)
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if resp.StatusCode != http.StatusOK || err != io.ErrUnexpectedEOF || n >= 4<<20 {
		t.Errorf("status %d, %d bytes, %v; want a body that breaks off", resp.StatusCode, n, err)
	}
}

// A ticket that expires during a transfer does not end it: its end extends the
// ticket. One without running transfers is dead.
func TestTicketExpiresInMidTransfer(t *testing.T) {
	d := startDaemon(t, nil)
	var passed atomic.Int64
	d.tickets.clock = func() time.Duration { return monotonic() + time.Duration(passed.Load()) }
	id := d.ticket(d.image("disk", make([]byte, 4096)), 4096, map[string]any{"timeout": 100})
	c, err := net.Dial("unix", d.cfg.Local.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := bufio.NewReader(c)
	fmt.Fprintf(c, "PUT /images/%s HTTP/1.1\r\ncontent-length: 8\r\n\r\nhalf", id)
	waitFor(t, func() bool { return d.state(id).Active })
	passed.Store(int64(200 * time.Second))
	if code, text := d.do(http.DefaultClient, "GET", d.remote+"/images/"+id, nil); code != 403 || !strings.Contains(text, "expired") {
		t.Errorf("a new request with the expired ticket: %d %s", code, text)
	}
	io.WriteString(c, "half")
	if head := readHead(t, r); !strings.HasPrefix(head, "HTTP/1.1 200") {
		t.Errorf("the transfer that was under way: %s", head)
	}
	if code, text := d.do(http.DefaultClient, "GET", d.remote+"/images/"+id, nil); code != 200 {
		t.Errorf("after the transfer: %d %s", code, text)
	}
}

// Removing a ticket ends a GET whose client does not read.
func TestRemoveCancelsStalledReader(t *testing.T) {
	d := startDaemon(t, nil)
	path := d.image("disk", nil)
	if err := os.Truncate(path, 1<<30); err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"tcp", "unix"} {
		id := d.ticket(path, 1<<30, nil)
		addr := strings.TrimPrefix(d.remote, "http://")
		if network == "unix" {
			addr = d.cfg.Local.Socket
		}
		c, err := net.Dial(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET /images/%s HTTP/1.1\r\n\r\n", id)
		waitFor(t, func() bool { return d.state(id).Active })
		start := time.Now()
		if code, text := d.do(d.control, "DELETE", "http://control/tickets/"+id, nil); code != 204 {
			t.Errorf("%s: DELETE: %d %s", network, code, text)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("%s: DELETE took %v", network, took)
		}
	}
}

// A refused client that never sends its body does not hold up the end.
func TestShutdownDoesNotLinger(t *testing.T) {
	d := startDaemon(t, nil)
	c, err := net.Dial("unix", d.cfg.Local.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "PUT /images/missing HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n")
	if head := readHead(t, bufio.NewReader(c)); !strings.HasPrefix(head, "HTTP/1.1 403") {
		t.Fatal(head)
	}
	start := time.Now()
	d.stop()
	if took := time.Since(start); took > lingerTime/2 {
		t.Errorf("the end took %v", took)
	}
}

// The daemon ends with its last request, which it lets finish.
func TestShutdownWaitsForTheLastRequest(t *testing.T) {
	d := startDaemon(t, nil)
	path := d.image("disk", make([]byte, 4096))
	id := d.ticket(path, 4096, nil)
	c, err := net.Dial("unix", d.cfg.Local.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "PUT /images/%s HTTP/1.1\r\ncontent-length: 8\r\n\r\nhalf", id)
	waitFor(t, func() bool { return d.state(id).Active })
	var ended atomic.Bool
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		d.stop()
		ended.Store(true)
	}()
	waitFor(t, func() bool {
		nc, err := net.Dial("unix", d.cfg.Control.Socket)
		if err == nil {
			nc.Close()
		}
		return err != nil // it no longer accepts
	})
	if ended.Load() {
		t.Error("the daemon ended with a request under way")
	}
	io.WriteString(c, "half")
	if head := readHead(t, bufio.NewReader(c)); !strings.HasPrefix(head, "HTTP/1.1 200") {
		t.Errorf("the last request: %s", head)
	}
	<-stopped
	if got, _ := os.ReadFile(path); !bytes.HasPrefix(got, []byte("halfhalf")) {
		t.Errorf("the image holds %q", got[:8])
	}
}

// What HTTP's other forms ask for.
func TestProtocolDetails(t *testing.T) {
	d := startDaemon(t, nil)
	id := d.ticket(d.image("disk", make([]byte, 4096)), 4096, nil)
	if answer := d.raw("HEAD /info/ HTTP/1.1\r\n\r\n"); !strings.HasPrefix(answer, "HTTP/1.1 405") || !strings.HasSuffix(answer, "\r\n\r\n") {
		t.Errorf("HEAD is answered with a body: %q", answer)
	}
	put := "PUT /images/" + id + " HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 4\r\n\r\ndata"
	if answer := d.raw(put); !strings.HasPrefix(answer, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK") {
		t.Errorf("Expect: %q", answer)
	}
	if answer := d.raw("PUT /images/missing HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"); !strings.HasPrefix(answer, "HTTP/1.1 403") {
		t.Errorf("Expect of what is refused: %q", answer)
	}
	d.raw("GET /nothing%0a2018-01-01%20FORGED HTTP/1.1\r\n\r\n")
	log, err := os.ReadFile(d.cfg.Log.File)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(log, []byte("\n2018-01-01 FORGED")) {
		t.Errorf("a client forged a line of the log:\n%s", log)
	}
}

// stripes is a disk of alternating data and holes of 4 KiB.
type stripes struct{ disk.Driver }

const stripesSize = 4096 * 1e6

func (stripes) Info() disk.Info {
	return disk.Info{Size: stripesSize, Maps: []disk.MapName{disk.Allocation}, ReadOnly: true}
}
func (stripes) Close() error { return nil }

func (stripes) Extents(_ context.Context, _ disk.MapName, off, _ int64, dst []disk.Extent) ([]disk.Extent, error) {
	for ; len(dst) < cap(dst) && off < stripesSize; off += 4096 {
		e := disk.Extent{Len: 4096}
		if off/4096%2 == 1 {
			e.Flags = disk.ExtentZero | disk.ExtentHole
		}
		dst = append(dst, e)
	}
	return dst, nil
}

// A million extents take a fraction of 64 MiB, whoever asks.
func TestMillionExtents(t *testing.T) {
	d := startDaemonOver(t, nil, func(context.Context, *url.URL, Access) (*disk.Disk, error) {
		return disk.New(stripes{}, "stripes"), nil
	})
	id := d.ticket("/stripes", stripesSize, map[string]any{"ops": []string{"read"}})
	for version, n := range map[string]int{"HTTP/1.1": 1e6, "HTTP/1.0": 1e5} {
		c, err := net.Dial("unix", d.cfg.Local.Socket)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET /images/%s/extents?length=%d %s\r\nconnection: close\r\n\r\n", id, n*4096, version)
		var before, now runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		peak, count := uint64(0), 0
		buf := make([]byte, 1<<20)
		for err == nil {
			var got int
			got, err = io.ReadFull(c, buf)
			count += bytes.Count(buf[:got], []byte{'{'})
			runtime.ReadMemStats(&now)
			peak = max(peak, now.HeapAlloc)
		}
		c.Close()
		if count != n {
			t.Errorf("%s: %d extents, want %d", version, count, n)
		}
		if used := int64(peak) - int64(before.HeapAlloc); used > 16<<20 {
			t.Errorf("%s: a million extents took %d MiB", version, used>>20)
		}
	}
}

// 8 TiB of nothing are zeroed by one request.
func TestZeroHuge(t *testing.T) {
	d := startDaemon(t, nil)
	path := d.image("disk", nil)
	if err := os.Truncate(path, 8<<40); err != nil {
		t.Skipf("this file system has no files of 8 TiB: %v", err)
	}
	id := d.ticket(path, 8<<40, map[string]any{"sparse": true})
	start := time.Now()
	if code, text := d.do(http.DefaultClient, "PATCH", d.remote+"/images/"+id, strings.NewReader(fmt.Sprintf(`{"op":"zero","size":%d}`, int64(8<<40)))); code != 200 {
		t.Errorf("zero: %d %s", code, text)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("zeroing took %v", took)
	}
}

// Unreadable keys and certificates stop the start with a line that names them.
func TestUnreadableKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := DefaultConfig()
	cfg.Log.File = filepath.Join(dir, "log")
	cfg.TLS = TLSConfig{Enable: true, CertFile: filepath.Join(dir, "cert"), KeyFile: filepath.Join(dir, "key")}
	for _, text := range []string{"", "not a certificate"} {
		if text != "" {
			os.WriteFile(cfg.TLS.CertFile, []byte(text), 0o600)
			os.WriteFile(cfg.TLS.KeyFile, []byte(text), 0o600)
		}
		if _, err := New(cfg, openFile); err == nil || !strings.Contains(err.Error(), cfg.TLS.CertFile) || strings.Contains(err.Error(), "\n") {
			t.Errorf("with %q: %v", text, err)
		}
	}
}
