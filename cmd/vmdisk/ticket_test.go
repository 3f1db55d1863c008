package main

import (
	"os"
	"path/filepath"
	"testing"
)

// A ticket's url names what the argument names, without any escape: neither the daemon
// nor the original decodes one.
func TestTicketURL(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"q#b.raw", "pct%41.raw", "q?x"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("12345"), 0o600); err != nil {
			t.Fatal(err)
		}
		if url, size, err := ticketURL(path, 0); err != nil || url != "file://"+path || size != 5 {
			t.Errorf("%s: %s, %d, %v", name, url, size, err)
		}
	}
	for target, want := range map[string]string{
		"nbd://host/a%20b%2541%23":               "nbd:host:10809:exportname=a b%41#",
		"nbd://[::1]:1":                          "nbd:[::1]:1",
		"nbd+unix:///a%20b?socket=/tmp/my%20tmp": "nbd:unix:/tmp/my tmp:exportname=a b",
		"nbd+unix:///?socket=/s":                 "nbd:unix:/s",
		"nbd:unix:/s:exportname=x":               "nbd:unix:/s:exportname=x",
		"https://host:54322/images/x":            "https://host:54322/images/x",
	} {
		if got, _, err := ticketURL(target, 1); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", target, got, err, want)
		}
	}
	for _, target := range []string{"nbds://host/x", "nbd+unix:///?socket=/a:b"} {
		if got, _, err := ticketURL(target, 1); err == nil {
			t.Errorf("%s: %s", target, got)
		}
	}
}
