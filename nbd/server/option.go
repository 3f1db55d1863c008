package server

import (
	"errors"
	"fmt"
	"io"

	"github.com/vmdisk/vmdisk/nbd"
)

// optionBuffer is what is read at once of an option's data.
const optionBuffer = 1 << 10

// optionData decodes the data of an option as it arrives, so that an option takes no
// more memory than its longest string, however many there are in it. (When options were
// read whole and answered whole, a thousand clients, each with one option of 32,700 equal
// requests for information, made the server hold 1.4 GiB.)
//
// It never reads beyond the option. Data that is malformed is read on to the end; then
// err tells what was wrong.
type optionData struct {
	conn io.Reader
	left int // bytes still to be read from conn
	buf  [optionBuffer]byte
	r, w int
	text []byte
	bad  error // malformed
	lost error // the connection failed
}

func (d *optionData) reset(conn io.Reader, n uint32) {
	d.conn, d.left, d.r, d.w, d.bad, d.lost = conn, int(n), 0, 0, nil, nil
}

// rest is how much of the option is not yet decoded.
func (d *optionData) rest() int { return d.w - d.r + d.left }

func (d *optionData) fail(format string, args ...any) {
	if d.bad == nil {
		d.bad = fmt.Errorf("%w: %s", nbd.ErrMalformed, fmt.Sprintf(format, args...))
	}
}

// failed reports whether decoding cannot go on.
func (d *optionData) failed() bool { return d.bad != nil || d.lost != nil }

// next returns the next n bytes, at most optionBuffer; nil when it failed.
func (d *optionData) next(n int, what string) []byte {
	if d.failed() {
		return nil
	}
	if n > d.rest() {
		d.fail("no room for the %s", what)
		return nil
	}
	if d.w-d.r < n {
		d.w = copy(d.buf[:], d.buf[d.r:d.w])
		d.r = 0
		got, err := io.ReadAtLeast(d.conn, d.buf[d.w:min(len(d.buf), d.w+d.left)], n-d.w)
		d.w, d.left = d.w+got, d.left-got
		if err != nil {
			d.lost = err
			return nil
		}
	}
	b := d.buf[d.r : d.r+n]
	d.r += n
	return b
}

func (d *optionData) uint16(what string) uint16 {
	b := d.next(2, what)
	if b == nil {
		return 0
	}
	return uint16(b[0])<<8 | uint16(b[1])
}

func (d *optionData) uint32(what string) uint32 {
	return uint32(d.uint16(what))<<16 | uint32(d.uint16(what))
}

// string returns the next string, which is valid until the one after it.
func (d *optionData) string(what string) []byte {
	n := int(d.uint32("length of the " + what))
	switch {
	case d.failed():
		return nil
	case n > d.rest():
		d.fail("%s of %d bytes in %d", what, n, d.rest())
		return nil
	}
	return d.bytes(n, what)
}

// bytes returns the next n bytes, which are to be a string.
func (d *optionData) bytes(n int, what string) []byte {
	if n > nbd.MaxString {
		d.fail("%s of %d bytes, more than %d", what, n, nbd.MaxString)
		return nil
	}
	if cap(d.text) < n {
		d.text = make([]byte, n)
	}
	d.text = d.text[:0]
	for len(d.text) < n && !d.failed() {
		d.text = append(d.text, d.next(min(n-len(d.text), optionBuffer), what)...)
	}
	if d.failed() {
		return nil
	}
	if err := nbd.CheckString(d.text, what); err != nil {
		d.bad = err
		return nil
	}
	return d.text
}

// end reads what is left and tells what was wrong; lost is an error of the connection.
func (d *optionData) end() (malformed, lost error) {
	if n := d.rest(); n > 0 && !d.failed() {
		d.fail("%d bytes after the end of the option", n)
	}
	for d.left > 0 && d.lost == nil {
		n, err := d.conn.Read(d.buf[:min(len(d.buf), d.left)])
		d.left -= n
		if d.left > 0 && err != nil {
			d.lost = err
		}
	}
	if d.left > 0 && errors.Is(d.lost, io.EOF) {
		d.lost = io.ErrUnexpectedEOF
	}
	return d.bad, d.lost
}
