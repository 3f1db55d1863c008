package server

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// half of a ClientHello: a record of 200 bytes is announced.
const halfHello = "\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03"

// hostile are things that cost a client nothing.
var hostile = []struct {
	name, network, begin string
	trickle              bool
	secure               bool // to the service with TLS
}{
	{"silent", "tcp", "", false, false},
	{"endless header of 62 KiB", "tcp", "GET /info/ HTTP/1.1\r\nx: " + strings.Repeat("x", 62<<10), true, false},
	{"half a TLS handshake", "tcp", halfHello, true, true},
	{"a refused body that never ends", "tcp", "PUT /images/missing HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n", true, false},
	{"JSON that never ends", "tcp", "PATCH /images/missing HTTP/1.1\r\ncontent-length: 60000\r\n\r\n" + strings.Repeat(" ", 30<<10), true, false},
	{"idle after a request", "tcp", "GET /info/ HTTP/1.1\r\n\r\n", false, false},
	{"answers that are not read", "tcp", strings.Repeat("GET /info/ HTTP/1.1\r\n\r\n", 100), false, false},
	{"a ticket that never ends", "unix", "PUT /tickets/x HTTP/1.1\r\ncontent-length: 60000\r\n\r\n" + strings.Repeat(" ", 30<<10), true, false},
}

// memory is what the process, both ends of all connections, takes.
func memory() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// leastP99: what a process of two processors, on which other tests run, may take for a
// pause of its own.
const leastP99 = 4 * time.Millisecond

// A thousand connections of each kind leave an honest client of the same address its
// latency, and take little memory.
func TestHostileConnections(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	pool := writeKeyPair(t, cert, key)
	plain := startDaemon(t, nil)
	secure := startDaemon(t, func(c *Config) { c.TLS = TLSConfig{Enable: true, CertFile: cert, KeyFile: key} })
	ids := map[*daemon]string{}
	for _, d := range []*daemon{plain, secure} {
		ids[d] = d.ticket(d.image("disk", randomBytes(1<<20)), 1<<20, nil)
	}
	for _, h := range hostile {
		t.Run(h.name, func(t *testing.T) {
			d := plain
			if h.secure {
				d = secure
			}
			dial := func() (net.Conn, error) { return net.Dial("tcp", strings.TrimPrefix(d.remote, "http://")) }
			if h.secure {
				dial = func() (net.Conn, error) {
					return tls.Dial("tcp", strings.TrimPrefix(d.remote, "http://"), &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
				}
			}
			alone := p99(t, dial, ids[d])
			before := memory()
			conns := attack(t, d, h.network, h.begin)
			peak, beside := int64(0), time.Duration(0)
			for range 5 { // the machine may be busy with something else
				if h.trickle {
					for _, c := range conns {
						c.Write([]byte("x"))
					}
				}
				beside = p99(t, dial, ids[d])
				peak = max(peak, memory()-before)
				if beside <= 5*max(alone, leastP99) {
					break
				}
			}
			t.Logf("p99 alone %v, beside %v; %d MiB", alone, beside, peak>>20)
			if beside > 5*max(alone, leastP99) {
				t.Errorf("p99 of an honest client: %v alone, %v beside 1,000 connections", alone, beside)
			}
			if peak > 128<<20 { // of which a part is the hostile ends'
				t.Errorf("1,000 connections take %d MiB", peak>>20)
			}
		})
	}
}

// attack opens a thousand connections.
func attack(t *testing.T, d *daemon, network, begin string) (conns []net.Conn) {
	t.Helper()
	addr := strings.TrimPrefix(d.remote, "http://")
	if network == "unix" {
		addr = d.cfg.Control.Socket
	}
	for range 1000 {
		c, err := net.Dial(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		io.WriteString(c, begin)
		c.SetWriteDeadline(time.Time{})
		conns = append(conns, c)
	}
	return conns
}

// p99 reads 4 KiB of a ticket's image 200 times, each by a connection of its own.
func p99(t *testing.T, dial func() (net.Conn, error), id string) time.Duration {
	t.Helper()
	var took []time.Duration
	for range 200 {
		start := time.Now()
		c, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(c, "GET /images/%s HTTP/1.1\r\nrange: bytes=0-4095\r\nconnection: close\r\n\r\n", id)
		text, err := io.ReadAll(c)
		c.Close()
		took = append(took, time.Since(start))
		if err != nil || !bytes.HasPrefix(text, []byte("HTTP/1.1 206 ")) || len(text) < 4096 {
			t.Fatalf("%.100q %v", text, err)
		}
	}
	slices.Sort(took)
	return took[len(took)*99/100-1]
}
