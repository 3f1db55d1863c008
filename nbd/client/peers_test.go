package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/nbd"
)

// peer starts a foreign server on a unix socket that args name by SOCK, and
// stops it when the test ends.
func peer(t testing.TB, args ...string) Config {
	t.Helper()
	dir, err := os.MkdirTemp("", "nbdpeer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	sock := filepath.Join(dir, "s")
	for i := range args {
		args[i] = strings.ReplaceAll(strings.ReplaceAll(args[i], "SOCK", sock), "DIR", dir)
	}
	if _, err := exec.LookPath(args[0]); err != nil {
		t.Fatalf("%v (install nbdkit and qemu-utils)", err)
	}
	cmd := exec.Command(args[0], args[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	for range 1000 {
		if nc, err := net.Dial("unix", sock); err == nil {
			nc.Close()
			return Config{Network: "unix", Addr: sock}
		}
		select {
		case <-ended:
			t.Fatalf("%v ended: %s", args, out.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatalf("%v does not listen: %s", args, out.String())
	return Config{}
}

func dial(t testing.TB, cfg Config) *Client {
	t.Helper()
	c, err := Dial(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func image(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPeers(t *testing.T) {
	t.Parallel()
	const size = 64 << 20
	for name, args := range map[string]func(t *testing.T) []string{
		"nbdkit memory": func(*testing.T) []string { return []string{"nbdkit", "-f", "-U", "SOCK", "memory", "64M"} },
		"nbdkit file":   func(t *testing.T) []string { return []string{"nbdkit", "-f", "-U", "SOCK", "file", image(t, size)} },
		"nbdkit no-sr":  func(*testing.T) []string { return []string{"nbdkit", "--no-sr", "-f", "-U", "SOCK", "memory", "64M"} },
		"nbdkit newstyle1": func(*testing.T) []string {
			return []string{"nbdkit", "--mask-handshake=0", "-f", "-U", "SOCK", "memory", "64M"}
		},
		"qemu-nbd": func(t *testing.T) []string {
			return []string{"qemu-nbd", "-t", "-e", "8", "-f", "raw", "-k", "SOCK", "--discard=unmap", image(t, size)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, peer(t, args(t)...))
			e := c.Export()
			t.Logf("%+v, %d connections", e, c.Connections())
			if e.Size != size {
				t.Fatalf("size %d", e.Size)
			}
			exercise(t, c)
		})
	}
}

// exercise checks concurrent random writes, zeroes and reads against a model,
// each goroutine in a region of its own.
func exercise(t *testing.T, c *Client) {
	ctx := context.Background()
	e := c.Export()
	const workers = 8
	region := e.Size / workers
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(w)))
			model := make([]byte, region)
			base := int64(w) * region
			for range 60 {
				n := (1 + rng.Int64N(512)) << rng.IntN(12) &^ 511
				n = min(max(n, 512), region)
				at := rng.Int64N(region-n+1) &^ 511
				var err error
				p := model[at : at+n]
				switch rng.IntN(4) {
				case 0:
					err = c.ReadAt(ctx, make([]byte, n), base+at)
				case 1:
					if e.Has(nbd.FlagSendWriteZeroes) {
						clear(p)
						err = c.WriteZeroes(ctx, base+at, n, 0)
					}
				default:
					for i := range p {
						p[i] = byte(rng.Uint32())
					}
					err = c.WriteAt(ctx, p, base+at, 0)
				}
				if err != nil {
					t.Errorf("at %d, %d bytes: %v", base+at, n, err)
					return
				}
			}
			got := make([]byte, region)
			if err := c.ReadAt(ctx, got, base); err != nil {
				t.Error(err)
			} else if !bytes.Equal(got, model) {
				t.Errorf("region %d differs", w)
			}
		})
	}
	group.Wait()
	if e.Has(nbd.FlagSendFlush) {
		if err := c.Flush(ctx); err != nil {
			t.Error(err)
		}
	}
	if len(e.Contexts) > 0 {
		total := int64(0)
		for total < e.Size {
			got, err := c.BlockStatus(ctx, 0, total, e.Size-total, make([]nbd.Status, 0, 16))
			if err != nil || len(got) == 0 {
				t.Fatalf("%v %v", got, err)
			}
			for _, s := range got {
				total += int64(s.Length)
			}
		}
	}
}

// A server that takes fewer connections than it promises costs a second, no more.
func TestFewerConnections(t *testing.T) {
	t.Parallel()
	cfg := peer(t, "qemu-nbd", "-t", "-e", "2", "-f", "raw", "-k", "SOCK", image(t, 1<<20))
	start := time.Now()
	c := dial(t, cfg)
	if c.Connections() > 2 || time.Since(start) > DefaultHandshakeTimeout {
		t.Errorf("%d connections after %v", c.Connections(), time.Since(start))
	}
	if err := c.ReadAt(t.Context(), make([]byte, 4096), 0); err != nil {
		t.Error(err)
	}
}

func TestListAndInspect(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 4096), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg := peer(t, "nbdkit", "-f", "-U", "SOCK", "file", "dir="+dir)
	list, err := List(context.Background(), cfg)
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v %v", list, err)
	}
	cfg.Export = "b"
	e, err := Inspect(context.Background(), cfg)
	if err != nil || e.Size != 4096 || fmt.Sprint(e.Contexts) != "[base:allocation]" {
		t.Fatalf("%+v %v", e, err)
	}
	cfg.Export = "none"
	if _, err := Dial(context.Background(), cfg); !errors.As(err, new(*OptionError)) && err == nil {
		t.Fatal(err)
	}
}
