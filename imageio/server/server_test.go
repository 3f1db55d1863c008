package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/file"
)

// daemon is a Server on loopback and temporary sockets.
type daemon struct {
	*Server
	t       *testing.T
	dir     string
	remote  string // http://HOST:PORT
	control *http.Client
	stop    func()
}

func startDaemon(t *testing.T, change func(*Config)) *daemon {
	t.Helper()
	return startDaemonOver(t, change, openFile)
}

func startDaemonOver(t *testing.T, change func(*Config), open Opener) *daemon {
	t.Helper()
	return startTuned(t, change, open, nil)
}

// startTuned lets tune change the Server before it serves.
func startTuned(t *testing.T, change func(*Config), open Opener, tune func(*Server)) *daemon {
	t.Helper()
	dir := t.TempDir()
	cfg := DefaultConfig()
	cfg.TLS.Enable = false
	cfg.Remote = RemoteConfig{Host: "127.0.0.1"}
	cfg.Local.Socket = filepath.Join(dir, "local.sock")
	cfg.Control.Socket = filepath.Join(dir, "control.sock")
	cfg.Log = LogConfig{Level: "INFO", File: filepath.Join(dir, "daemon.log")}
	cfg.Daemon.DropPrivileges = false
	if change != nil {
		change(cfg)
	}
	s, err := New(cfg, open)
	if err != nil {
		t.Fatal(err)
	}
	if tune != nil {
		tune(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	d := &daemon{Server: s, t: t, dir: dir, remote: fmt.Sprintf("http://127.0.0.1:%d", cfg.Remote.Port), control: unixClient(cfg.Control.Socket)}
	d.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error("Serve:", err)
		}
	})
	t.Cleanup(d.stop)
	return d
}

func openFile(ctx context.Context, u *url.URL, a Access) (*disk.Disk, error) {
	return file.OpenDisk(ctx, u.Path, file.Options{ReadOnly: !a.Write, ForceShare: true})
}

func unixClient(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
}

// image creates a file of size bytes in the daemon's folder.
func (d *daemon) image(name string, content []byte) string {
	d.t.Helper()
	path := filepath.Join(d.dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		d.t.Fatal(err)
	}
	return path
}

// ticket installs a ticket, by default to write path.
func (d *daemon) ticket(path string, size int64, change map[string]any) string {
	d.t.Helper()
	id := fmt.Sprintf("%016x-%016x", rand.Uint64(), rand.Uint64())
	ticket := map[string]any{"uuid": id, "size": size, "ops": []string{"write"}, "timeout": 300, "url": "file://" + path}
	for k, v := range change {
		ticket[k] = v
	}
	text, _ := json.Marshal(ticket)
	if code, body := d.do(d.control, "PUT", "http://control/tickets/"+id, bytes.NewReader(text)); code != 200 {
		d.t.Fatalf("PUT ticket: %d %s", code, body)
	}
	return id
}

func (d *daemon) do(client *http.Client, method, target string, body io.Reader, headers ...string) (int, string) {
	d.t.Helper()
	resp := d.request(client, method, target, body, headers...)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func (d *daemon) request(client *http.Client, method, target string, body io.Reader, headers ...string) *http.Response {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), method, target, body)
	if err != nil {
		d.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp
}

// raw sends bytes to the remote service and returns all it answers until it closes.
func (d *daemon) raw(text string) string {
	d.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(d.remote, "http://"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, text)
	c.(*net.TCPConn).CloseWrite()
	answer, err := io.ReadAll(c)
	if err != nil {
		d.t.Fatalf("reading the answer after %q: %v", answer, err)
	}
	return string(answer)
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := 0; i+8 <= n; i += 8 {
		for j, v := 0, r.Uint64(); j < 8; j++ {
			b[i+j] = byte(v >> (8 * j))
		}
	}
	return b
}

