package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"sort"
	"strconv"
	"time"
)

// ReadAt fills p from offset off of the image.
func (c *Client) ReadAt(ctx context.Context, p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	k := call{method: "GET", headers: []string{fmt.Sprintf("range: bytes=%d-%d", off, off+int64(len(p))-1)}}
	return c.do(ctx, &k, func(a *answer) error {
		if a.status != 206 {
			return unexpected(a)
		}
		if a.length != int64(len(p)) {
			return errHandled{fmt.Errorf("asked for %d bytes, the server sends %d", len(p), a.length)}
		}
		_, err := io.ReadFull(a.body, p)
		return err
	})
}

// WriteAt writes p at off. The server need not have it on stable storage before
// a Flush.
func (c *Client) WriteAt(ctx context.Context, p []byte, off int64) error {
	k := c.put(off, int64(len(p)))
	k.body = p
	return c.do(ctx, k, done)
}

// SendFile writes n bytes of the open file fd, from offset fileOff of it, at off
// of the image; the kernel moves them where the connection is not encrypted, and
// elsewhere they are encrypted while the processor's cache has them. It fails with
// errors.ErrUnsupported, having sent nothing, if the file does not allow that.
func (c *Client) SendFile(ctx context.Context, off, n int64, fd int, fileOff int64) error {
	k := c.put(off, n)
	k.file = &fileBody{fd, fileOff, n}
	err := c.do(ctx, k, done)
	if errors.Is(err, errSendfile.error) {
		return errors.ErrUnsupported
	}
	return err
}

func (c *Client) put(off, n int64) *call {
	return &call{method: "PUT", path: "?flush=n", headers: []string{
		fmt.Sprintf("content-range: bytes %d-%d/*", off, off+n-1), "content-type: application/octet-stream"}}
}

func done(a *answer) error {
	if a.status != 200 {
		return unexpected(a)
	}
	_, err := io.Copy(io.Discard, a.body)
	return err
}

// Zero makes n bytes from off read as zeros; errors.ErrUnsupported where the
// server has no zero.
func (c *Client) Zero(ctx context.Context, off, n int64) error {
	if !c.features.Zero {
		return errors.ErrUnsupported
	}
	return c.patch(ctx, fmt.Sprintf(`{"op": "zero", "offset": %d, "size": %d, "flush": false}`, off, n))
}

// Discard frees n bytes from off, whose content is undefined then;
// errors.ErrUnsupported where the server or the ticket does not allow it.
func (c *Client) Discard(ctx context.Context, off, n int64) error {
	if !c.features.Discard {
		return errors.ErrUnsupported
	}
	return c.patch(ctx, fmt.Sprintf(`{"op": "discard", "offset": %d, "size": %d, "flush": false}`, off, n))
}

// Flush makes all that was written durable. Servers without flush flush every
// write by themselves.
func (c *Client) Flush(ctx context.Context) error {
	if !c.features.Flush {
		return nil
	}
	return c.patch(ctx, `{"op": "flush"}`)
}

func (c *Client) patch(ctx context.Context, body string) error {
	return c.do(ctx, &call{method: "PATCH", headers: []string{"content-type: application/json"}, body: []byte(body), slow: true}, done)
}

// Extent is one entry of the image's map.
type Extent struct {
	Start  int64 `json:"start"`
	Length int64 `json:"length"`
	Zero   bool  `json:"zero"`
	Hole   bool  `json:"hole"`  // comes from the backing chain
	Dirty  bool  `json:"dirty"` // context "dirty" alone
}

// pageLength is how much of an image one page of extents covers at most, so
// that the first page of a large image comes soon.
const pageLength = 64 << 30

// Extents calls f for the extents of context ("zero" or "dirty") from off on, in
// order and contiguous, until f returns false or [off, off+n) is covered.
// Servers without pages are asked once for the whole list.
func (c *Client) Extents(ctx context.Context, kind string, off, n int64, f func(Extent) bool) error {
	if !c.features.Extents {
		return errors.ErrUnsupported
	}
	if !c.features.PagedExtents {
		list, err := c.wholeList(ctx, kind)
		if err != nil {
			return err
		}
		i := sort.Search(len(list), func(i int) bool { return list[i].Start+list[i].Length > off })
		for ; i < len(list) && list[i].Start < off+n && f(list[i]); i++ {
		}
		return nil
	}
	for end := off + n; off < end; {
		next, more, err := c.page(ctx, kind, off, min(end-off, pageLength), f)
		if err != nil || !more {
			return err
		}
		off = next
	}
	return nil
}

