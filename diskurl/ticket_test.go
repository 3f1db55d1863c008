package diskurl

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The forms of a ticket's url reach the driver they name.
func TestOpenTicket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a disk:1%41#?")
	if err := os.WriteFile(path, append([]byte("QFI\xfb"), make([]byte, 4092)...), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"file:" + path:                                 "",
		"nbd:unix:/missing.sock:exportname=sda":        "nbd+unix:///sda?socket=/missing.sock",
		"nbd:unix:/missing%41 x.sock:exportname=s%64a": "nbd+unix:///s%2564a?socket=/missing%2541",
		"nbd:127.0.0.1:1:exportname=x":                 "nbd://127.0.0.1:1/x",
		"nbd:127.0.0.1:1":                              "nbd://127.0.0.1:1",
		"nbd://127.0.0.1:1/x%41":                       "nbd://127.0.0.1:1/x%2541",
		"http://127.0.0.1:1/images/abcdef":             "http://127.0.0.1:1/images/abc…",
	} {
		u := ticketURLOf(t, text)
		ctx, cancel := context.WithCancel(t.Context())
		d, err := OpenTicket(ctx, u, Options{ReadOnly: true, ServerOptions: ServerOptions{Reconnect: -1}})
		cancel()
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", text, err)
				continue
			}
			if d.Size() != 4096 {
				t.Errorf("%s: size %d", text, d.Size())
			}
			d.Close()
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want an error of %s", text, err, want)
		}
	}
}

// ticketURLOf makes a URL as the transfer service hands it on: nothing is unescaped.
func ticketURLOf(t *testing.T, text string) *url.URL {
	t.Helper()
	scheme, rest, _ := strings.Cut(text, ":")
	after, authority := strings.CutPrefix(rest, "//")
	switch {
	case scheme == "file":
		return &url.URL{Scheme: scheme, Path: rest}
	case scheme == "nbd" && authority:
		host, export, _ := strings.Cut(after, "/")
		return &url.URL{Scheme: scheme, Host: host, Path: "/" + export}
	case scheme == "nbd":
		return &url.URL{Scheme: scheme, Opaque: rest}
	}
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
