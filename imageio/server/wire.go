package server

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/vmdisk/vmdisk/imageio/pyjson"
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
	line, err := readToLF(r, limit)
	return bytes.TrimSuffix(line, []byte{'\r'}), err
}

func readToLF(r *bufio.Reader, limit int) ([]byte, error) {
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
		return line[:len(line)-1], nil
	}
}

// chunkLine reads a line of a chunked body, where LF alone ends none: a size that one
// program takes to end there and another does not hides a request.
func chunkLine(r *bufio.Reader, limit int) (string, error) {
	line, err := readToLF(r, limit)
	if err != nil {
		return "", err
	}
	text, ok := strings.CutSuffix(string(line), "\r")
	if !ok || hasControl(text) {
		return "", errors.New("a line that does not end in CR LF, or with control characters")
	}
	return text, nil
}

func (q *request) parseLine(line string) error {
	parts := strings.Split(line, " ")
	if len(parts) != 3 || !isToken(parts[0]) || parts[1] == "" || hasControl(line) {
		return fatalf(400, "Bad request syntax (%.400s)", pyjson.Repr(latin1(line)))
	}
	q.method, q.target = parts[0], latin1(parts[1])
	minor, ok := strings.CutPrefix(parts[2], "HTTP/1.")
	if n, err := strconv.ParseUint(minor, 10, 16); !ok || err != nil {
		return fatalf(505, "Invalid HTTP version (%.40s)", pyjson.Repr(latin1(parts[2])))
	} else if n > 0 {
		q.minor = 1 // a higher one is to be taken for the highest known
	}
	path, query, _ := strings.Cut(q.target, "?")
	if rest := strings.TrimLeft(path, "/"); len(path)-len(rest) > 1 {
		path = "/" + rest
	}
	q.path = unquote(path)
	q.query = map[string]string{}
	for pair := range strings.SplitSeq(query, "&") {
		k, v, _ := strings.Cut(strings.ReplaceAll(pair, "+", " "), "=")
		q.query[unquote(k)] = unquote(v)
	}
	return nil
}

// unquote decodes %XX as the original does: what is no escape stays as it is, and what is
// no UTF-8 then is replaced.
func unquote(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+3 <= len(s) {
			if c, err := hex.DecodeString(s[i+1 : i+3]); err == nil {
				b, i = append(b, c[0]), i+2
				continue
			}
		}
		b = append(b, s[i])
	}
	return strings.ToValidUTF8(string(b), "\ufffd")
}

// latin1 is the text of a head, whose every byte is one character to the original.
func latin1(s string) string {
	var b []byte
	for i := range len(s) {
		b = utf8.AppendRune(b, rune(s[i]))
	}
	return string(b)
}

// isToken: names of methods and headers (RFC 9110, 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if (c < 'a' || c > 'z') && (s[i] < '0' || s[i] > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", s[i]) < 0 {
			return false
		}
	}
	return s != ""
}

// hasControl finds what other programs may take for the end of a line or of a text: NUL,
// CR, VT and their like. Behind a proxy that does, one request would be two.
func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
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
	if !ok || !isToken(name) || hasControl(value) {
		return fatalf(400, "Bad header line (%.200s)", pyjson.Repr(latin1(line)))
	}
	name, value = strings.ToLower(name), latin1(strings.Trim(value, " \t"))
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
		return fatalf(400, "Unsupported Transfer-Encoding %.80s", pyjson.Repr(encoding))
	case encoded:
		q.chunked = true
	case sized:
		n, err := contentLength(text)
		if err != nil {
			return err
		}
		q.length = n
	}
	return nil
}

var digitsForm = regexp.MustCompile(`^-?[0-9]+$`)

// contentLength takes digits alone, however many: what is beyond an int64 is larger than
// any ticket allows, and refused by that.
func contentLength(text string) (int64, error) {
	if !digitsForm.MatchString(text) || text == "-0" {
		return 0, fatalf(400, "Invalid Content-Length: %.80s", pyjson.Repr(text))
	}
	if text[0] == '-' {
		return 0, fatalf(400, "Negative Content-Length: %.40s", text)
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return math.MaxInt64, nil
	}
	return n, nil
}

// keepAlive reports whether the client wants to send more requests.
func (q *request) keepAlive() bool {
	has := func(token string) bool {
		for t := range strings.SplitSeq(strings.ToLower(q.header["connection"]), ",") {
			if strings.Trim(t, " \t") == token {
				return true
			}
		}
		return false
	}
	if q.minor == 0 {
		// HTTP/1.0 knows no chunks: a proxy may have seen another body (RFC 9112, 6.1).
		return has("keep-alive") && !has("close") && !q.chunked
	}
	return !has("close")
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
		if line, err := chunkLine(b.r, 2); err != nil || line != "" {
			return fatalf(400, "Bad end of a chunk")
		}
	}
	b.started = true
	line, err := chunkLine(b.r, 256)
	if err != nil {
		return fatalf(400, "Bad chunk header: %v", err)
	}
	text, _, _ := strings.Cut(line, ";")
	n, err := strconv.ParseUint(strings.TrimRight(text, " \t"), 16, 62)
	if err != nil {
		return fatalf(400, "Bad chunk size %.80s", pyjson.Repr(latin1(text)))
	}
	if b.left = int64(n); n > 0 {
		return nil
	}
	b.ended = true
	for total := 0; ; {
		line, err := chunkLine(b.r, maxHeaderBytes-total)
		if err != nil {
			return fatalf(400, "Bad trailer: %v", err)
		}
		if len(line) == 0 {
			return nil
		}
		total += len(line)
	}
}
