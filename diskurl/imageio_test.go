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
	path := filepath.Join(t.TempDir(), "a disk:1")
	if err := os.WriteFile(path, append([]byte("QFI\xfb"), make([]byte, 4092)...), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		(&url.URL{Scheme: "file", Path: path}).String(): "",
		"nbd:unix:/missing.sock:exportname=sda":         "nbd+unix:///sda?socket=/missing.sock",
		"nbd:127.0.0.1:1:exportname=x":                  "nbd://127.0.0.1:1/x",
		"nbd:127.0.0.1:1":                               "nbd://127.0.0.1:1",
		"nbd://127.0.0.1:1/x":                           "nbd://127.0.0.1:1/x",
		"http://127.0.0.1:1/images/abcdef":              "http://127.0.0.1:1/images/abc…",
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		d, err := OpenTicket(ctx, u, Options{ReadOnly: true, Reconnect: -1})
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
