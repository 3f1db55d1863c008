package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
)

// logLevels are the names that the ini files use.
var logLevels = map[string]slog.Level{
	"NOTSET": math.MinInt, "DEBUG": slog.LevelDebug, "INFO": slog.LevelInfo, "WARNING": slog.LevelWarn,
	"WARN": slog.LevelWarn, "ERROR": slog.LevelError, "CRITICAL": slog.LevelError + 4, "FATAL": slog.LevelError + 4,
}

// partKey is the attribute that names a part of the daemon.
const partKey = "logger"

// logger writes the daemon's log: the original's line per request, which people
// grep and count, or JSON.
type logger struct{ s *slog.Logger }

// openLog opens what the configuration writes the log to, and begins it.
func (s *Server) openLog() error {
	var handlers []slog.Handler
	for _, h := range append([]LogConfig{s.cfg.Log}, s.cfg.Log.Others...) {
		var out io.Writer = os.Stderr
		if h.File != "" {
			f, err := openLog(h)
			if err != nil {
				return errors.Join(err, s.Close())
			}
			out, s.logFiles = f, append(s.logFiles, f)
		}
		handlers = append(handlers, newHandler(s.cfg, h, out))
	}
	s.log = &logger{slog.New(slog.NewMultiHandler(handlers...))}
	host, _ := os.Hostname()
	s.log.info("server", "Starting (hostname=%s pid=%d, version=%s)", host, os.Getpid(), Version)
	return nil
}

func newHandler(cfg *Config, h LogConfig, out io.Writer) slog.Handler {
	level := logLevels[cfg.Log.Level]
	if h.HandlerLevel != "" {
		level = max(level, logLevels[h.HandlerLevel])
	}
	if cfg.Daemon.LogFormat == "json" {
		return slog.NewJSONHandler(out, &slog.HandlerOptions{Level: level, ReplaceAttr: hideExport})
	}
	return &lineHandler{level: level, part: "root", format: newLineFormat(h), out: &lockedWriter{w: out}}
}

func (l *logger) log(level slog.Level, part, format string, args ...any) {
	if !l.s.Enabled(context.Background(), level) {
		return
	}
	l.s.Log(context.Background(), level, fmt.Sprintf(format, args...), partKey, part)
}

func (l *logger) debug(part, format string, args ...any) {
	l.log(slog.LevelDebug, part, format, args...)
}
func (l *logger) info(part, format string, args ...any) { l.log(slog.LevelInfo, part, format, args...) }
func (l *logger) warn(part, format string, args ...any) { l.log(slog.LevelWarn, part, format, args...) }
func (l *logger) error(part, format string, args ...any) {
	l.log(slog.LevelError, part, format, args...)
}

// hideExport shortens the names of NBD exports, which are tickets' ids.
func hideExport(_ []string, a slog.Attr) slog.Attr {
	if a.Key == "export" {
		a.Value = slog.StringValue(logID(a.Value.String()) + "…")
	}
	return a
}

// lineHandler writes lines in its format, and the
// attributes other than the part's name after the message.
type lineHandler struct {
	level  slog.Level
	part   string
	format *lineFormat
	out    *lockedWriter
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (h *lineHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

func (h *lineHandler) Handle(_ context.Context, r slog.Record) error {
	part, rest := h.part, ""
	r.Attrs(func(a slog.Attr) bool {
		if a = hideExport(nil, a); a.Key == partKey {
			part = a.Value.String()
		} else {
			rest += " " + a.String()
		}
		return true
	})
	line := h.format.line(r, part, oneLine.Replace(r.Message)+oneLine.Replace(rest))
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	_, err := h.out.w.Write(line)
	return err
}

// oneLine keeps what came from a client from looking like a line of the log.
var oneLine = strings.NewReplacer("\n", `\n`, "\r", `\r`, "\x1b", `\e`)

// WithAttrs knows the name of a part alone.
func (h *lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	named := *h
	for _, a := range attrs {
		if a.Key == partKey {
			named.part = a.Value.String()
		}
	}
	return &named
}

// WithGroup is not used by logger.
func (h *lineHandler) WithGroup(string) slog.Handler { return h }

// logID is as much of a ticket's id as a log may show.
func logID(id string) string { return prefix(id, shownID) }

const shownID = 8

// What may be a ticket's id in a message: all that "No such ticket" names, and each long part of a path. A client
// that mistypes a URL (//, a blank, a quotation mark, a wrong folder) names a ticket that may be alive.
var (
	idNamed  = regexp.MustCompile(`(?s)(No such ticket:? ['"]?)(.+?)(['"]?)$`)
	idInPath = regexp.MustCompile(`(/(?:images|tickets)/|/)([^\s/]+)`)
)

// hideError shortens the tickets' ids in a message, those within paths too.
func hideError(message string) string {
	if m := idNamed.FindStringSubmatchIndex(message); m != nil {
		return message[:m[4]] + shortened(message[m[4]:m[5]]) + message[m[6]:]
	}
	return idInPath.ReplaceAllStringFunc(message, func(s string) string {
		m := idInPath.FindStringSubmatchIndex(s)
		id := strings.TrimRight(s[m[4]:], `'"`)
		if m[3] == 1 && len(id) <= shownID {
			return s
		}
		return s[:m[4]] + shortened(id) + s[m[4]+len(id):]
	})
}

// shortened is logID for a message, unless another daemon's client did it already.
func shortened(id string) string {
	if strings.HasSuffix(id, "…") {
		return id
	}
	return logID(id) + "…"
}

// clock sums up what a connection did, for the line at its end. It belongs to
// the connection's goroutine.
type clock struct {
	order []string
	parts map[string]*clockPart
}

type clockPart struct {
	ops   int
	took  time.Duration
	bytes int64
	since time.Time
}

func (k *clock) part(name string) *clockPart {
	p := k.parts[name]
	if p == nil {
		if k.parts == nil {
			k.parts = map[string]*clockPart{}
		}
		p = &clockPart{}
		k.parts[name] = p
		k.order = append(k.order, name)
	}
	return p
}

func (k *clock) start(name string) { k.part(name).since = time.Now() }
func (k *clock) stop(name string)  { k.add(name, time.Since(k.part(name).since), 0) }

func (k *clock) add(name string, took time.Duration, bytes int64) {
	p := k.part(name)
	p.ops++
	p.took += took
	p.bytes += bytes
}

// String is "[connection 1 ops, 1.234567 s] [write 3 ops, 1.1 s, 12.00 MiB, 10.91 MiB/s]".
func (k *clock) String() string {
	var b strings.Builder
	for i, name := range k.order {
		p := k.parts[name]
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "[%s %d ops, %.6f s", name, p.ops, p.took.Seconds())
		if p.bytes > 0 {
			fmt.Fprintf(&b, ", %s, %s/s", humanSize(float64(p.bytes)), humanSize(float64(p.bytes)/p.took.Seconds()))
		}
		b.WriteByte(']')
	}
	return b.String()
}

func humanSize(n float64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for n >= 1024 && i < len(units)-1 {
		n /= 1024
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%.0f %s", n, units[i])
	}
	return fmt.Sprintf("%.2f %s", n, units[i])
}