// The API's answers, in the facts' words.
func TestStatuses(t *testing.T) {
	d := startDaemon(t, nil)
	path := d.image("disk", make([]byte, 8192))
	write := d.ticket(path, 8192, nil)
	read := d.ticket(path, 8192, map[string]any{"ops": []string{"read"}})
	expired := d.ticket(path, 8192, map[string]any{"timeout": 0})
	for _, c := range []struct {
		method, path, body string
		headers            []string
		status             int
		text               string
	}{
		{"GET", "/images/", "", nil, 400, "Ticket id is required\n"},
		{"GET", "/nothing", "", nil, 404, "No handler for '/nothing'\n"},
		{"POST", "/images/x", "", nil, 405, "not defined"},
		{"BREW", "/images/x", "", nil, 405, "Invalid method"},
		{"GET", "/images/missing", "", nil, 403, "You are not allowed to access this resource: No such ticket missing\n"},
		{"GET", "/images/" + expired, "", nil, 403, "expired"},
		{"PUT", "/images/" + read, "data", nil, 403, "forbids write"},
		{"GET", "/images/" + write, "", []string{"Range", "bytes=0-4095"}, 206, ""},
		{"GET", "/images/" + write, "", []string{"Range", "bytes=8192-"}, 416, "Requested more bytes"},
		{"GET", "/images/" + write, "", []string{"Range", "bytes=0-8192"}, 416, "out of allowed range"},
		{"GET", "/images/" + write, "", []string{"Range", "bytes=0-1,4-5"}, 416, "multiple ranges"},
		{"GET", "/images/" + write, "", []string{"Range", "bytes=5-4"}, 416, "first > last"},
		{"GET", "/images/" + write, "", []string{"Range", "bytes=-"}, 416, "no first or last"},
		{"GET", "/images/" + write, "", []string{"Range", "bytes=-10"}, 206, ""},
		{"PUT", "/images/" + write, "data", []string{"Content-Range", "bytes 0-*/*"}, 200, ""},
		{"PUT", "/images/" + write, "data", []string{"Content-Range", "bytes 5-4/*"}, 400, "first > last"},
		{"PUT", "/images/" + write, "data", []string{"Content-Range", "0-3/4"}, 400, "Invalid Content-Range"},
		{"PUT", "/images/" + write + "?flush=maybe", "data", nil, 400, "Unsupported value"},
		{"PUT", "/images/" + write, "data", []string{"Content-Range", "bytes 8190-*/*"}, 416, "out of allowed range"},
		{"PATCH", "/images/missing", `{"op":"zero"}`, nil, 400, "Missing required value for 'size'"},
		{"PATCH", "/images/missing", `{"op":"zero","size":10}`, nil, 403, "No such ticket"},
		{"PATCH", "/images/" + write, `{"op":"zero","size":10000}`, nil, 416, "out of allowed range"},
		{"PATCH", "/images/" + write, `{"op":"zero","size":-1}`, nil, 400, "Invalid value -1 < 0"},
		{"PATCH", "/images/" + write, `{"op":"zero","size":"1"}`, nil, 400, "Integer required"},
		{"PATCH", "/images/" + write, `{"op":"zero","size":4096,"offset":4096,"other":1}`, nil, 200, ""},
		{"PATCH", "/images/" + write, `{"op":"flush"}`, nil, 200, ""},
		{"PATCH", "/images/" + write, `{"op":"boil"}`, nil, 400, "Unsupported value"},
		{"PATCH", "/images/" + write, `not json`, nil, 400, "Invalid JSON"},
		{"GET", "/images/" + write + "/extents?context=dirty", "", nil, 404, "dirty"},
		{"GET", "/images/" + write + "/extents?context=wet", "", nil, 400, "Unsupported value"},
		{"GET", "/info/", "", nil, 200, `{"version": "2.5.3"}`},
	} {
		status, text := d.do(http.DefaultClient, c.method, d.remote+c.path, strings.NewReader(c.body), c.headers...)
		if status != c.status || !strings.Contains(text, c.text) {
			t.Errorf("%s %s %s %v: %d %q; want %d %q", c.method, c.path, c.body, c.headers, status, text, c.status, c.text)
		}
	}
}

