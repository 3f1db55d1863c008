package server

import (
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// defaultFormat makes "2018-08-12 01:27:32,959 INFO    [images] MESSAGE". The original's
// names the thread, too, of which there is none here that means something.
const defaultFormat = "%(asctime)s %(levelname)-7s [%(name)s] %(message)s"

// lineFormat is a format of Python's logging, cut into its parts.
type lineFormat struct {
	parts []formatPart
	date  string // of strftime; empty: the usual one, with milliseconds
}

// formatPart is text, then a field (if any) in a width.
type formatPart struct {
	text, field string
	width       int // negative: to the left
}

var fieldForm = regexp.MustCompile(`%\((\w+)\)([-0 +#]*)(\d*)(?:\.\d+)?[a-z]|%%`)

func newLineFormat(h LogConfig) *lineFormat {
	text := h.Format
	if text == "" {
		text = defaultFormat
	}
	f := &lineFormat{date: h.DateFormat}
	for {
		m := fieldForm.FindStringSubmatchIndex(text)
		if m == nil {
			f.parts = append(f.parts, formatPart{text: text})
			return f
		}
		p := formatPart{text: text[:m[0]]}
		if m[2] < 0 {
			p.text += "%"
		} else {
			p.field = text[m[2]:m[3]]
			p.width, _ = strconv.Atoi(text[m[6]:m[7]])
			p.width = min(p.width, 100)
			if strings.Contains(text[m[4]:m[5]], "-") {
				p.width = -p.width
			}
		}
		f.parts = append(f.parts, p)
		text = text[m[1]:]
	}
}

func (f *lineFormat) line(r slog.Record, part, message string) []byte {
	b := make([]byte, 0, 256)
	for _, p := range f.parts {
		b = append(b, p.text...)
		if p.field != "" {
			b = fmt.Appendf(b, "%*s", p.width, f.value(p.field, r, part, message))
		}
	}
	return append(b, '\n')
}

// value is a field's; those that a Python program alone has are empty.
func (f *lineFormat) value(field string, r slog.Record, part, message string) string {
	switch field {
	case "asctime":
		return f.stamp(r.Time)
	case "levelname":
		return levelName(r.Level)
	case "levelno":
		return strconv.Itoa(20 + int(r.Level)*10/4)
	case "name":
		return part
	case "message":
		return message
	case "process":
		return strconv.Itoa(os.Getpid())
	case "processName", "threadName":
		return "Main" + strings.ToUpper(field[:1]) + strings.TrimSuffix(field[1:], "Name")
	case "created":
		return strconv.FormatFloat(float64(r.Time.UnixMicro())/1e6, 'f', 6, 64)
	case "msecs":
		return strconv.Itoa(r.Time.Nanosecond() / 1e6)
	}
	return ""
}

func levelName(l slog.Level) string {
	switch {
	case l >= logLevels["CRITICAL"]:
		return "CRITICAL"
	case l == slog.LevelWarn:
		return "WARNING"
	}
	return l.String()
}

// stampForms are the directives of strftime that dates and times need, in Go's form.
var stampForms = map[byte]string{'Y': "2006", 'y': "06", 'm': "01", 'd': "02", 'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM",
	'b': "Jan", 'B': "January", 'a': "Mon", 'A': "Monday", 'z': "-0700", 'Z': "MST", 'j': "002", 'f': "000000", 'F': "2006-01-02", 'T': "15:04:05"}

func (f *lineFormat) stamp(t time.Time) string {
	if f.date == "" {
		return strings.Replace(t.Format("2006-01-02 15:04:05.000"), ".", ",", 1)
	}
	var b strings.Builder
	for i := 0; i < len(f.date); i++ {
		if f.date[i] != '%' || i+1 == len(f.date) {
			b.WriteByte(f.date[i])
			continue
		}
		i++
		switch form := stampForms[f.date[i]]; {
		case f.date[i] == 'f':
			fmt.Fprintf(&b, "%06d", t.Nanosecond()/1000)
		case form != "":
			b.WriteString(t.Format(form))
		case f.date[i] == '%':
			b.WriteByte('%')
		default:
			b.WriteString(f.date[i-1 : i+1])
		}
	}
	return b.String()
}
