package server

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/file"
)

// Heads that one program takes for one request and another for two, or for another one:
// each is refused, and what comes after it is not taken for a request.
func TestSmuggling(t *testing.T) {
	d := startDaemon(t, nil)
	id := d.ticket(d.image("disk", make([]byte, 65536)), 65536, nil)
	const hidden = "GET /info/ HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, head := range map[string]string{
		"NUL in a value":                 "X: a\x00b\r\nContent-Length: 4\r\n",
		"CR in a value":                  "X: a\rContent-Length: 4\r\n",
		"VT in a value":                  "X: a\x0bContent-Length: 4\r\n",
		"two CRs":                        "Content-Length: 4\r\r\n",
		"VT in Transfer-Encoding":        "Transfer-Encoding: \x0bchunked\r\n",
		"CR in Transfer-Encoding":        "Transfer-Encoding: chunked\r\r\n",
		"NUL in Transfer-Encoding":       "Transfer-Encoding: chunked\x00\r\n",
		"VT before the colon":            "Transfer-Encoding\x0b: chunked\r\n",
		"blank before the colon":         "Content-Length : 4\r\n",
		"a folded line":                  "X: a\r\n Content-Length: 4\r\n",
		"no token":                       "Content(Length): 4\r\n",
		"both lengths":                   "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
		"two lengths":                    "Content-Length: 4\r\nContent-Length: 5\r\n",
		"a list of lengths":              "Content-Length: 4, 4\r\n",
		"a sign":                         "Content-Length: +4\r\n",
		"an underscore":                  "Content-Length: 1_0\r\n",
		"hexadecimal":                    "Content-Length: 0x4\r\n",
		"chunked twice":                  "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
		"another encoding":               "Transfer-Encoding: gzip, chunked\r\n",
		"another encoding, then no more": "Transfer-Encoding: identity\r\n",
	} {
		answer := d.raw("PUT /images/" + id + " HTTP/1.1\r\nHost: x\r\n" + head + "\r\n" + hidden + hidden)
		if !strings.HasPrefix(answer, "HTTP/1.1 400 ") || strings.Count(answer, "HTTP/1.1 ") != 1 || !strings.Contains(answer, "\r\nconnection: close\r\n") {
			t.Errorf("%s: %q", name, answer)
		}
	}
	for name, body := range map[string]string{
		"LF after a size": "4\nabcd\r\n0\r\n\r\n", "LF after data": "4\r\nabcd\n0\r\n\r\n", "VT before a size": "\x0b4\r\nabcd\r\n0\r\n\r\n",
		"a sign": "+4\r\nabcd\r\n0\r\n\r\n", "0x": "0x4\r\nabcd\r\n0\r\n\r\n", "CR in an extension": "4;a\rb\r\nabcd\r\n0\r\n\r\n",
		"too long data": "4\r\nabcdef\r\n0\r\n\r\n", "LF at the end": "4\r\nabcd\r\n0\r\n\n", "no size": "\r\nabcd\r\n0\r\n\r\n",
	} {
		answer := d.raw("PUT /images/" + id + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + body + hidden)
		if !strings.HasPrefix(answer, "HTTP/1.1 400 ") || strings.Count(answer, "HTTP/1.1 ") != 1 {
			t.Errorf("chunks, %s: %q", name, answer)
		}
	}
	answer := d.raw("PUT /images/" + id + " HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n" + hidden)
	if !strings.HasPrefix(answer, "HTTP/1.1 200 ") || strings.Count(answer, "HTTP/1.1 ") != 1 {
		t.Errorf("HTTP/1.0 with chunks stays open: %q", answer)
	}
}