// Headers that clients rely on, byte by byte.
func TestHeaders(t *testing.T) {
	d := startDaemon(t, nil)
	id := d.ticket(d.image("disk", make([]byte, 4096)), 4096, map[string]any{"filename": "my\r\nimage"})
	get := d.request(http.DefaultClient, "GET", d.remote+"/images/"+id, nil, "Origin", "https://engine", "Range", "bytes=0-9")
	get.Body.Close()
	for name, want := range map[string]string{
		"Content-Range": "bytes 0-9/4096", "Content-Length": "10", "Content-Disposition": "attachment; filename=my__image",
		"Access-Control-Allow-Origin": "*", "Access-Control-Max-Age": "86400", "Server": serverHeader,
	} {
		if got := get.Header.Get(name); got != want {
			t.Errorf("GET: %s: %q, want %q", name, got, want)
		}
	}
	pre := d.request(http.DefaultClient, "OPTIONS", d.remote+"/images/"+id, nil, "Access-Control-Request-Method", "PUT")
	pre.Body.Close()
	if got := pre.Header.Get("Access-Control-Allow-Methods"); got != "OPTIONS,GET,PUT" {
		t.Errorf("preflight allows %q", got)
	}
	bad := d.request(http.DefaultClient, "GET", d.remote+"/images/missing", nil)
	bad.Body.Close()
	if !bad.Close {
		t.Error("a 403 does not close the connection")
	}
	c, err := net.Dial("unix", d.cfg.Control.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "DELETE /tickets/%s HTTP/1.1\r\n\r\n", id)
	head := readHead(t, bufio.NewReader(c))
	if !strings.HasPrefix(head, "HTTP/1.1 204 No Content\r\n") || !strings.Contains(head, "content-length: 0\r\n") || !strings.Contains(head, "\r\ndate: ") {
		t.Errorf("the 204 has no content-length or date:\n%s", head)
	}
}

func readHead(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	var head strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("after %q: %v", head.String(), err)
		}
		head.WriteString(line)
		if line == "\r\n" {
			return head.String()
		}
	}
}

