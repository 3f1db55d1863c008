package interop

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/interop/peer"
)

// TestHostileLoadDaemon: as TestHostileLoad, of the transfer daemon. Some of the
// hostile clients have a ticket, most have none.
func TestHostileLoadDaemon(t *testing.T) {
	sc, others := loadScale(), getting(t, daemon(t, false, ""))
	for _, k := range []struct {
		name string
		full bool // in the full test alone
		do   func(path string) hostile
	}{
		{"headers without end", false, func(path string) hostile {
			return func(c net.Conn) error {
				if err := send(c, []byte("GET "+path+" HTTP/1.1\r\n"+strings.Repeat("x: "+strings.Repeat("y", 4000)+"\r\n", 15))); err != nil {
					return err
				}
				return drip(c, []byte(strings.Repeat("z: z\r\n", 1000)))
			}
		}},
		{"a request line a byte at a time", true, func(path string) hostile {
			return func(c net.Conn) error { return drip(c, []byte("GET "+path+strings.Repeat("/", 10000))) }
		}},
		{"connections without a request", false, func(string) hostile { return linger }},
		{"downloads that nobody reads", false, func(path string) hostile {
			return repeated("GET "+path+" HTTP/1.1\r\n\r\n", hold)
		}},
		{"uploads a byte at a time", false, func(path string) hostile {
			return repeated("PUT "+path+" HTTP/1.1\r\nContent-Length: 4194304\r\n\r\n", func(c net.Conn) error { return drip(c, make([]byte, 4<<20)) })
		}},
		{"patches a byte at a time", true, func(path string) hostile {
			return repeated("PATCH "+path+" HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 4000\r\n\r\n", func(c net.Conn) error { return drip(c, make([]byte, 4000)) })
		}},
		{"requests for what is not there", false, func(string) hostile {
			return func(c net.Conn) error {
				for {
					if err := send(c, []byte("GET /images/missing HTTP/1.1\r\n\r\n")); err != nil {
						return err
					}
					time.Sleep(100 * time.Millisecond)
				}
			}
		}},
		{"pipelined requests whose answers nobody reads", true, func(string) hostile {
			return func(c net.Conn) error {
				for {
					if err := send(c, []byte(strings.Repeat("OPTIONS /images/* HTTP/1.1\r\n\r\n", 500))); err != nil {
						return err
					}
				}
			}
		}},
	} {
		if !k.full || sc.full {
			t.Run(k.name, func(t *testing.T) { hostileLoadDaemon(t, sc, others, k.do) })
		}
	}
}

// repeated sends a request and goes on with do.
func repeated(request string, do hostile) hostile {
	return func(c net.Conn) error {
		if err := send(c, []byte(request)); err != nil {
			return err
		}
		return do(c)
	}
}

// hold reads nothing until the connection is closed at this end.
func hold(c net.Conn) error {
	for {
		if err := c.SetDeadline(time.Time{}); err != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func hostileLoadDaemon(t *testing.T, sc scale, others probe, do func(path string) hostile) {
	attacked := daemon(t, false, "")
	gets, path := getting(t, attacked), "/images/"+imageTicket(t, attacked)
	alone := inTurn(t, sc.measure, gets, others)[0]
	h := unleash(t, sc.clients, func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", strings.TrimPrefix(attacked.Remote, "http://"))
	}, do(path))
	time.Sleep(sc.settle) // not awaited: what hostile clients reach in a while is what is measured
	bearable(t, sc.measure, alone, gets, others)
	h.stop()
	t.Logf("%d hostile connections, ended by: %v", h.in.Load(), h.err)
	smallEnough(t, attacked.Proc)
	quiet(t, attacked.Proc, sc)
	if st, err := os.Stat(attacked.Log()); err != nil || st.Size() > 16<<20 {
		t.Errorf("the log file: %v, %v", st, err)
	}
}

// imageTicket is a ticket for a new image of 8 MiB.
func imageTicket(t *testing.T, d *peer.Daemon) string {
	t.Helper()
	image := filepath.Join(tempDir(t), "image")
	dataFile(t, image, 8<<20)
	return ticket(t, d, image)
}

// getting is an honest client that reads 4 KiB here and there over one connection.
func getting(t *testing.T, d *peer.Daemon) probe {
	t.Helper()
	id := imageTicket(t, d)
	tr := &http.Transport{MaxConnsPerHost: 1}
	t.Cleanup(tr.CloseIdleConnections)
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.Image(id), nil)
		if err != nil {
			return err
		}
		off := rand.IntN(1024) * 4096
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+4095))
		resp, err := tr.RoundTrip(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		n, err := io.Copy(io.Discard, resp.Body)
		if err == nil && (resp.StatusCode != http.StatusPartialContent || n != 4096) {
			return fmt.Errorf("%s, %d bytes", resp.Status, n)
		}
		return err
	}
}