// page streams one page to f; more is false once f has had enough.
func (c *Client) page(ctx context.Context, kind string, off, n int64, f func(Extent) bool) (next int64, more bool, err error) {
	path := fmt.Sprintf("/extents?context=%s&start=%d&length=%d", kind, off, n)
	next, more = off, true
	err = c.do(ctx, &call{method: "GET", path: path}, func(a *answer) error {
		return eachExtent(a, off+n, &next, func(e Extent) bool {
			more = f(e)
			return more
		})
	})
	if err == nil && more && next < off+n && c.features.Write {
		// An image that is shorter than the ticket grows by writing: what lies beyond its end is written,
		// zeros too, and reading it fails.
		if have, err := c.Available(ctx); err == nil && next == max(have, off) {
			return off + n, f(Extent{Start: next, Length: off + n - next}), nil
		}
	}
	if err == nil && more && next != off+n {
		err = fmt.Errorf("the server's extents end at %d instead of %d", next, off+n)
	}
	return next, more, err
}

// eachExtent reads a JSON list one entry at a time. next is where the next one
// must begin; a connection that breaks goes on from there.
func eachExtent(a *answer, end int64, next *int64, f func(Extent) bool) error {
	if a.status != 200 {
		return unexpected(a)
	}
	dec := json.NewDecoder(a.body)
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return errHandled{fmt.Errorf("the server's extents are no list: %v %w", t, err)}
	}
	for dec.More() {
		var e Extent
		if err := dec.Decode(&e); err != nil {
			return fmt.Errorf("read the extents: %w", err)
		}
		if e.Start+e.Length <= *next && e.Length > 0 {
			continue // seen before the connection broke
		}
		if e.Start < *next {
			e.Start, e.Length = *next, e.Start+e.Length-*next
		}
		if e.Start > *next || e.Length <= 0 || e.Start+e.Length > end {
			return errHandled{fmt.Errorf("the server's extent %d+%d does not follow %d", e.Start, e.Length, *next)}
		}
		*next = e.Start + e.Length
		if !f(e) {
			return nil
		}
	}
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("read the extents: %w", err)
	}
	_, err := io.Copy(io.Discard, io.MultiReader(dec.Buffered(), a.body))
	return err
}

// wholeList fetches and keeps the list of a server without pages.
func (c *Client) wholeList(ctx context.Context, kind string) ([]Extent, error) {
	c.extentsMu.Lock()
	defer c.extentsMu.Unlock()
	if list, ok := c.list[kind]; ok {
		return list, nil
	}
	var list []Extent
	next := int64(0)
	err := c.do(ctx, &call{method: "GET", path: "/extents?context=" + kind}, func(a *answer) error {
		return eachExtent(a, 1<<62, &next, func(e Extent) bool {
			list = append(list, e)
			return true
		})
	})
	if err != nil {
		return nil, err
	}
	c.list[kind] = list
	return list, nil
}

// Forget drops what is remembered of the image's extents: the image changed.
func (c *Client) Forget() {
	c.extentsMu.Lock()
	defer c.extentsMu.Unlock()
	clear(c.list)
}

// Checksum is the server's digest of the image (see the API's definition: a hash
// of the hashes of its blocks).
type Checksum struct {
	Algorithm string `json:"algorithm"`
	BlockSize int64  `json:"block_size"`
	Checksum  string `json:"checksum"`
}

// slowestSum is what a server digests in a second at least: it is silent until it
// has read the whole image.
const slowestSum = 4 << 20

// Checksum asks for the digest of the whole image; algorithm "" and blockSize 0
// leave the choice to the server.
func (c *Client) Checksum(ctx context.Context, algorithm string, blockSize int64) (sum Checksum, err error) {
	if !c.features.Checksum {
		return sum, errors.ErrUnsupported
	}
	q := url.Values{}
	if algorithm != "" {
		q.Set("algorithm", algorithm)
	}
	if blockSize != 0 {
		q.Set("block_size", strconv.FormatInt(blockSize, 10))
	}
	err = c.do(ctx, &call{method: "GET", path: "/checksum?" + q.Encode(), slow: true,
		more: time.Duration(c.size/slowestSum) * time.Second}, func(a *answer) error { return decode(a, 200, &sum) })
	return sum, err
}
