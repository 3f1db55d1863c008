package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// turn is one request that a scripted server saw.
type turn struct {
	method, path, head string
	body               []byte
	conn, nth          int // the connection, and the request on it, from 0
}

// script answers a request with raw bytes; hangUp ends the connection then.
type script func(t turn) (answer string, hangUp bool)

// scripted serves connections by the script and returns the image's URL and
// what was seen.
func scripted(t *testing.T, s script) (url string, seen func() []turn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	var all []turn
	group.Go(func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer c.Close()
				stop := context.AfterFunc(t.Context(), func() { c.Close() })
				defer stop()
				r := bufio.NewReader(c)
				for nth := 0; ; nth++ {
					got, err := readTurn(r)
					if err != nil {
						return
					}
					got.conn, got.nth = n, nth
					mu.Lock()
					all = append(all, got)
					mu.Unlock()
					answer, hangUp := s(got)
					if _, err := io.WriteString(c, answer); err != nil || hangUp {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		group.Wait()
	})
	return fmt.Sprintf("http://%s/images/ticket", l.Addr()), func() []turn {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

func readTurn(r *bufio.Reader) (t turn, err error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return t, err
	}
	t.method, line, _ = strings.Cut(line, " ")
	t.path, _, _ = strings.Cut(line, " ")
	length := 0
	for {
		if line, err = r.ReadString('\n'); err != nil {
			return t, err
		}
		if line = strings.TrimSpace(line); line == "" {
			break
		}
		t.head += line + "\n"
		if v, ok := strings.CutPrefix(line, "content-length: "); ok {
			if length, err = strconv.Atoi(v); err != nil {
				return t, err
			}
		}
	}
	t.body = make([]byte, length)
	_, err = io.ReadFull(r, t.body)
	return t, err
}

func reply(status int, headers, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d X\r\n%scontent-length: %d\r\n\r\n%s", status, headers, len(body), body)
}

const imageSize = 1 << 20

// modern answers what Dial asks, with the features given, and leaves the rest to
// then.
func modern(features string, then script) script {
	return func(t turn) (string, bool) {
		switch {
		case t.method == "OPTIONS":
			return reply(200, "allow: OPTIONS,GET,PUT,PATCH\r\n", `{"features":[`+features+`],"max_readers":8,"max_writers":8}`), false
		case strings.Contains(t.head, "range: bytes=0-0\n"):
			return reply(206, fmt.Sprintf("content-range: bytes 0-0/%d\r\n", imageSize), "x"), false
		}
		return then(t)
	}
}

const allFeatures = `"zero","flush","extents","checksum"`

func dial(t *testing.T, url string, change func(*Config)) *Client {
	t.Helper()
	cfg := Config{URL: url, Retry: 20 * time.Second, Timeout: 20 * time.Second}
	if change != nil {
		change(&cfg)
	}
	c, err := Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Servers from before OPTIONS say 405 or 204: one connection, writes alone.
func TestOldServers(t *testing.T) {
	t.Parallel()
	for _, first := range []string{reply(405, "", "no\n"), "HTTP/1.1 204 No Content\r\n\r\n", reply(204, "allow: GET,PUT\r\n", "")} {
		url, seen := scripted(t, func(got turn) (string, bool) {
			switch got.method {
			case "OPTIONS":
				return first, false
			case "GET":
				return reply(206, fmt.Sprintf("content-range: bytes 0-0/%d\r\n", imageSize), "x"), false
			}
			return reply(200, "", ""), false
		})
		c := dial(t, url, nil)
		f := c.Features()
		if !f.Write || f.Zero || f.Flush || f.Extents || f.Checksum || f.Discard || c.Connections() != 1 || c.Size() != imageSize {
			t.Errorf("%q: features %+v, %d connections, size %d", first, f, c.Connections(), c.Size())
		}
		for name, err := range map[string]error{"zero": c.Zero(t.Context(), 0, 1), "discard": c.Discard(t.Context(), 0, 1),
			"extents": c.Extents(t.Context(), "zero", 0, 1, func(Extent) bool { return true })} {
			if !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := c.WriteAt(t.Context(), []byte("data"), 8); err != nil {
			t.Error(err)
		}
		if err := c.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		turns := seen()
		if last := turns[len(turns)-1]; last.method != "PUT" || last.path != "/images/ticket?flush=n" || !strings.Contains(last.head, "content-range: bytes 8-11/*\n") || string(last.body) != "data" {
			t.Errorf("the write was %+v", last)
		}
	}
}

// A connection that breaks in the middle of an answer is replaced, and the
// request made again.
func TestRetry(t *testing.T) {
	t.Parallel()
	want := strings.Repeat("0123456789abcdef", 4096)
	for name, broken := range map[string]string{
		"before the answer": "", "in the head": "HTTP/1.1 206 X\r\ncontent-le",
		"in the body": fmt.Sprintf("HTTP/1.1 206 X\r\ncontent-length: %d\r\n\r\n%s", len(want), want[:1000]),
		"bad gateway": reply(502, "", "try again\n"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			failures := 3
			url, _ := scripted(t, modern(allFeatures, func(got turn) (string, bool) {
				mu.Lock()
				defer mu.Unlock()
				if failures--; failures >= 0 && got.method == "PUT" {
					return "", true
				} else if failures >= 0 {
					return broken, true
				}
				if got.method == "PUT" {
					return reply(200, "", ""), false
				}
				return reply(206, "", want), false
			}))
			c := dial(t, url, nil)
			p := make([]byte, len(want))
			if err := c.ReadAt(t.Context(), p, 0); err != nil || string(p) != want {
				t.Errorf("read: %v, equal %t", err, string(p) == want)
			}
			mu.Lock()
			failures = 1
			mu.Unlock()
			if err := c.WriteAt(t.Context(), p, 0); err != nil {
				t.Errorf("write: %v", err)
			}
		})
	}
}

// Without retries, or when they do not help, the error says what happened.
func TestNoRetry(t *testing.T) {
	t.Parallel()
	url, seen := scripted(t, modern(allFeatures, func(turn) (string, bool) { return "", true }))
	c := dial(t, url, func(cfg *Config) { cfg.Retry = -1 })
	before := len(seen())
	if err := c.ReadAt(t.Context(), make([]byte, 10), 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read: %v", err)
	}
	if n := len(seen()) - before; n != 1 {
		t.Errorf("%d requests", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.ReadAt(ctx, make([]byte, 10), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled read: %v", err)
	}
}

// What a server must not say is an error, at once, and does not spoil the next
// request.
func TestWrongAnswers(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("x", 100)
	for name, c := range map[string]struct{ answer, want string }{
		"too long":        {reply(206, "", body+"y"), "asked for 100 bytes, the server sends 101"},
		"too short":       {reply(206, "", body[:99]), "asked for 100 bytes, the server sends 99"},
		"whole image":     {reply(200, "", body), "the server answered 200, which is not what was asked for"},
		"two lines":       {reply(500, "", "first\nsecond\x1b[2J\n"), "500: first"},
		"not HTTP":        {"SSH-2.0-OpenSSH\r\n\r\n", "does not speak HTTP/1"},
		"no length":       {"HTTP/1.1 206 X\r\n\r\n", "no usable content-length"},
		"negative length": {"HTTP/1.1 206 X\r\ncontent-length: -1\r\n\r\n", "no usable content-length"},
		"head too long":   {"HTTP/1.1 206 X\r\nx: " + strings.Repeat("y", 1<<17), "head beyond"},
		"forbidden":       {reply(403, "connection: close\r\n", "Transfer=7 expired\n"), "the server answered 403: Transfer=7 expired"},
		"full":            {reply(507, "", "No space left\n"), "507: No space left"},
		"endless error":   {"HTTP/1.1 500 X\r\ncontent-length: 9999999\r\n\r\n" + body, "500"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var once sync.Once
			url, _ := scripted(t, modern(allFeatures, func(turn) (text string, hangUp bool) {
				text = reply(206, "", body)
				once.Do(func() { text, hangUp = c.answer, true })
				return text, hangUp
			}))
			k := dial(t, url, func(cfg *Config) { cfg.Retry = -1 })
			p := make([]byte, 100)
			if err := k.ReadAt(t.Context(), p, 0); err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 300 || strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("%v, want %q", err, c.want)
			}
			if err := k.ReadAt(t.Context(), p, 0); err != nil || string(p) != body {
				t.Errorf("the next request: %v", err)
			}
		})
	}
}

// A server that refuses a body while it is being sent is heard.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	defer near.Close()
	go func() {
		defer far.Close()
		r := bufio.NewReader(far)
		for line := ""; line != "\r\n"; {
			var err error
			if line, err = r.ReadString('\n'); err != nil {
				return
			}
		}
		go io.Copy(io.Discard, r)
		io.WriteString(far, reply(403, "connection: close\r\n", "Transfer=7 was canceled\n"))
	}()
	c := newConn(near, false, 20*time.Second, &waits{})
	a, err := c.roundTrip("host", &call{method: "PUT", body: make([]byte, 64<<20)})
	if err != nil {
		t.Fatal(err)
	}
	err = c.consume(a, done)
	var status *StatusError
	if !errors.As(err, &status) || status.Status != 403 || status.Message != "Transfer=7 was canceled" {
		t.Errorf("%v, want the refusal", err)
	}
}

// Extents in chunks, cut anywhere: what was not seen is asked for again, and a
// list that lies is refused.
func TestChunkedExtents(t *testing.T) {
	t.Parallel()
	var list bytes.Buffer
	list.WriteString("[")
	for off := 0; off < imageSize; off += 4096 {
		if off > 0 {
			list.WriteString(", ")
		}
		fmt.Fprintf(&list, `{"start": %d, "length": 4096, "zero": %t, "hole": false}`, off, off%8192 == 0)
	}
	list.WriteString("]\n")
	var chunked strings.Builder
	chunked.WriteString("HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n")
	for text := list.Bytes(); len(text) > 0; {
		n := min(len(text), 1000)
		fmt.Fprintf(&chunked, "%x;ext=1\r\n%s\r\n", n, text[:n])
		text = text[n:]
	}
	chunked.WriteString("0\r\ntrailer: x\r\n\r\n")
	whole := chunked.String()
	for _, cut := range []int{len(whole), 10, 60, 1234, len(whole) / 2, len(whole) - 3} {
		for _, paged := range []bool{false, true} {
			var once sync.Once
			features := allFeatures
			if paged {
				features += `,"extents-paged"`
			}
			url, _ := scripted(t, modern(features, func(turn) (text string, hangUp bool) {
				text = whole
				once.Do(func() { text, hangUp = whole[:cut], cut < len(whole) })
				return text, hangUp
			}))
			c := dial(t, url, nil)
			next, zeroes := int64(0), 0
			err := c.Extents(t.Context(), "zero", 0, imageSize, func(e Extent) bool {
				if e.Start != next {
					t.Fatalf("cut %d: extent at %d, want %d", cut, e.Start, next)
				}
				if next += e.Length; e.Zero {
					zeroes++
				}
				return true
			})
			if err != nil || next != imageSize || zeroes != imageSize/8192 {
				t.Errorf("cut %d, paged %t: %v, ends at %d, %d zero extents", cut, paged, err, next, zeroes)
			}
		}
	}
	for name, text := range map[string]string{
		"a gap": `[{"start":0,"length":10},{"start":20,"length":10}]`, "empty": `[{"start":0,"length":0}]`,
		"no list": `{"start":0}`, "negative": `[{"start":0,"length":-5}]`, "early end": `[]`,
		"beyond": `[{"start":0,"length":99999999}]`, "overflow": `[{"start":9223372036854775807,"length":9223372036854775807}]`,
	} {
		url, _ := scripted(t, modern(allFeatures+`,"extents-paged"`, func(turn) (string, bool) { return reply(200, "", text), false }))
		c := dial(t, url, func(cfg *Config) { cfg.Retry = -1 })
		if err := c.Extents(t.Context(), "zero", 0, imageSize, func(Extent) bool { return true }); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// A server that stops answering is given up after Timeout.
func TestTimeout(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	url, _ := scripted(t, modern(allFeatures, func(turn) (string, bool) { <-hang; return "", true }))
	defer close(hang)
	c := dial(t, url, func(cfg *Config) { cfg.Retry, cfg.Timeout = -1, 50*time.Millisecond })
	err := c.ReadAt(t.Context(), make([]byte, 10), 0)
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("%v, want a timeout", err)
	}
}

// Whatever a server sends, the client ends, within bounds.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		reply(206, "", "data"), "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n4\r\n[{}]\r\n0\r\n\r\n",
		"HTTP/1.0 204 \r\n\r\n", "HTTP/1.1 200 X\r\ncontent-length: 99999999999\r\n\r\n[", "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
		reply(200, "", `[{"start":0,"length":5,"zero":true},{"start":5,"length":6}]`), "\r\n", "HTTP/1.1 99 X\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		near, far := net.Pipe()
		far.Close()
		c := newConn(near, false, time.Second, &waits{})
		c.r = bufio.NewReaderSize(bytes.NewReader(text), 16<<10)
		a, err := c.readHead()
		if err != nil {
			return
		}
		next := int64(0)
		err = c.consume(a, func(a *answer) error {
			return eachExtent(a, 1<<40, &next, func(e Extent) bool {
				if e.Start+e.Length != next || e.Length <= 0 || next > 1<<40 {
					t.Errorf("extent %+v, next %d", e, next)
				}
				return true
			})
		})
		if err == nil && (a.status != 200 || !c.spent && !a.drained()) {
			t.Errorf("status %d accepted, drained %t", a.status, a.drained())
		}
	})
}
