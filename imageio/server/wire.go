package server

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
)

// Bounds of a request's head. The request line's is the original's; the rest
// keep one client from taking memory.
const (
	maxRequestLine = 4096
	maxHeaderBytes = 64 << 10
	maxHeaders     = 100
)

// request is the head of an HTTP/1.x request (RFC 9112) and its body.
type request struct {
	method, target string
	path           string // unquoted
	minor          int    // of HTTP/1.minor
	header         map[string]string
	query          map[string]string // the last value of a key wins
	length         int64             // Content-Length; -1 without one
	chunked        bool
	body           body
}

// httpError is an error with the status it is answered with.
type httpError struct {
	status       int
	message      string
	contentRange string
	close        bool // the connection cannot be used on
}

func (e *httpError) Error() string { return e.message }

func failf(status int, format string, args ...any) *httpError {
	return &httpError{status: status, message: fmt.Sprintf(format, args...)}
}

// fatalf is failf for what leaves the stream of requests in an unknown state.
func fatalf(status int, format string, args ...any) *httpError {
	e := failf(status, format, args...)
	e.close = true
	return e
}

// readRequest reads a request's head. io.EOF means that the client has left
// between requests; an httpError is to be answered.
func readRequest(r *bufio.Reader) (*request, error) {
	line, err := readLine(r, maxRequestLine)
	if errors.Is(err, bufio.ErrBufferFull) {
		return nil, fatalf(414, "Request line longer than %d bytes", maxRequestLine)
	}
	if err != nil {
		return nil, err
	}
	req := &request{length: -1}
	if err := req.parseLine(string(line)); err != nil {
		return nil, err
	}
	if err := req.readHeader(r); err != nil {
		return nil, err
	}
	if err := req.frame(); err != nil {
		return nil, err
	}
	req.body = body{r: r, left: max(req.length, 0), chunked: req.chunked}
	return req, nil
}

// readLine reads up to LF and drops the line's end; ErrBufferFull beyond limit.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > limit {
			return nil, bufio.ErrBufferFull
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if err != nil {
			if err == io.EOF && len(line) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		return bytes.TrimSuffix(line[:len(line)-1], []byte{'\r'}), nil
	}
}

func (q *request) parseLine(line string) error {
	parts := strings.Split(line, " ")
	if len(parts) != 3 || parts[0] == "" || parts[1] == "" {
		return fatalf(400, "Bad request syntax (%.200q)", line)
	}
	q.method, q.target = parts[0], parts[1]
	switch parts[2] {
	case "HTTP/1.1":
		q.minor = 1
	case "HTTP/1.0":
	default:
		return fatalf(505, "Invalid HTTP version (%.20q)", parts[2])
	}
	path, query, _ := strings.Cut(q.target, "?")
	var err error
	if q.path, err = url.PathUnescape(path); err != nil {
		return fatalf(400, "Bad request path: %v", err)
	}
	q.query = map[string]string{}
	for pair := range strings.SplitSeq(query, "&") {
		k, v, _ := strings.Cut(pair, "=")
		key, err := url.QueryUnescape(k)
		value, err2 := url.QueryUnescape(v)
		if err == nil && err2 == nil && key != "" {
			q.query[key] = value
		}
	}
	return nil
}

func (q *request) readHeader(r *bufio.Reader) error {
	q.header = map[string]string{}
	total := 0
	for count := 0; ; count++ {
		line, err := readLine(r, maxHeaderBytes-total)
		if errors.Is(err, bufio.ErrBufferFull) || count > maxHeaders {
			return fatalf(431, "Request header larger than %d bytes or %d lines", maxHeaderBytes, maxHeaders)
		}
		if err != nil {
			return err
		}
		if len(line) == 0 {
			return nil
		}
		total += len(line) + 2
		if err := q.addHeader(string(line)); err != nil {
			return err
		}
	}
}

func (q *request) addHeader(line string) error {
	name, value, ok := strings.Cut(line, ":")
	// White space before the colon and folded lines are what request smuggling
	// is made of (RFC 9112, 5.1 and 5.2).
	if !ok || name == "" || strings.ContainsAny(name, " \t") {
		return fatalf(400, "Bad header line (%.100q)", line)
	}
	name, value = strings.ToLower(name), strings.TrimSpace(value)
	if old, dup := q.header[name]; dup {
		if name == "content-length" && old != value || name == "transfer-encoding" {
			return fatalf(400, "Contradicting %s headers", name)
		}
		if name != "content-length" {
			value = old + ", " + value
		}
	}
	q.header[name] = value
	return nil
}

// frame finds out how the body ends (RFC 9112, 6.3).
func (q *request) frame() error {
	encoding, encoded := q.header["transfer-encoding"]
	text, sized := q.header["content-length"]
	switch {
	case encoded && sized:
		return fatalf(400, "Both Transfer-Encoding and Content-Length")
	case encoded && !strings.EqualFold(encoding, "chunked"):
		return fatalf(400, "Unsupported Transfer-Encoding %.40q", encoding)
	case encoded:
		q.chunked = true
	case sized:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || text[0] == '+' || text[0] == '-' && n == 0 {
			return fatalf(400, "Invalid Content-Length: %.40q", text)
		}
		if n < 0 {
			return fatalf(400, "Negative Content-Length: %.40q", text)
		}
		q.length = n
	}
	return nil
}

// keepAlive reports whether the client wants to send more requests.
func (q *request) keepAlive() bool {
	tokens := strings.ToLower(q.header["connection"])
	if q.minor == 0 {
		return strings.Contains(tokens, "keep-alive")
	}
	return !strings.Contains(tokens, "close")
}

// body reads a request's body from the connection, and never a byte more.
type body struct {
	r       *bufio.Reader
	left    int64 // of the body, or of the current chunk
	chunked bool
	ended   bool // the last chunk was seen
	started bool // a chunk was begun
	// onRead, if set, runs once before the first read (100-continue).
	onRead func() error
}

// begin runs onRead, unless that was done.
func (b *body) begin() error {
	if b.onRead == nil || b.done() {
		return nil
	}
	f := b.onRead
	b.onRead = nil
	return f()
}

func (b *body) Read(p []byte) (int, error) {
	if err := b.begin(); err != nil {
		return 0, err
	}
	if b.chunked && b.left == 0 && !b.ended {
		if err := b.nextChunk(); err != nil {
			return 0, err
		}
	}
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// done reports whether the whole body was read.
func (b *body) done() bool { return b.left == 0 && (!b.chunked || b.ended) }

func (b *body) nextChunk() error {
	if b.started {
		if line, err := readLine(b.r, 2); err != nil || len(line) != 0 {
			return fatalf(400, "Bad end of a chunk")
		}
	}
	b.started = true
	line, err := readLine(b.r, 256)
	if err != nil {
		return fatalf(400, "Bad chunk header: %v", err)
	}
	text, _, _ := strings.Cut(string(line), ";")
	n, err := strconv.ParseUint(strings.TrimSpace(text), 16, 62)
	if err != nil {
		return fatalf(400, "Bad chunk size %.40q", text)
	}
	if b.left = int64(n); n > 0 {
		return nil
	}
	b.ended = true
	for total := 0; ; {
		line, err := readLine(b.r, maxHeaderBytes-total)
		if err != nil {
			return fatalf(400, "Bad trailer: %v", err)
		}
		if len(line) == 0 {
			return nil
		}
		total += len(line)
	}
}
