package server

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// confDir makes a configuration of one file.
func confDir(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "conf.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "conf.d", "50.conf"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// [DEFAULT] is for the sections that the files have, and have no such key.
func TestConfigDefaults(t *testing.T) {
	cfg, err := LoadConfig(confDir(t, "[DEFAULT]\nport = 1111\nenable = false\nsocket = /s\n[remote]\n[tls]\n[control]\nport = 2222\n[DEFAULT]\nhost = h\n"))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Remote != (RemoteConfig{"h", 1111}) || cfg.TLS.Enable || cfg.Control.Port != 2222 || cfg.Control.Socket != "/s" || cfg.Control.Enable {
		t.Errorf("sections that stand there: %+v", cfg)
	}
	if !cfg.Local.Enable || cfg.Local.Socket != "\x00/org/ovirt/imageio" {
		t.Errorf("one that does not: %+v", cfg.Local)
	}
}

// What cannot work can be shown all the same, with what is tolerated.
func TestShowIncompleteConfig(t *testing.T) {
	dir := confDir(t, "[tls]\nenable = true\n[backend_nbd]\nbuffer_size = 77\n[daemon]\npoll_interval = 0.1\n[handler_stderr]\nlevel = ERROR\n")
	if _, err := LoadConfig(dir); err == nil {
		t.Error("TLS without a key is in order")
	}
	cfg, err := ReadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(cfg.Map())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"key_file":""`, `"backend_nbd":{"buffer_size":"77"}`, `"poll_interval":"0.1"`, `"max_connections":8`, `"handler_stderr":{"level":"ERROR"}`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
}

// Several handlers, each with a level and a format.
func TestLogHandlers(t *testing.T) {
	dir := t.TempDir()
	cfg, err := LoadConfig(confDir(t, `
[tls]
enable = false
[handlers]
keys = logfile, errors
[logger_root]
level = DEBUG
handlers = logfile, errors
[handler_logfile]
args = ("`+dir+`/all.log",)
[handler_errors]
class = logging.FileHandler
args = ('`+dir+`/errors.log', 'a')
level = WARNING
formatter = short
[formatter_long]
format = %(asctime)s %(levelname)-7s (%(threadName)s) [%(name)s] %(message)s
[formatter_short]
format = %(levelname)8s|%(name)s|%(message)s|100%%
datefmt = %H
`))
	if err != nil {
		t.Fatal(err)
	}
	if files := cfg.Log.Files(); !slices.Equal(files, []string{dir + "/all.log", dir + "/errors.log"}) {
		t.Errorf("files: %q", files)
	}
	s := &Server{cfg: cfg}
	if err := s.openLog(); err != nil {
		t.Fatal(err)
	}
	s.log.debug("images", "one")
	s.log.warn("http", "two")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	all, _ := os.ReadFile(dir + "/all.log")
	form := regexp.MustCompile(`^\S+ \S+ INFO    \(MainThread\) \[server\] Starting \(hostname=\S+ pid=\d+, version=2.5.3\)
\S+ \d\d:\d\d:\d\d,\d{3} DEBUG   \(MainThread\) \[images\] one
\S+ \S+ WARNING \(MainThread\) \[http\] two
$`)
	if !form.Match(all) {
		t.Errorf("all.log:\n%s", all)
	}
	if errors, _ := os.ReadFile(dir + "/errors.log"); string(errors) != " WARNING|http|two|100%\n" {
		t.Errorf("errors.log:\n%s", errors)
	}
	for text, want := range map[string]string{
		"handlers = pigeon": "[handler_pigeon]",
		"handlers = ":       "no handler",
		"handlers = logfile\n[handler_logfile]\nclass = logging.handlers.SysLogHandler": "not supported",
		"handlers = logfile\n[handler_logfile]\nlevel = LOUD":                           "unknown level",
	} {
		if _, err := ReadConfig(confDir(t, "[logger_root]\n"+text+"\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestLogDates(t *testing.T) {
	at := time.Date(2018, 8, 2, 15, 4, 5, 6007000, time.UTC)
	for format, want := range map[string]string{
		"": "2018-08-02 15:04:05,006", "%Y/%m/%d %H:%M:%S": "2018/08/02 15:04:05", "%I%p %a %b %j %z%%%q": "03PM Thu Aug 214 +0000%%q", "%f Jan 2 %": "006007 Jan 2 %",
	} {
		f := newLineFormat(LogConfig{DateFormat: format, Format: "%(asctime)s"})
		if got := string(f.line(slog.Record{Time: at}, "", "")); got != want+"\n" {
			t.Errorf("%q: %q, want %q", format, got, want)
		}
	}
}
