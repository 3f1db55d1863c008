package server

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/imageio/pyjson"
)

func TestRangeSetModel(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for range 200 {
		var set rangeSet
		var have [512]bool
		for range 40 {
			lo := r.Int64N(512)
			hi := lo + r.Int64N(1<<r.IntN(8))
			hi = min(hi, 512)
			set.add(lo, hi)
			for i := lo; i < hi; i++ {
				have[i] = true
			}
		}
		count := func() (n int64) {
			for _, b := range have {
				if b {
					n++
				}
			}
			return n
		}
		if set.sum != count() {
			t.Fatalf("sum %d, want %d", set.sum, count())
		}
		more := [][2]int64{{r.Int64N(512), 512}, {0, r.Int64N(512)}, {100, 200}}
		got := set.sumWith(more)
		for _, m := range more {
			for i := m[0]; i < m[1]; i++ {
				have[i] = true
			}
		}
		if got != count() {
			t.Fatalf("sumWith %d, want %d", got, count())
		}
	}
}

func TestParseTicket(t *testing.T) {
	good := `{"uuid":"0123456789abcdef","size":18446744073709551616,"ops":["read"],"timeout":10,"url":"file:///x","more":{}}`
	spec, err := parseTicket([]byte(good), 60)
	if err != nil {
		t.Fatal(err)
	}
	if spec.Size != math.MaxInt64 || spec.InactivityTimeout != 60 || spec.TransferID != "(ticket/01234567)" {
		t.Errorf("parsed %+v", spec)
	}
	for text, want := range map[string]string{
		`{}`:   "Required ticket parameter is missing: uuid",
		`[1]`:  "Invalid ticket: [1], expecting a dict",
		`nope`: "json",
		`{"UUID":"u","size":1,"ops":[],"timeout":1,"url":"file:///x"}`:    "Required ticket parameter is missing: uuid",
		`{"uuid":null,"size":1,"ops":[],"timeout":1,"url":"file:///x"}`:   "Invalid value for 'uuid': None: expecting a <class 'str'> value",
		`{"uuid":"u","size":null,"ops":[],"timeout":1,"url":"file:///x"}`: "Invalid value for 'size': None: expecting a <class 'int'> value",
		`{"uuid":"u","size":1,"ops":null,"timeout":1,"url":"file:///x"}`:  "Invalid value for 'ops': None: expecting a <class 'list'> value",
		`{"uuid":"u","size":1,"ops":[],"timeout":null,"url":"file:///x"}`: "Invalid value for 'timeout': None",
		`{"uuid":"u","size":1,"ops":[],"timeout":1,"url":null}`:           "Invalid value for 'url': None",
		"{\"uuid\":\"\xff\"}": "'utf-8' codec can't decode byte 0xff in position 9: invalid start byte",
		`{"uuid":"u","size":1,"ops":[],"timeout":1,"url":"file:///x","dirty":null}`: "Invalid value for 'dirty': None: expecting a <class 'bool'> value",
		`{"uuid":"u","size":1,"size":[1],"ops":[],"timeout":1,"url":"file:///x"}`:   "Invalid value for 'size': [1]",
		`{"uuid":1,"size":1,"ops":[],"timeout":1,"url":"file:///x"}`:                "Invalid value for 'uuid'",
		`{"uuid":"u","size":"1","ops":[],"timeout":1,"url":"file:///x"}`:            "Invalid value for 'size'",
		`{"uuid":"u","size":-1,"ops":[],"timeout":1,"url":"file:///x"}`:             "Invalid value for 'size'",
		`{"uuid":"u","size":1,"ops":["eat"],"timeout":1,"url":"file:///x"}`:         "Invalid value for 'ops'",
		`{"uuid":"u","size":1,"ops":"read","timeout":1,"url":"file:///x"}`:          "Invalid value for 'ops'",
		`{"uuid":"u","size":1,"ops":[],"timeout":1.5,"url":"file:///x"}`:            "Invalid value for 'timeout'",
		`{"uuid":"u","size":1,"ops":[],"timeout":1,"url":"ftp://x/y"}`:              "Unsupported url scheme: ftp",
		`{"uuid":"u","size":1,"ops":[],"timeout":1,"url":"file:///x","sparse":1}`:   "Invalid value for 'sparse'",
	} {
		_, err := newTickets(nil, 60).Add([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func value(o pyjson.Object, key string) any {
	v, _ := o.Get(key)
	return v
}

// Time moves by hand: expiry, touch, extend, idle time.
func TestTicketTimes(t *testing.T) {
	now := 1000 * time.Second
	s := newTickets(nil, 60)
	s.clock = func() time.Duration { return now }
	tk, err := s.Add([]byte(`{"uuid":"0123456789abcdef","size":10,"ops":["read"],"timeout":10,"url":"file:///x"}`))
	if err != nil {
		t.Fatal(err)
	}
	authorized := func() bool { _, err := s.authorize("0123456789abcdef", "read"); return err == nil }
	now += 9 * time.Second
	if !authorized() || value(tk.info(), "idle_time") != int64(9) {
		t.Errorf("after 9 s: %v", tk.info())
	}
	tk.touch()
	now += 9 * time.Second
	if !authorized() {
		t.Error("a touch did not extend the ticket")
	}
	now += time.Second
	if authorized() {
		t.Error("the ticket did not expire")
	}
	tk.extend(5)
	if !authorized() || value(tk.info(), "expires") != int64(1024) {
		t.Errorf("an expired ticket was not extended: %v", tk.info())
	}
}

func TestLoadConfig(t *testing.T) {
	dir := t.TempDir()
	if _, err := LoadConfig(dir); err == nil || !strings.Contains(err.Error(), "conf.d/*.conf") {
		t.Errorf("an empty directory: %v", err)
	}
	os.Mkdir(filepath.Join(dir, "conf.d"), 0o755)
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, "conf.d", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("50-vdsm.conf", "# comment\n[tls]\nenable = no\n[remote]\nport: 1234\nHOST = 127.0.0.1\n[unknown]\nx = 1\n[control]\ntransport=tcp\nport=0\n")
	write("99-user.conf", "[remote]\nport = 4321\n[logger_root]\nlevel = DEBUG\nhandlers = logfile\n[handler_logfile]\nargs = (\"/tmp/x.log\",)\nkwargs = {\"maxBytes\": 1000,\n  \"backupCount\": 3}\n")
	cfg, err := LoadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Remote != (RemoteConfig{"127.0.0.1", 4321}) || cfg.Control.Transport != "tcp" || !reflect.DeepEqual(cfg.Log, LogConfig{Level: "DEBUG", File: "/tmp/x.log", MaxBytes: 1000, BackupCount: 3, Others: []LogConfig{}}) {
		t.Errorf("loaded %+v", cfg)
	}
	for text, want := range map[string]string{
		"[remote]\nport = x\n":            "bad.conf:2",
		"[remote]\nport = 1\nport = 2\n":  "stands twice",
		"[remote]\n[remote]\n":            "stands twice",
		"port = 1\n":                      "before any [section]",
		"[remote]\nnonsense\n":            "bad.conf:2",
		"[remote]\nport = 99999\n":        "remote.port",
		"[control]\ntransport = pigeon\n": "pigeon",
		"[tls]\nenable = true\n":          "key_file",
		"[logger_root]\nlevel = LOUD\n":   "unknown level",
		"[daemon]\nlog_format = xml\n":    "log_format",
		"[daemon]\nmax_connections = 0\n": "max_connections",
	} {
		write("99-z-bad.conf", text)
		os.Rename(filepath.Join(dir, "conf.d", "99-z-bad.conf"), filepath.Join(dir, "conf.d", "99-zbad.conf"))
		if _, err := LoadConfig(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestLogRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f, err := openLog(LogConfig{File: path, MaxBytes: 10, BackupCount: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, line := range []string{"aaaaaaaa", "bbbbbbbb", "cccccccc", "dddddddd"} {
		if _, err := io.WriteString(f, line); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{path: "dddddddd", path + ".1": "cccccccc", path + ".2": "bbbbbbbb"} {
		if got, _ := os.ReadFile(name); string(got) != want {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
	if _, err := os.Stat(path + ".3"); err == nil {
		t.Error("more backups than asked for")
	}
}

func FuzzReadRequest(f *testing.F) {
	for _, seed := range []string{
		"GET / HTTP/1.1\r\n\r\n", "PUT /images/x?flush=n HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
		"PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "GET /%zz HTTP/1.0\n\n",
		"PATCH /x HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", "A B HTTP/1.1\r\n : \r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(text), 64)
		req, err := readRequest(r)
		if err != nil {
			var bad *httpError
			if errors.As(err, &bad) && (bad.status < 400 || !bad.close) {
				t.Errorf("a malformed head is answered %d, close %t", bad.status, bad.close)
			}
			return
		}
		n, err := io.Copy(io.Discard, &req.body)
		if req.length >= 0 && n > req.length {
			t.Errorf("read %d bytes of a body of %d", n, req.length)
		}
		if err == nil && !req.body.done() {
			t.Error("the body ended without an error before its end")
		}
	})
}

func FuzzParseINI(f *testing.F) {
	f.Add("[a]\nb = c\n  d\n# x\n")
	f.Add("[]\n=\n")
	f.Fuzz(func(t *testing.T, text string) {
		ini := iniFile{}
		if err := parseINI(strings.NewReader(text), "f", ini); err != nil && !strings.HasPrefix(err.Error(), "f:") {
			t.Errorf("an error without a position: %v", err)
		}
	})
}

func FuzzTicket(f *testing.F) {
	f.Add([]byte(`{"uuid":"u","size":1,"ops":["read"],"timeout":1,"url":"file:///x"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s := newTickets(nil, 60)
		if tk, err := s.Add(text); err == nil && tk.spec.Size < 0 {
			t.Errorf("accepted a size of %d", tk.spec.Size)
		}
	})
}

func FuzzRanges(f *testing.F) {
	f.Add("bytes=0-99")
	f.Add("bytes 1-2/3")
	f.Fuzz(func(t *testing.T, text string) {
		if r, err := parseRange(text); err == nil && r.last >= 0 && r.first > r.last {
			t.Errorf("%q gives %+v", text, r)
		}
		if off, err := contentOffset(text); err == nil && off < 0 {
			t.Errorf("%q gives offset %d", text, off)
		}
	})
}

func FuzzPatch(f *testing.F) {
	f.Add([]byte(`{"op":"zero","size":4096,"offset":99999999999999999999,"flush":true}`))
	f.Add([]byte(`{"op":["zero"],"size":1e3,"offset":-1,"flush":"y"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseMessage(text)
		if err != nil {
			return
		}
		if off, n, _, err := m.zero(); err == nil && (off < 0 || n < 0) {
			t.Errorf("%s zeroes %d bytes at %d", text, n, off)
		}
	})
}

// The original's answers to a PATCH, as its program gave them.
func TestPatchMessages(t *testing.T) {
	d := startDaemon(t, func(c *Config) { c.Daemon.Extensions = false })
	id := d.ticket(d.image("disk", make([]byte, 65536)), 65536, nil)
	for text, want := range map[string]string{
		``:                                     "Invalid JSON message Expecting value: line 1 column 1 (char 0)",
		`{}`:                                   "Missing required value for op",
		`{"OP":"flush"}`:                       "Missing required value for op",
		`{"op":null}`:                          "Unsupported value None for 'op', expecting one of ['flush', 'zero']",
		`{"op":1}`:                             "Unsupported value 1 for 'op', expecting one of ['flush', 'zero']",
		`{"op":"1"}`:                           "Unsupported value '1' for 'op', expecting one of ['flush', 'zero']",
		`{"op":"discard"}`:                     "Unsupported value 'discard' for 'op', expecting one of ['flush', 'zero']",
		`{"op":[]}`:                            "Unsupported value [] for 'op', expecting one of ['flush', 'zero']",
		`{"op":"it's"}`:                        "Unsupported value \"it's\" for 'op', expecting one of ['flush', 'zero']",
		`{"op":"zero"}`:                        "Missing required value for 'size'",
		`{"op":"zero","Size":1}`:               "Missing required value for 'size'",
		`{"op":"zero","size":null}`:            "Integer required None",
		`{"op":"zero","size":"1"}`:             "Integer required '1'",
		`{"op":"zero","size":1e2}`:             "Integer required 100.0",
		`{"op":"zero","size":[1,"a"]}`:         "Integer required [1, 'a']",
		`{"op":"zero","size":{"a":1}}`:         "Integer required {'a': 1}",
		`{"op":"zero","size":-1}`:              "Invalid value -1 < 0",
		`{"op":"zero","size":1,"flush":null}`:  "Boolean required None",
		`{"op":"zero","size":1,"offset":null}`: "Integer required None",
		"{\"op\":\"fl\xff\"}":                  "Invalid JSON message 'utf-8' codec can't decode byte 0xff in position 9: invalid start byte",
		`{"op":"flush","op":"zero"}`:           "Missing required value for 'size'",
		"\ufeff{\"op\":\"flush\"}":             "",
		`{"op":"zero","op":"flush"}`:           "",
		`{"op":"zero","size":true}`:            "",
		`{"op":"zero","size":1,"x":NaN}`:       "",
	} {
		if want != "" {
			want += "\n"
		}
		if code, body := d.do(http.DefaultClient, "PATCH", d.remote+"/images/"+id, strings.NewReader(text)); body != want || (code == 200) != (want == "") {
			t.Errorf("%s: %d %q, want %q", text, code, body, want)
		}
	}
}
