package imageio

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
	"github.com/vmdisk/vmdisk/driver/file"
	"github.com/vmdisk/vmdisk/imageio/client"
	"github.com/vmdisk/vmdisk/imageio/server"
)

const id = "0123456789abcdef0123456789abcdef"

// serve starts a daemon with one ticket, to write an image of size bytes, and
// returns the image's URL.
func serve(tb testing.TB, size int64, change func(*server.Config), ticket string) string {
	tb.Helper()
	dir := tb.TempDir()
	image := filepath.Join(dir, "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		tb.Fatal(err)
	}
	cfg := server.DefaultConfig()
	cfg.TLS.Enable, cfg.Control.Enable = false, false
	cfg.Remote = server.RemoteConfig{Host: "127.0.0.1"}
	cfg.Local.Socket = filepath.Join(dir, "sock")
	cfg.Log = server.LogConfig{Level: "WARNING", File: filepath.Join(dir, "log")}
	change(cfg)
	s, err := server.New(cfg, func(ctx context.Context, u *url.URL, a server.Access) (*disk.Disk, error) {
		return file.OpenDisk(ctx, u.Path, file.Options{ReadOnly: !a.Write})
	})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			tb.Error(err)
		}
	})
	text := fmt.Sprintf(`{"uuid":%q,"size":%d,"ops":["write"],"timeout":3000,"url":"file://%s"%s}`, id, size, image, ticket)
	if _, err := s.Tickets().Add([]byte(text)); err != nil {
		tb.Fatal(err)
	}
	return fmt.Sprintf("http://127.0.0.1:%d/images/%s", cfg.Remote.Port, id)
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		client client.Config
		change func(*server.Config)
	}{
		"tcp":      {client.Config{NoUnixSocket: true}, func(*server.Config) {}},
		"unix":     {client.Config{}, func(*server.Config) {}},
		"sparse":   {client.Config{}, func(*server.Config) {}},
		"original": {client.Config{}, func(c *server.Config) { c.Daemon.Extensions = false }},
	} {
		t.Run(name, func(t *testing.T) {
			disktest.Conformance(t, func(tb testing.TB) *disk.Disk {
				cfg, more := c.client, ""
				if name == "sparse" {
					more = `,"sparse":true`
				}
				cfg.URL = serve(tb, 2<<20, c.change, more)
				d, err := Open(tb.Context(), cfg, Options{})
				if err != nil {
					tb.Fatal(err)
				}
				return d
			}, disktest.Options{Ops: 150})
		})
	}
}

// The client changes over to the unix socket, and not when told not to.
func TestUnixSocket(t *testing.T) {
	t.Parallel()
	image := serve(t, 1<<20, func(*server.Config) {}, "")
	for _, stay := range []bool{false, true} {
		c, err := client.Dial(t.Context(), client.Config{URL: image, NoUnixSocket: stay})
		if err != nil {
			t.Fatal(err)
		}
		if c.Local() == stay {
			t.Errorf("NoUnixSocket %t: local %t", stay, c.Local())
		}
		if c.Size() != 1<<20 || c.Connections() != 4 {
			t.Errorf("size %d, %d connections", c.Size(), c.Connections())
		}
		c.Close()
	}
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	image := serve(t, 1<<20, func(*server.Config) {}, "")
	for target, want := range map[string]string{
		strings.TrimSuffix(image, id) + "another-ticket": "403",
		"http://127.0.0.1:1/images/x":                    "connection refused",
		"http://127.0.0.1:1/other":                       "has the form",
	} {
		_, err := Open(t.Context(), client.Config{URL: target}, Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", target, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "another-ticket") && !strings.Contains(err.Error(), "No such ticket") {
			t.Errorf("the error shows the ticket: %v", err)
		}
	}
}