// Once a request is refused its body is not asked for any more.
func TestNoContinueAfterTheAnswer(t *testing.T) {
	d := startDaemon(t, nil)
	id := d.ticket(d.image("disk", make([]byte, 65536)), 65536, nil)
	for _, path := range []string{"/images/nothing", "/images/" + id + "?flush=maybe", "/nowhere"} {
		answer := d.raw("PUT " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nabcd")
		if strings.Contains(answer, "HTTP/1.1 100") || strings.Count(answer, "HTTP/1.1 ") != 1 {
			t.Errorf("%s: %q", path, answer)
		}
	}
	if answer := d.raw("PUT /images/" + id + " HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nabcd"); !strings.HasPrefix(answer, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n") {
		t.Errorf("a body that is wanted: %q", answer)
	}
}

// The original's answers, as its program gave them.
func TestGoldenAnswers(t *testing.T) {
	d := startDaemonOver(t, func(c *Config) { c.Daemon.Extensions = false }, func(ctx context.Context, u *url.URL, a Access) (*disk.Disk, error) {
		return file.OpenDisk(ctx, u.Path, file.Options{ReadOnly: !a.Write, ForceShare: true, Cache: file.None})
	})
	id := d.ticket(d.image("disk", randomBytes(65536)), 65536, nil)
	for _, c := range []struct {
		request, status, body string
	}{
		{"OPTIONS /images/ID HTTP/1.1", "200 OK", `{"unix_socket": "` + d.cfg.Local.Socket + `", "features": ["checksum", "extents", "flush", "zero"], "max_readers": 8, "max_writers": 1}`},
		{"OPTIONS /images/* HTTP/1.1", "200 OK", `{"unix_socket": "` + d.cfg.Local.Socket + `", "features": ["checksum", "extents", "flush", "zero"]}`},
		{"GET //info/ HTTP/1.1", "200 OK", `{"version": "2.5.3"}`},
		{"GET /info/ HTTP/1.9", "200 OK", `{"version": "2.5.3"}`},
		{"GET /nothing/%27 HTTP/1.1", "404 Not Found", `No handler for "/nothing/'"`},
		{"GET /n%0a HTTP/1.1", "404 Not Found", `No handler for '/n\n'`},
		{"GET /n%zz HTTP/1.1", "404 Not Found", `No handler for '/n%zz'`},
		{"GET /n%ff HTTP/1.1", "404 Not Found", "No handler for '/n\ufffd'"},
		{"GET /tickets/abcdefgh HTTP/1.1", "404 Not Found", "No handler for '/tickets/abcdefgh'"},
		{"G'T /images/ID HTTP/1.1", "405 Method Not Allowed", `Invalid method "G'T"`},
		{"HEAD /images/ID HTTP/1.1", "405 Method Not Allowed", ""},
		{"GET /images/ID HTTP/1.1\r\nRange: bytes=0-1'", "416 Requested Range Not Satisfiable", `Cannot satisfy range "bytes=0-1'", invalid range or multiple ranges`},
		{"GET /images/ID HTTP/1.1\r\nRange: bytes=\xd9\xa1-", "416 Requested Range Not Satisfiable", "Cannot satisfy range 'bytes=Ù¡-', invalid range or multiple ranges"},
		{"GET /images/ID HTTP/1.1\r\nRange: bytes=0-9223372036854775807", "416 Requested Range Not Satisfiable", "Requested range out of allowed range"},
		{"GET /images/ID HTTP/1.1\r\nRange: bytes=0-99999999999999999999", "416 Requested Range Not Satisfiable", "Requested range out of allowed range"},
		{"GET /images/ID HTTP/1.1\r\nRange: bytes=-99999999999999999999", "416 Requested Range Not Satisfiable", "suffix-byte-range-spec not supported yet"},
		{"PUT /images/ID HTTP/1.1\r\nContent-Length: 0\r\nContent-Range: bytes '0-3/4", "400 Bad Request", `Invalid Content-Range "bytes '0-3/4"`},
		{"PUT /images/ID HTTP/1.1\r\nContent-Length: x", "400 Bad Request", "Invalid Content-Length: 'x'"},
		{"PUT /images/ID HTTP/1.1\r\nContent-Length: -4", "400 Bad Request", "Negative Content-Length: -4"},
		{"PUT /images/ID HTTP/1.1\r\nContent-Length: 99999999999999999999", "416 Requested Range Not Satisfiable", "Requested range out of allowed range"},
		{"PUT /images/ID?flush=%zz HTTP/1.1\r\nContent-Length: 0", "400 Bad Request", "Unsupported value '%zz' for 'flush', expecting one of ['n', 'y']"},
		{"PUT /images/ID?flush=a%00b HTTP/1.1\r\nContent-Length: 0", "400 Bad Request", `Unsupported value 'a\x00b' for 'flush', expecting one of ['n', 'y']`},
		{"GET /images/ID/checksum?block_size=x HTTP/1.1", "400 Bad Request", "Invalid block size: 'x'"},
		{"GET /images/ID/checksum?block_size=99999999999999999999 HTTP/1.1", "400 Bad Request", "Block size out of allowed range: 1048576-16777216"},
	} {
		method, _, _ := strings.Cut(c.request, " ")
		answer := d.raw(strings.ReplaceAll(c.request, "ID", id) + "\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(answer)), &http.Request{Method: method})
		if err != nil {
			t.Errorf("%s: %v", c.request, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.Status != c.status || strings.TrimSuffix(string(body), "\n") != c.body || err != nil {
			t.Errorf("%s: %s %q (%v), want %s %q", c.request, resp.Status, body, err, c.status, c.body)
		}
	}
}

// What moves data is told of in detail alone: at INFO its lines rotated all else away.
func TestTransfersAreDebugLines(t *testing.T) {
	d := startDaemon(t, nil)
	target := d.remote + "/images/" + d.ticket(d.image("disk", make([]byte, 65536)), 65536, map[string]any{"sparse": true})
	d.do(http.DefaultClient, "GET", target, nil)
	d.do(http.DefaultClient, "PUT", target, strings.NewReader("data"))
	d.do(http.DefaultClient, "PATCH", target, strings.NewReader(`{"op":"zero","size":4096}`))
	d.do(http.DefaultClient, "PATCH", target, strings.NewReader(`{"op":"discard","size":4096}`))
	d.do(http.DefaultClient, "PATCH", target, strings.NewReader(`{"op":"flush"}`))
	d.stop()
	log, err := os.ReadFile(d.cfg.Log.File)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{" READ ", " WRITE ", " ZERO ", " DISCARD "} {
		if strings.Contains(string(log), word) {
			t.Errorf("a line of%sat INFO:\n%s", word, log)
		}
	}
	if !strings.Contains(string(log), " FLUSH ") {
		t.Errorf("no FLUSH in\n%s", log)
	}
}

// A checksum reads the image, which the original counts as transferred.
func TestChecksumIsTransferred(t *testing.T) {
	d := startDaemon(t, nil)
	id := d.ticket(d.image("disk", make([]byte, 65536)), 65536, map[string]any{"ops": []string{"read"}})
	if code, text := d.do(http.DefaultClient, "GET", d.remote+"/images/"+id+"/checksum", nil); code != 200 {
		t.Fatal(text)
	}
	if _, text := d.do(d.control, "GET", "http://control/tickets/"+id, nil); !strings.Contains(text, `"transferred": 65536`) {
		t.Error(text)
	}
}
