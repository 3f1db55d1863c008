package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/imageio/pyjson"
)

// Features that OPTIONS announces. The last ones are the extensions'.
var (
	readFeatures      = []string{"checksum", "extents"}
	writeFeatures     = []string{"checksum", "extents", "flush", "zero"}
	extensionFeatures = []string{"extents-paged", "suffix-range", "head", "chunked"}
	discardFeature    = "discard" // of sparse tickets to write, where the storage can
)

// maxJSON bounds the JSON bodies of PATCH and of the control service.
const maxJSON = 64 << 10

// cors adds the headers that a browser on the engine's page asks for.
func cors(methods string, h handler) handler {
	return func(c *conn, req *request, w *response, rest string) error {
		asked := false
		for _, f := range []struct{ ask, answer, value string }{
			{"origin", "access-control-allow-origin", "*"},
			{"access-control-request-headers", "access-control-allow-headers", "*"},
			{"access-control-request-method", "access-control-allow-methods", methods},
		} {
			if req.header[f.ask] != "" {
				w.set(f.answer, f.value)
				asked = true
			}
		}
		if asked {
			w.set("access-control-max-age", "86400")
		}
		return h(c, req, w, rest)
	}
}

// needID refuses an empty ticket id.
func needID(h handler) handler {
	return func(c *conn, req *request, w *response, id string) error {
		if id == "" {
			return failf(400, "Ticket id is required")
		}
		return h(c, req, w, id)
	}
}

func (s *service) imageMethods() map[string]handler {
	methods := map[string]handler{
		"OPTIONS": cors("OPTIONS,GET,PUT", needID(optionsImage)),
		"GET":     cors("*", needID(getImage)),
		"PUT":     cors("*", needID(putImage)),
		"PATCH":   needID(patchImage),
	}
	if s.cfg.Daemon.Extensions {
		methods["HEAD"] = needID(headImage)
	}
	return methods
}

func optionsImage(c *conn, req *request, w *response, id string) error {
	s := c.svc
	var t *Ticket
	var d *disk.Disk
	if id == "*" {
		c.note("images", "[%s] OPTIONS ticket=*", c.client)
	} else {
		var err error
		if t, d, err = c.image(id, "read"); err != nil {
			return err
		}
		c.note("images", "[%s] OPTIONS ticket=%s transfer=%s", c.client, logID(id), t.spec.TransferID)
		t.touch()
	}
	allow, features := s.features(t, d)
	var answer pyjson.Object
	if s.cfg.Local.Enable {
		answer = answer.With("unix_socket", s.cfg.Local.Socket)
	}
	answer = answer.With("features", features)
	if t != nil {
		answer = answer.With("max_readers", s.cfg.Daemon.MaxConnections, "max_writers", maxWriters(s.cfg, t))
		if s.nbd != nil {
			answer = answer.With("nbd_url", s.nbd.url(req.header["host"], id))
		}
		if image := imageID(d); s.cfg.Daemon.Extensions && image != "" {
			answer = answer.With("image_id", image)
		}
	}
	w.set("allow", allow)
	return w.sendJSON(answer)
}

// features are those of a ticket, or without one of any.
func (s *service) features(t *Ticket, d *disk.Disk) (allow string, features []string) {
	allow, features = "OPTIONS,GET,PUT,PATCH", writeFeatures
	if t != nil && !t.may("write") {
		allow, features = "OPTIONS,GET", readFeatures
	}
	if !s.cfg.Daemon.Extensions {
		return allow, features
	}
	features = features[:len(features):len(features)]
	if t != nil && t.mayDiscard(d) {
		features = append(features, discardFeature)
	}
	return allow, append(features, extensionFeatures...)
}

// imageID tells clients whether two tickets are for one image, so that a
// transfer can be taken up again with a new ticket; it does not tell what the
// image is.
func imageID(d *disk.Disk) string {
	id := d.Info().ID
	if id == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:16])
}

// maxWriters: the original has one writer on regular files. Ours lock ranges,
// so several are safe on any disk.
func maxWriters(cfg *Config, t *Ticket) int {
	if !cfg.Daemon.Extensions && t.url.Scheme == "file" {
		if info, err := os.Stat(t.url.Path); err == nil && info.Mode().IsRegular() {
			return 1
		}
	}
	return cfg.Daemon.MaxConnections
}

// closeQuery is the engine's page asking to end the connection after a transfer.
func closeQuery(req *request, w *response) {
	if req.query["close"] == "y" {
		w.close = true
	}
}

func rangeError(message string, size int64) *httpError {
	e := failf(416, "%s", message)
	e.contentRange = fmt.Sprintf("bytes */%d", size)
	return e
}

// allowed checks a range against the ticket's size.
func (t *Ticket) allowed(off, n int64) error {
	if off > t.spec.Size || n > t.spec.Size-off {
		return rangeError("Requested range out of allowed range", t.spec.Size)
	}
	return nil
}

// byteRange is a parsed Range header (RFC 9110, 14.1.2): first < 0 is a suffix
// of that length; last < 0 is open.
type byteRange struct{ first, last int64 }

var rangeForm = regexp.MustCompile(`^bytes=(\d*)-(\d*)$`)

func parseRange(text string) (byteRange, error) {
	m := rangeForm.FindStringSubmatch(text)
	if m == nil {
		return byteRange{}, failf(416, "Cannot satisfy range %.200s, invalid range or multiple ranges", pyjson.Repr(text))
	}
	if m[1] == "" {
		n := clampInt(m[2]) // none: 0
		if n == 0 {
			return byteRange{}, failf(416, "Cannot satisfy range %.200s, no first or last", pyjson.Repr(text))
		}
		return byteRange{-n, -1}, nil
	}
	first, last := clampInt(m[1]), int64(-1)
	if m[2] != "" {
		if last = clampInt(m[2]); first > last {
			return byteRange{}, failf(416, "Cannot satisfy range %.200s, first > last", pyjson.Repr(text))
		}
	}
	return byteRange{first, last}, nil
}

