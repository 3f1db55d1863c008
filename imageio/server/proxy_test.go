package server

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/imageio"
	"github.com/vmdisk/vmdisk/imageio/client"
)

// proxyTo starts a daemon whose tickets are for images of another one.
func proxyTo(t *testing.T) *daemon {
	t.Helper()
	return startDaemonOver(t, nil, func(ctx context.Context, u *url.URL, a Access) (*disk.Disk, error) {
		return imageio.Open(ctx, client.Config{URL: u.String(), NoUnixSocket: true}, imageio.Options{ReadOnly: !a.Write, Dirty: a.Dirty})
	})
}

// What the daemon behind a ticket finds wrong is told as it told it, and an answer
// never promises more bytes than that daemon has.
func TestProxiedStatuses(t *testing.T) {
	far, near := startDaemon(t, nil), proxyTo(t)
	content := randomBytes(1 << 20)
	short := far.image("short", content)
	readOnly := map[string]any{"ops": []string{"read"}}
	through := func(id string, size int64, change map[string]any) string {
		return near.remote + "/images/" + near.ticket("", size, merge(change, map[string]any{"url": far.remote + "/images/" + id}))
	}
	get := func(target string, headers ...string) (int, string) {
		return near.do(http.DefaultClient, "GET", target, nil, headers...)
	}
	// The far ticket is for 4 MiB, the file behind it has 1 MiB.
	for _, change := range []map[string]any{readOnly, nil} {
		image := through(far.ticket(short, 4<<20, change), 4<<20, change)
		if code, text := get(image); code != 200 || text != string(content) {
			t.Errorf("GET of a short image, %v: %d, %d bytes", change, code, len(text))
		}
		if code, text := get(image, "Range", "bytes=1048000-2000000"); code != 416 || !strings.Contains(text, "Requested more bytes than available: 2000001 > 1048576") {
			t.Errorf("GET past a short image, %v: %d %s", change, code, text)
		}
		if code, text := get(image + "/extents"); code != 200 || !strings.Contains(text, `"length": 1048576`) {
			t.Errorf("the extents of a short image, %v: %d %s", change, code, text)
		}
	}
	// The near ticket is for more than the far one.
	small := through(far.ticket(short, 4096, nil), 1<<20, nil)
	if code, text := get(small); code != 200 || text != string(content[:4096]) {
		t.Errorf("GET of a small ticket: %d, %d bytes", code, len(text))
	}
	if code, text := near.do(http.DefaultClient, "PUT", small, bytes.NewReader(make([]byte, 8192))); code != 416 {
		t.Errorf("PUT past the other ticket: %d %s, want 416", code, text)
	}
	// The far ticket does not exist, may only read, and is removed while it is in use.
	if code, text := get(through("missing-ticket", 4096, nil)); code != 403 || !strings.Contains(text, "No such ticket missing…") {
		t.Errorf("GET of an unknown ticket: %d %s, want 403 without the id", code, text)
	}
	id := far.ticket(short, 4096, nil)
	image := through(id, 4096, nil)
	if code, text := get(image); code != 200 {
		t.Fatal(code, text)
	}
	far.do(far.control, "DELETE", "http://control/tickets/"+id, nil)
	for _, method := range []string{"GET", "PUT"} {
		if code, text := near.do(http.DefaultClient, method, image, strings.NewReader("data")); code != 403 || strings.Contains(text, id) {
			t.Errorf("%s with a ticket that was removed behind: %d %s, want 403 without the id", method, code, text)
		}
	}
}

func merge(maps ...map[string]any) map[string]any {
	out := map[string]any{}
	for _, m := range maps {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

// A path is taken as it stands in the ticket.
func TestLiteralPaths(t *testing.T) {
	d := startDaemon(t, nil)
	decoy := func(name string) { d.image(name, []byte("wrong")) }
	for _, name := range []string{"pctAb.raw", "q", "a", "plus plus"} {
		decoy(name)
	}
	for _, name := range []string{"pct%41b.raw", "q#b.raw", "q?x=y", "a%", "a%zz", "plus+plus", "a b;c", "a\nb", "ä\xff"} {
		path := d.image(name, []byte("right"))
		id := d.ticket("", 5, map[string]any{"url": "file://" + path})
		if strings.Contains(name, "\xff") { // JSON has no such bytes
			continue
		}
		if code, text := d.do(http.DefaultClient, "GET", d.remote+"/images/"+id, nil); code != 200 || text != "right" {
			t.Errorf("file://…/%s: %d %q", name, code, text)
		}
		if code, text := d.do(http.DefaultClient, "PUT", d.remote+"/images/"+id, strings.NewReader("wrote")); code != 200 {
			t.Errorf("PUT file://…/%s: %d %s", name, code, text)
		}
		if got, err := os.ReadFile(filepath.Join(d.dir, name)); err != nil || string(got) != "wrote" {
			t.Errorf("%q holds %q, %v", name, got, err)
		}
	}
}

func TestParseTicketURL(t *testing.T) {
	for text, want := range map[string]string{
		"file:///a%20b":                         "file|/a%20b||",
		"file://host/a#b":                       "file|/a#b||",
		"file:/a?b":                             "file|/a?b||",
		"FILE:///a":                             "file|/a||",
		"nbd:unix:/a b%41#?:exportname=x#y%41?": "nbd|||unix:/a b%41#?:exportname=x#y%41?",
		"nbd:host:10809:exportname=x":           "nbd|||host:10809:exportname=x",
		"nbd://[::1]:10809/x%41#y":              "nbd|/x%41#y|[::1]:10809|",
		"https://host:54322/images/id":          "https|/images/id|host:54322|",
	} {
		u, err := parseTicketURL(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := fmt.Sprintf("%s|%s|%s|%s", u.Scheme, u.Path, u.Host, u.Opaque); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	for _, text := range []string{"", "/path", "ftp://host/x", "file", "file:///a\x00b", "http://[::1/x"} {
		if u, err := parseTicketURL(text); err == nil {
			t.Errorf("%q: %v", text, u)
		}
	}
}