// What a hostile or broken client sends never desynchronizes the stream: the
// smuggled GET /info/ must not be answered.
func TestMalformedRequests(t *testing.T) {
	d := startDaemon(t, func(c *Config) { c.Daemon.Extensions = false })
	id := d.ticket(d.image("disk", make([]byte, 4096)), 4096, nil)
	smuggled := "GET /info/ HTTP/1.1\r\n\r\n"
	put := "PUT /images/" + id + " HTTP/1.1\r\n"
	for name, c := range map[string]struct{ text, status string }{
		"request line too long": {"GET /" + strings.Repeat("a", 5000) + " HTTP/1.1\r\n\r\n", "414"},
		"header too long":       {"GET / HTTP/1.1\r\nx: " + strings.Repeat("a", 70000) + "\r\n\r\n", "431"},
		"too many headers":      {"GET / HTTP/1.1\r\n" + strings.Repeat("x: 1\r\n", 200) + "\r\n", "431"},
		"no version":            {"GET /\r\n\r\n", "400"},
		"HTTP/2":                {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"},
		"chunked":               {put + "transfer-encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, "400"},
		"both framings":         {put + "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, "400"},
		"two lengths":           {put + "content-length: 5\r\ncontent-length: 6\r\n\r\nhello" + smuggled, "400"},
		"negative length":       {put + "content-length: -5\r\n\r\n" + smuggled, "400"},
		"length with sign":      {put + "content-length: +5\r\n\r\nhello" + smuggled, "400"},
		"space before colon":    {put + "content-length : 5\r\n\r\nhello" + smuggled, "400"},
		"folded header":         {put + "x: 1\r\n content-length: 5\r\n\r\nhello" + smuggled, "400"},
		"no length":             {put + "\r\n", "400"},
		"short body":            {put + "content-length: 100\r\n\r\nhello", "400"},
		"refused with body":     {"PUT /images/missing HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello" + smuggled, "403"},
	} {
		t.Run(name, func(t *testing.T) {
			answer := d.raw(c.text)
			if !strings.HasPrefix(answer, "HTTP/1.1 "+c.status) {
				t.Errorf("answer %.200q, want status %s", answer, c.status)
			}
			if strings.Count(answer, "HTTP/1.1 ") != 1 {
				t.Errorf("more than one answer: %q", answer)
			}
		})
	}
	if answer := d.raw(put + "content-length: 100\r\n\r\nhello"); !strings.Contains(answer, "Requested 100 bytes, available 5 bytes\n") {
		t.Errorf("short body: %q", answer)
	}
}

// Random ranges written and read over every transport agree with a model, and
// the ticket's account with the bytes moved.
func TestTransferModel(t *testing.T) {
	d := startDaemon(t, nil)
	const size = 3<<20 + 700
	for name, base := range map[string]struct {
		client *http.Client
		url    string
	}{"tcp": {http.DefaultClient, d.remote}, "unix": {unixClient(d.cfg.Local.Socket), "http://local"}} {
		t.Run(name, func(t *testing.T) {
			model := make([]byte, size)
			id := d.ticket(d.image(name, model), size, nil)
			target := base.url + "/images/" + id
			r := rand.New(rand.NewPCG(7, 7))
			covered := make([]bool, size)
			for range 60 {
				off := r.Int64N(size)
				n := min(1+r.Int64N(1<<r.IntN(21)), size-off)
				switch r.IntN(3) {
				case 0:
					data := randomBytes(int(n))
					copy(model[off:], data)
					if code, text := d.do(base.client, "PUT", target+"?flush=n", bytes.NewReader(data), "Content-Range", fmt.Sprintf("bytes %d-%d/*", off, off+n-1)); code != 200 {
						t.Fatalf("PUT: %d %s", code, text)
					}
				case 1:
					clear(model[off : off+n])
					if code, text := d.do(base.client, "PATCH", target, strings.NewReader(fmt.Sprintf(`{"op":"zero","size":%d,"offset":%d}`, n, off))); code != 200 {
						t.Fatalf("PATCH: %d %s", code, text)
					}
				default:
					code, text := d.do(base.client, "GET", target, nil, "Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
					if code != 206 || text != string(model[off:off+n]) {
						t.Fatalf("GET %d+%d: %d, equal %t", off, n, code, text == string(model[off:off+n]))
					}
				}
				for i := off; i < off+n; i++ {
					covered[i] = true
				}
			}
			if code, text := d.do(base.client, "GET", target, nil); code != 200 || text != string(model) {
				t.Fatalf("GET of all: %d, %d bytes", code, len(text))
			}
			_, text := d.do(d.control, "GET", "http://control/tickets/"+id, nil)
			var info struct{ Transferred, Connections int64 }
			if err := json.Unmarshal([]byte(text), &info); err != nil {
				t.Fatal(err)
			}
			if info.Transferred != size || info.Connections < 1 {
				t.Errorf("ticket says %+v after all %d bytes were transferred", info, size)
			}
		})
	}
}

func TestChunkedUploadAndHead(t *testing.T) {
	d := startDaemon(t, nil)
	path := d.image("disk", make([]byte, 2<<20))
	id := d.ticket(path, 2<<20, nil)
	data := randomBytes(1<<20 + 13)
	code, text := d.do(http.DefaultClient, "PUT", d.remote+"/images/"+id, struct{ io.Reader }{bytes.NewReader(data)})
	if code != 200 {
		t.Fatalf("chunked PUT: %d %s", code, text)
	}
	got, _ := os.ReadFile(path)
	if !bytes.Equal(got[:len(data)], data) {
		t.Error("the image differs from what was sent in chunks")
	}
	code, text = d.do(http.DefaultClient, "PUT", d.remote+"/images/"+id, struct{ io.Reader }{bytes.NewReader(make([]byte, 3<<20))})
	if code != 416 {
		t.Errorf("chunks beyond the ticket: %d %s", code, text)
	}
	head := d.request(http.DefaultClient, "HEAD", d.remote+"/images/"+id, nil)
	head.Body.Close()
	if head.StatusCode != http.StatusOK || head.ContentLength != 2<<20 {
		t.Errorf("HEAD: %d, length %d", head.StatusCode, head.ContentLength)
	}
}

func TestExtents(t *testing.T) {
	d := startDaemon(t, nil)
	path := d.image("disk", nil)
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	f, _ := os.OpenFile(path, os.O_RDWR, 0)
	f.WriteAt(bytes.Repeat([]byte{1}, 65536), 131072)
	f.Close()
	id := d.ticket(path, 1<<20, nil)
	_, text := d.do(http.DefaultClient, "GET", d.remote+"/images/"+id+"/extents", nil)
	want := `[{"start": 0, "length": 131072, "zero": true, "hole": false}, {"start": 131072, "length": 65536, "zero": false, "hole": false}, {"start": 196608, "length": 851968, "zero": true, "hole": false}]` + "\n"
	if text != want {
		t.Errorf("extents:\n%swant\n%s", text, want)
	}
	_, text = d.do(http.DefaultClient, "GET", d.remote+"/images/"+id+"/extents?start=150000&length=100000", nil)
	want = `[{"start": 150000, "length": 46608, "zero": false, "hole": false}, {"start": 196608, "length": 53392, "zero": true, "hole": false}]` + "\n"
	if text != want {
		t.Errorf("page:\n%swant\n%s", text, want)
	}
}

// Sparse tickets allow to free space; others do not, and the original has no
// such thing.
func TestDiscard(t *testing.T) {
	for _, extensions := range []bool{true, false} {
		d := startDaemon(t, func(c *Config) { c.Daemon.Extensions = extensions })
		for _, sparse := range []bool{true, false} {
			path := d.image(fmt.Sprint(sparse), randomBytes(1<<20))
			target := d.remote + "/images/" + d.ticket(path, 1<<20, map[string]any{"sparse": sparse})
			_, options := d.do(http.DefaultClient, "OPTIONS", target, nil)
			code, text := d.do(http.DefaultClient, "PATCH", target, strings.NewReader(`{"op":"discard","size":524288}`))
			works := extensions && sparse
			if strings.Contains(options, `"discard"`) != works || (code == 200) != works || !works && code != 400 {
				t.Errorf("extensions %t, sparse %t: %s, discard: %d %s", extensions, sparse, options, code, text)
			}
			var st unix.Stat_t
			if err := unix.Stat(path, &st); err != nil || (st.Blocks*512 < 1<<20) != works {
				t.Errorf("extensions %t, sparse %t: the file takes %d bytes, %v", extensions, sparse, st.Blocks*512, err)
			}
		}
		if code, _ := d.do(http.DefaultClient, "PATCH", d.remote+"/images/missing", strings.NewReader(`{"op":"discard"}`)); code != 400 {
			t.Errorf("discard without size: %d", code)
		}
	}
}

// Removing a ticket cancels a PUT that waits for its client, and the answer to
// DELETE comes once nothing runs.
func TestRemoveCancelsTransfer(t *testing.T) {
	d := startDaemon(t, nil)
	id := d.ticket(d.image("disk", make([]byte, 1<<20)), 1<<20, nil)
	c, err := net.Dial("tcp", strings.TrimPrefix(d.remote, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "PUT /images/%s HTTP/1.1\r\ncontent-length: 1000000\r\n\r\npart", id)
	waitFor(t, func() bool {
		_, text := d.do(d.control, "GET", "http://control/tickets/"+id, nil)
		return strings.Contains(text, `"active": true`)
	})
	if code, text := d.do(d.control, "DELETE", "http://control/tickets/"+id, nil); code != 204 {
		t.Fatalf("DELETE: %d %s", code, text)
	}
	if head := readHead(t, bufio.NewReader(c)); !strings.HasPrefix(head, "HTTP/1.1 403") {
		t.Errorf("the canceled PUT was answered %q", head)
	}
	if code, _ := d.do(d.control, "GET", "http://control/tickets/"+id, nil); code != 404 {
		t.Errorf("the ticket is still there: %d", code)
	}
	if code, _ := d.do(d.control, "DELETE", "http://control/tickets/"+id, nil); code != 204 {
		t.Errorf("DELETE is not idempotent: %d", code)
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("waited for 20 s in vain")
		}
	}
}

// No log line shows a ticket's id whole, and every request has its line.
func TestLogHidesTickets(t *testing.T) {
	d := startDaemon(t, func(c *Config) { c.Log.Level = "DEBUG" })
	id := d.ticket(d.image("disk", make([]byte, 4096)), 4096, nil)
	for _, method := range []string{"OPTIONS", "GET", "POST"} {
		d.do(http.DefaultClient, method, d.remote+"/images/"+id, nil)
	}
	d.do(http.DefaultClient, "PATCH", d.remote+"/images/"+id, strings.NewReader(`{"op":"flush"}`))
	d.do(http.DefaultClient, "GET", d.remote+"/images/x"+id, nil)
	for _, mistake := range []string{"/images//", "/images/a/", "/images/'", "/images/%20", "/images/%22%22", "/image/", "/images?id=", "/images%2F", "/"} {
		d.do(http.DefaultClient, "GET", d.remote+mistake+id, nil)
	}
	d.do(d.control, "DELETE", "http://control/tickets/"+id, nil)
	d.do(d.control, "GET", "http://control/tickets/"+id, nil)
	d.do(d.control, "PATCH", "http://control/tickets/"+id, strings.NewReader(`{"timeout":1}`))
	d.stop()
	log, err := os.ReadFile(d.cfg.Log.File)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(log, []byte(id[9:])) {
		t.Errorf("the log shows the ticket:\n%s", log)
	}
	for _, want := range []string{"OPTIONS ticket=" + id[:8], "READ ticket=" + id[:8], "FLUSH ticket=" + id[:8], "REMOVE ticket=" + id[:8], "CLOSE connection="} {
		if !bytes.Contains(log, []byte(want)) {
			t.Errorf("the log has no %q:\n%s", want, log)
		}
	}
}

// The end of the daemon waits for the last request and not for idle connections.
func TestShutdown(t *testing.T) {
	d := startDaemon(t, nil)
	d.do(http.DefaultClient, "GET", d.remote+"/info/", nil) // leaves an idle connection
	start := time.Now()
	d.stop()
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("an idle daemon took %v to stop", took)
	}
	if _, err := os.Stat(d.cfg.Control.Socket); !os.IsNotExist(err) {
		t.Errorf("the control socket is left: %v", err)
	}
}

// A socket of a crashed daemon is replaced; that of a living one is not.
func TestControlSocketInUse(t *testing.T) {
	d := startDaemon(t, nil)
	cfg := *d.cfg
	cfg.Remote.Port = 0
	cfg.Local.Enable = false
	if _, err := New(&cfg, openFile); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("second daemon: %v", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(d.dir, "stale"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	cfg.Control.Socket = filepath.Join(d.dir, "stale")
	s, err := New(&cfg, openFile)
	if err != nil {
		t.Fatalf("a stale socket stops the daemon: %v", err)
	}
	info, _ := os.Stat(cfg.Control.Socket)
	if info.Mode().Perm() != 0o660 {
		t.Errorf("control socket has mode %v", info.Mode())
	}
	s.Close()
}

// The vectors were computed with Python's hashlib from the definition.
func TestChecksum(t *testing.T) {
	d := startDaemon(t, nil)
	data := make([]byte, 4<<20, 7<<20)
	for i := range 3 << 20 {
		data = append(data, byte(i))
	}
	id := d.ticket(d.image("disk", data), int64(len(data)), nil)
	base := d.remote + "/images/" + id + "/checksum"
	for query, want := range map[string]string{
		"":                                     `{"algorithm": "blake2b", "block_size": 4194304, "checksum": "ccca973c5fd7b3705a021ff9ee217a9efef2928c6891c347e0ac9d4ddcfc9ea4"}` + "\n",
		"?algorithm=sha256&block_size=1048576": `{"algorithm": "sha256", "block_size": 1048576, "checksum": "53b0a288c0155fa8baa630fe38533ce742a9c31e63995bcf82c348977f5cd371"}` + "\n",
		"?block_size=4096":                     "Block size out of allowed range: 1048576-16777216\n",
		"?block_size=1048577":                  "Block size is not aligned to 4096\n",
		"?algorithm=crc8":                      "Unsupported value 'crc8' for 'algorithm', expecting one of ['blake2b', 'blake2s', 'md5', 'md5-sha1', 'ripemd160', 'sha1', 'sha224', 'sha256', 'sha384', 'sha3_224', 'sha3_256', 'sha3_384', 'sha3_512', 'sha512', 'sha512_224', 'sha512_256', 'sm3']\n",
	} {
		if _, text := d.do(http.DefaultClient, "GET", base+query, nil); text != want {
			t.Errorf("checksum%s: %q, want %q", query, text, want)
		}
	}
	for algorithm, want := range map[string]string{
		"blake2b":    "ccca973c5fd7b3705a021ff9ee217a9efef2928c6891c347e0ac9d4ddcfc9ea4",
		"blake2s":    "8db357320acbd6d4df517a3b7331729f182a1f6c887cd498e525e6c2c820a409",
		"md5":        "2ec8d1a409659bc0347fefa30c9385a6",
		"md5-sha1":   "b9fb3edf97ee36458918063c10530f73aceda02fa00159036b0f08d96a3fc0e40801b661",
		"ripemd160":  "6902d12898b4983241ff726a9a1f7c1c9566a3bc",
		"sha1":       "cd3b8db0f96352466eb4562e401ca9aa0935e975",
		"sha224":     "f23e767e32227c937b9efbe22d25fc8edbe5e0fec1b0bc62ae92ddff",
		"sha256":     "0e1cd6eafbe5cfca182418cc1cec014dd8266b7675b4ed474834d69a0ae94185",
		"sha384":     "40fc8bfc66a605cdc875c7e0cbf6f056d3b9956355367f9296f6cf66200f4a0e625a7dcbe270808a7ab884656ca3d05c",
		"sha3_224":   "55177ce514f73f2791276dea57d47d56c53b4e2d7996ef35ba190397",
		"sha3_256":   "7b7ba5717f6ca9b165f0806fae9ac39c2ba98c17e265d7ee6755719bfb5cfeaf",
		"sha3_384":   "919b855de4867a80dccfda23f8184009e56364d0f20bad678c47ed809068c340e56885a3641fe1658be776b2d998a00e",
		"sha3_512":   "283eff4e21e4493dc4c2b6a2a62d441f82371e58061f2ae947882cceed7109cdd557442225358fd8ab1c6c58b9efa8604e6d7a9b59bd6bf5919f1cc2ed5a6631",
		"sha512":     "0d689eed37af08e9ab357081751c498b11cb6a841848df5e6e7d418b79800a72367511979ec7d5549eb5c7ad60248b7a30cc084904e292bbbd6a99a8af4769b2",
		"sha512_224": "39585bf3eb09f61b3b91c36915b281eb05ed3950ee958660e7df3419",
		"sha512_256": "ccfd29facd980cb8a582e26c1b1f06878187de695ead49e1e5e733c173585c83",
		"sm3":        "23c4b65690bc827413c7ca57f88b853bc7f16a6af0b0a08ef020045fdba439c1",
	} {
		if _, text := d.do(http.DefaultClient, "GET", base+"?algorithm="+algorithm, nil); !strings.Contains(text, `"checksum": "`+want+`"`) {
			t.Errorf("%s: %s, want %s", algorithm, text, want)
		}
	}
	if _, text := d.do(http.DefaultClient, "GET", base+"/algorithms", nil); text != `{"algorithms": ["blake2b", "blake2s", "md5", "md5-sha1", "ripemd160", "sha1", "sha224", "sha256", "sha384", "sha3_224", "sha3_256", "sha3_384", "sha3_512", "sha512", "sha512_224", "sha512_256", "sm3"]}`+"\n" {
		t.Errorf("algorithms: %s", text)
	}
}

// An error of one image's storage has the right status and leaves other
// transfers alone.
func TestStorageErrors(t *testing.T) {
	d := startDaemon(t, nil)
	good := d.ticket(d.image("good", make([]byte, 8192)), 8192, nil)
	gone := d.ticket(filepath.Join(d.dir, "gone"), 8192, nil)
	if code, text := d.do(http.DefaultClient, "GET", d.remote+"/images/"+gone, nil); code != 500 || text != "Server failed to perform the request, check logs\n" {
		t.Errorf("missing image: %d %q", code, text)
	}
	full := d.ticket("/dev/full", 8192, nil)
	if code, _ := d.do(http.DefaultClient, "PUT", d.remote+"/images/"+full, strings.NewReader("data")); code < 500 {
		t.Errorf("a device that takes nothing: %d", code)
	}
	if code, text := d.do(http.DefaultClient, "PUT", d.remote+"/images/"+good, strings.NewReader("data")); code != 200 {
		t.Errorf("the good image: %d %s", code, text)
	}
}

// A client that leaves in the middle of a PUT ends its own transfer alone.
func TestClientGone(t *testing.T) {
	d := startDaemon(t, nil)
	id := d.ticket(d.image("disk", make([]byte, 1<<20)), 1<<20, nil)
	c, err := net.Dial("tcp", strings.TrimPrefix(d.remote, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "PUT /images/%s HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n%s", id, strings.Repeat("x", 100000))
	waitFor(t, func() bool {
		_, text := d.do(d.control, "GET", "http://control/tickets/"+id, nil)
		return strings.Contains(text, `"active": true`)
	})
	c.Close()
	waitFor(t, func() bool {
		_, text := d.do(d.control, "GET", "http://control/tickets/"+id, nil)
		return strings.Contains(text, `"connections": 0`)
	})
	if code, text := d.do(http.DefaultClient, "PUT", d.remote+"/images/"+id, strings.NewReader("data")); code != 200 {
		t.Errorf("after a client left: %d %s", code, text)
	}
}

// Two tickets of one file share one disk, whose locks keep their writes to the
// same blocks apart.
func TestTwoTicketsOfOneFile(t *testing.T) {
	d := startDaemon(t, nil)
	path := d.image("disk", make([]byte, 64<<10))
	link := filepath.Join(d.dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for i, name := range []string{path, link} {
		id := d.ticket(name, 64<<10, nil)
		group.Go(func() {
			for off := i * 100; off+100 <= 64<<10; off += 200 {
				data := bytes.Repeat([]byte{byte(i + 1)}, 100)
				if code, text := d.do(http.DefaultClient, "PUT", d.remote+"/images/"+id+"?flush=n", bytes.NewReader(data), "Content-Range", fmt.Sprintf("bytes %d-*/*", off)); code != 200 {
					t.Errorf("PUT: %d %s", code, text)
					return
				}
			}
		})
	}
	group.Wait()
	d.tickets.disks.mu.Lock()
	if n := len(d.tickets.disks.images); n != 1 {
		t.Errorf("%d disks are open for one file", n)
	}
	d.tickets.disks.mu.Unlock()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 65400 {
		if want := byte(i/100%2 + 1); got[i] != want {
			t.Fatalf("byte %d is %d, want %d: a write was lost", i, got[i], want)
		}
	}
}