// clampInt reads digits; beyond int64 all positions are out of range alike.
func clampInt(digits string) int64 {
	n, err := strconv.ParseInt(digits, 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		n = math.MaxInt64
	}
	return min(n, math.MaxInt64-1)
}

func headImage(c *conn, req *request, w *response, id string) error {
	return getImage(c, req, w, id)
}

func getImage(c *conn, req *request, w *response, id string) error {
	closeQuery(req, w)
	text, ranged := req.header["range"]
	var r byteRange
	if ranged {
		var err error
		if r, err = parseRange(text); err != nil {
			return err
		}
		if r.first < 0 && !c.svc.cfg.Daemon.Extensions {
			return failf(416, "suffix-byte-range-spec not supported yet")
		}
	}
	t, d, err := c.image(id, "read")
	if err != nil {
		return err
	}
	size, err := t.readable(c.ctx, d)
	if err != nil {
		return err
	}
	off, n, err := resolveRange(r, ranged, t, size)
	if err != nil {
		return err
	}
	disposition := "attachment"
	if t.spec.Filename != "" {
		disposition += "; filename=" + headerSafe(t.spec.Filename)
	}
	w.set("content-type", "application/octet-stream")
	w.set("content-disposition", disposition)
	if ranged {
		w.status = 206
		w.set("content-range", fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, t.spec.Size))
	}
	c.svc.log.debug("images", "[%s] READ ticket=%s size=%d offset=%d transfer=%s", c.client, logID(id), n, off, t.spec.TransferID)
	return c.run(t, "read", off, func(ctx context.Context, op *operation) error {
		return c.transmit(ctx, op, d, w, n)
	})
}

// resolveRange finds what a GET sends: within the ticket and within the disk.
func resolveRange(r byteRange, ranged bool, t *Ticket, size int64) (off, n int64, err error) {
	available := min(t.spec.Size, size)
	switch {
	case !ranged:
		return 0, available, nil
	case r.first < 0:
		off = max(available+r.first, 0)
		n = available - off
	case r.last < 0:
		off, n = r.first, available-r.first
	default:
		off, n = r.first, r.last-r.first+1
		if err := t.allowed(off, n); err != nil {
			return 0, 0, err
		}
	}
	if off > available || n > available-off || n <= 0 {
		return 0, 0, rangeError(fmt.Sprintf("Requested more bytes than available: %d > %d", off+max(n, 1), available), available)
	}
	return off, n, nil
}

// headerSafe keeps a ticket's filename from ending a header.
func headerSafe(s string) string {
	return regexp.MustCompile(`[\x00-\x1f\x7f]`).ReplaceAllString(s, "_")
}

var contentRangeForm = regexp.MustCompile(`^bytes (\d+)-(\d+|\*)/(\d+|\*)$`)

// contentOffset reads Content-Range; only the first byte's position counts, but
// what contradicts itself is refused: it could put data in the wrong place.
func contentOffset(text string) (int64, error) {
	m := contentRangeForm.FindStringSubmatch(text)
	if m == nil {
		return 0, failf(400, "Invalid Content-Range %.200s", pyjson.Repr(text))
	}
	first := clampInt(m[1])
	if m[2] != "*" && clampInt(m[2]) < first {
		return 0, failf(400, "Invalid Content-Range %.200s, first > last", pyjson.Repr(text))
	}
	if m[2] != "*" && m[3] != "*" && clampInt(m[2]) >= clampInt(m[3]) {
		return 0, failf(400, "Invalid Content-Range %.200s, last >= complete", pyjson.Repr(text))
	}
	return first, nil
}

func putImage(c *conn, req *request, w *response, id string) error {
	closeQuery(req, w)
	size := req.length
	if size < 0 && !(req.chunked && c.svc.cfg.Daemon.Extensions) {
		e := failf(400, "Content-Length header is required")
		e.close = req.chunked
		return e
	}
	off := int64(0)
	if text, ok := req.header["content-range"]; ok {
		var err error
		if off, err = contentOffset(text); err != nil {
			return err
		}
	}
	flush, err := enum(req.query, "flush", "y", "y", "n")
	if err != nil {
		return err
	}
	t, d, err := c.image(id, "write")
	if err != nil {
		return err
	}
	if err := t.allowed(off, max(size, 0)); err != nil {
		return err
	}
	c.svc.log.debug("images", "[%s] WRITE ticket=%s size=%d offset=%d flush=%s transfer=%s", c.client, logID(id), size, off, flush, t.spec.TransferID)
	return c.run(t, "write", off, func(ctx context.Context, op *operation) error {
		if err := c.receive(ctx, op, d, req, size, t.spec.Size-off); err != nil {
			return err
		}
		return c.flushIf(ctx, d, flush == "y")
	})
}

func (c *conn) flushIf(ctx context.Context, d *disk.Disk, flush bool) error {
	if !flush {
		return nil
	}
	start := time.Now()
	err := d.Flush(ctx)
	c.clock.add("flush", time.Since(start), 0)
	return err
}

func enum(from map[string]string, name, fallback string, values ...string) (string, error) {
	got, ok := from[name]
	if !ok {
		return fallback, nil
	}
	if slices.Contains(values, got) {
		return got, nil
	}
	return "", unsupported(got, name, values)
}
