package server

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/vmdisk/vmdisk/imageio/pyjson"
)

// Version is the version of the original that the API is compatible with;
// clients of /info/ compare it.
const Version = "2.5.3"

const serverHeader = "imageio/" + Version + " (vmdisk)"

// response writes the answer to one request. Its headers are in lower case, as
// the original's are.
type response struct {
	c       *conn
	status  int
	headers []headerField
	started bool
	close   bool
	noBody  bool // HEAD
	minor   int  // of the request's HTTP/1.minor
}

type headerField struct{ name, value string }

func (w *response) set(name, value string) {
	for i := range w.headers {
		if w.headers[i].name == name {
			w.headers[i].value = value
			return
		}
	}
	w.headers = append(w.headers, headerField{name, value})
}

// head starts the response: the status line and headers, appended to b.
// length -1 announces chunks.
func (w *response) head(b []byte, length int64) []byte {
	w.started = true
	switch {
	case length < 0 && w.minor == 0:
		w.close = true // and the body ends with the connection
	case length < 0:
		w.set("transfer-encoding", "chunked")
	default:
		w.set("content-length", strconv.FormatInt(length, 10))
	}
	if w.close {
		w.set("connection", "close")
	}
	b = fmt.Appendf(b, "HTTP/1.1 %d %s\r\nserver: %s\r\ndate: ", w.status, http.StatusText(w.status), serverHeader)
	b = time.Now().UTC().AppendFormat(b, http.TimeFormat)
	b = append(b, "\r\n"...)
	for _, f := range w.headers {
		b = append(b, f.name...)
		b = append(b, ": "...)
		b = append(b, f.value...)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...)
}

// send answers with a whole body.
func (w *response) send(body []byte) error {
	b := w.head(make([]byte, 0, 512+len(body)), int64(len(body)))
	if !w.noBody {
		b = append(b, body...)
	}
	_, err := w.c.io.Write(b)
	return err
}

func (w *response) sendJSON(v pyjson.Object) error {
	w.set("content-type", "application/json")
	return w.send(append(pyjson.Append(nil, v), '\n'))
}

func (w *response) sendError(e *httpError) error {
	w.status = e.status
	w.set("content-type", "text/plain; charset=UTF-8")
	if e.contentRange != "" {
		w.set("content-range", e.contentRange)
	}
	return w.send([]byte(e.message + "\n"))
}

// chunks writes a body of unknown length.
type chunks struct {
	w   *response
	buf []byte
}

func (w *response) chunked() *chunks {
	k := &chunks{w: w, buf: make([]byte, 0, 1024)}
	k.buf = w.head(k.buf, -1)
	return k
}

// write sends p as one chunk.
func (k *chunks) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if k.w.minor == 0 {
		k.buf = append(k.buf, p...)
		return k.flush()
	}
	k.buf = fmt.Appendf(k.buf, "%x\r\n", len(p))
	k.buf = append(k.buf, p...)
	k.buf = append(k.buf, "\r\n"...)
	return k.flush()
}

func (k *chunks) flush() error {
	_, err := k.w.c.io.Write(k.buf)
	k.buf = k.buf[:0]
	return err
}

// end writes the last chunk.
func (k *chunks) end() error {
	if k.w.minor > 0 {
		k.buf = append(k.buf, "0\r\n\r\n"...)
	}
	return k.flush()
}
