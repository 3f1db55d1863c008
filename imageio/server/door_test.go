package server

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// limited starts a daemon with these bounds.
func limited(t *testing.T, clients, perAddress int, tune func(*Server)) *daemon {
	t.Helper()
	return startTuned(t, func(c *Config) { c.Daemon.MaxClients, c.Daemon.MaxClientsPerAddress = clients, perAddress }, openFile, tune)
}

// dialFrom connects to the remote service from a loopback address.
func (d *daemon) dialFrom(address string) net.Conn {
	d.t.Helper()
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	c, err := from.Dial("tcp", strings.TrimPrefix(d.remote, "http://"))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

func (d *daemon) count(s int) int {
	svc := d.services[s]
	svc.mu.Lock()
	defer svc.mu.Unlock()
	return len(svc.conns)
}

// ended waits until the server has closed the connection.
func ended(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, c); os.IsTimeout(err) {
		t.Error("the connection was not closed")
	}
}

// A head, and JSON that no ticket vouches for, has one limit in all: a byte now and then
// does not move it.
func TestHeadDeadline(t *testing.T) {
	d := startTuned(t, nil, openFile, func(s *Server) {
		for _, svc := range s.services {
			svc.headTime = 300 * time.Millisecond
		}
	})
	for _, begin := range []string{
		"GET /images/x HTTP/1.1\r\nx: ",
		"GET /imag",
		"PATCH /images/x HTTP/1.1\r\ncontent-length: 60000\r\n\r\n{",
		"PUT /tickets/x HTTP/1.1\r\ncontent-length: 60000\r\n\r\n{",
		"PUT /tickets/x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n10\r\n{",
	} {
		t.Run(fmt.Sprintf("%.20q", begin), func(t *testing.T) {
			t.Parallel()
			d.trickle(t, begin)
		})
	}
}

// trickle sends begin, and then a byte now and then until the server hangs up.
func (d *daemon) trickle(t *testing.T, begin string) {
	t.Helper()
	network, addr := "tcp", strings.TrimPrefix(d.remote, "http://")
	if strings.Contains(begin, "/tickets/") {
		network, addr = "unix", d.cfg.Control.Socket
	}
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, begin)
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		io.Copy(io.Discard, c)
	}()
	for open := true; open; {
		select {
		case <-closed:
			open = false
		case <-time.After(20 * time.Millisecond):
			if _, err := c.Write([]byte{'x'}); os.IsTimeout(err) {
				t.Fatalf("the connection stays open")
			}
		}
	}
}

// An upload that a ticket vouches for may take longer than its head.
func TestHeadDeadlineEndsWithTicket(t *testing.T) {
	d := startTuned(t, nil, openFile, func(s *Server) {
		for _, svc := range s.services {
			svc.headTime = 200 * time.Millisecond
		}
	})
	id := d.ticket(d.image("disk", make([]byte, 4096)), 4096, nil)
	c := d.dialFrom("127.0.0.1")
	r := bufio.NewReader(c)
	for range 2 {
		fmt.Fprintf(c, "PUT /images/%s HTTP/1.1\r\ncontent-length: 8\r\n\r\n", id)
		for range 8 {
			time.Sleep(50 * time.Millisecond) // what the test is about: slower than headTime in all
			io.WriteString(c, "x")
		}
		if head := readHead(t, r); !strings.HasPrefix(head, "HTTP/1.1 200") {
			t.Fatal(head)
		}
	}
}

// Connections that have shown no ticket yield to new ones, the oldest first; then those
// that are idle. Those with a transfer do not: then new ones are refused, with the reason.
func TestConnectionsYield(t *testing.T) {
	d := limited(t, 3, 0, nil)
	id := d.ticket(d.image("disk", make([]byte, 4096)), 4096, nil)
	first := d.dialFrom("127.0.0.1")
	waitFor(t, func() bool { return d.count(0) == 1 })
	var others []net.Conn
	for range 2 {
		c := d.dialFrom("127.0.0.1")
		io.WriteString(c, "GET /images/x HTTP/1.1\r\nx: endless")
		others = append(others, c)
	}
	waitFor(t, func() bool { return d.count(0) == 3 })
	put := func() (net.Conn, *bufio.Reader) {
		c := d.dialFrom("127.0.0.1")
		fmt.Fprintf(c, "PUT /images/%s HTTP/1.1\r\ncontent-length: 8\r\n\r\nhalf", id)
		return c, bufio.NewReader(c)
	}
	busy := func(n int) {
		t.Helper()
		waitFor(t, func() bool { return d.state(id).Connections == int64(n) && d.state(id).Active })
	}
	a, ra := put()
	ended(t, first)
	busy(1)
	put()
	put()
	for _, c := range others {
		ended(t, c)
	}
	busy(3)
	refused := d.dialFrom("127.0.0.1")
	io.WriteString(refused, "GET /info/ HTTP/1.1\r\n\r\n")
	text, err := io.ReadAll(refused)
	if err != nil || !bytes.HasPrefix(text, []byte("HTTP/1.1 503 ")) || !bytes.Contains(text, []byte("connection: close\r\n")) ||
		!bytes.HasSuffix(text, []byte("All 3 connections of this service are in use; try again later\n")) {
		t.Errorf("a fourth connection: %q %v", text, err)
	}
	io.WriteString(a, "half")
	if head := readHead(t, ra); !strings.HasPrefix(head, "HTTP/1.1 200") {
		t.Errorf("the transfer: %s", head)
	}
	// The first connection is idle now, and yields after a moment.
	waitFor(t, func() bool {
		c := d.dialFrom("127.0.0.1")
		defer c.Close()
		io.WriteString(c, "GET /info/ HTTP/1.1\r\nconnection: close\r\n\r\n")
		text, _ := io.ReadAll(c)
		return bytes.HasPrefix(text, []byte("HTTP/1.1 200"))
	})
	ended(t, a)
}

// One address does not take the places of the others.
func TestShareOfAnAddress(t *testing.T) {
	d := limited(t, 100, 2, nil)
	id := d.ticket(d.image("disk", make([]byte, 4096)), 4096, nil)
	for range 2 {
		fmt.Fprintf(d.dialFrom("127.0.0.3"), "PUT /images/%s HTTP/1.1\r\ncontent-length: 8\r\n\r\nhalf", id)
	}
	waitFor(t, func() bool { return d.state(id).Connections == 2 })
	answer := func(from string) string {
		c := d.dialFrom(from)
		io.WriteString(c, "GET /info/ HTTP/1.1\r\nconnection: close\r\n\r\n")
		text, err := io.ReadAll(c)
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	if text := answer("127.0.0.3"); !strings.HasPrefix(text, "HTTP/1.1 503 ") || !strings.Contains(text, "All 2 connections that one address may have are in use") {
		t.Errorf("a third connection of one address: %s", text)
	}
	if text := answer("127.0.0.4"); !strings.HasPrefix(text, "HTTP/1.1 200 ") {
		t.Errorf("another address: %s", text)
	}
}

// A refusal is told under TLS too, and told or not it holds nobody up.
func TestRefusalUnderTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	pool := writeKeyPair(t, cert, key)
	d := startTuned(t, func(c *Config) {
		c.Daemon.MaxClients = 1
		c.TLS = TLSConfig{Enable: true, CertFile: cert, KeyFile: key}
	}, openFile, nil)
	d.remote = strings.TrimPrefix(d.remote, "http://")
	id := d.ticket(d.image("disk", make([]byte, 4096)), 4096, nil)
	config := &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
	busy, err := tls.Dial("tcp", d.remote, config)
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	fmt.Fprintf(busy, "PUT /images/%s HTTP/1.1\r\ncontent-length: 8\r\n\r\nhalf", id)
	waitFor(t, func() bool { return d.state(id).Active })
	for range maxRefusing + 10 {
		silent, err := net.Dial("tcp", d.remote)
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
	}
	waitFor(t, func() bool { // once the silent ones have been given up
		c, err := tls.Dial("tcp", d.remote, config)
		if err != nil {
			return false
		}
		defer c.Close()
		text, _ := io.ReadAll(c)
		return bytes.HasPrefix(text, []byte("HTTP/1.1 503 "))
	})
}

// Large heads share 8 MiB, which ordinary ones do not need.
func TestHeadMemory(t *testing.T) {
	d := limited(t, 1000, 0, nil)
	heads := d.services[0].heads
	huge := "GET /info/ HTTP/1.1\r\nx: " + strings.Repeat("x", 60<<10)
	var conns []net.Conn
	for range 200 {
		c := d.dialFrom("127.0.0.1")
		conns = append(conns, c)
		go io.WriteString(c, huge)
	}
	waitFor(t, func() bool { return heads.used.Load() > headMemory-(56<<10) })
	if used := heads.used.Load(); used > headMemory {
		t.Errorf("heads take %d bytes", used)
	}
	waitFor(t, func() bool { // those that did not fit are told
		for _, c := range conns {
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			if text, _ := io.ReadAll(c); bytes.HasPrefix(text, []byte("HTTP/1.1 503 ")) {
				return true
			}
		}
		return false
	})
	if code, text := d.do(http.DefaultClient, "GET", d.remote+"/info/", nil); code != 200 {
		t.Errorf("an ordinary request: %d %s", code, text)
	}
	for _, c := range conns {
		c.Close()
	}
	waitFor(t, func() bool { return heads.used.Load() == 0 })
	one := d.dialFrom("127.0.0.1")
	io.WriteString(one, huge+"\r\nconnection: close\r\n\r\n")
	if text, _ := io.ReadAll(one); !bytes.HasPrefix(text, []byte("HTTP/1.1 200 ")) {
		t.Errorf("a large head: %.60q", text)
	}
	waitFor(t, func() bool { return heads.used.Load() == 0 })
}

// What clients can cause to be logged is bounded, by connection and in all, and what is
// left out is counted.
func TestLogIsBounded(t *testing.T) {
	d := startDaemon(t, nil)
	id := d.ticket(d.image("disk", make([]byte, 4096)), 4096, nil)
	lines := func() (n int) {
		log, err := os.ReadFile(filepath.Join(d.dir, "daemon.log"))
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Count(log, []byte{'\n'})
	}
	for _, request := range []string{"GET /nothing", "OPTIONS /images/*", "OPTIONS /images/" + id, "GET /images/" + id + "/extents", "PUT /tickets/x"} {
		c := d.dialFrom("127.0.0.1")
		before := lines()
		go io.WriteString(c, strings.Repeat(request+" HTTP/1.1\r\ncontent-length: 0\r\n\r\n", 2000)+"GET /end HTTP/1.1\r\nconnection: close\r\n\r\n")
		ended(t, c)
		if n := lines() - before; n > 60 {
			t.Errorf("%s 2,000 times on one connection: %d lines", request, n)
		}
	}
	before := lines()
	for range 2000 {
		d.raw("GET /images/missing HTTP/1.1\r\n\r\n")
	}
	if n := lines() - before; n > allBurst+40*allLines {
		t.Errorf("2,000 refused connections: %d lines", n)
	}
	d.stop()
	if log, _ := os.ReadFile(filepath.Join(d.dir, "daemon.log")); !bytes.Contains(log, []byte("lines about clients were left out")) {
		t.Error("the log does not say that lines are missing")
	}
}
