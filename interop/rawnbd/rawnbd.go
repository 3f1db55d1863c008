// Package rawnbd is the least possible NBD client: a handshake that enters the
// transmission phase, and bytes from there on. It is written from the protocol
// document alone and apart from package nbd. The tests send through it what a
// polite client never would, the guest hands its socket to the kernel, and the
// benchmarks hold idle connections with it.
package rawnbd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	nbdMagic   = 0x4e42444d41474943 // "NBDMAGIC"
	optMagic   = 0x49484156454f5054 // "IHAVEOPT"
	replyMagic = 0x0003e889045565a9

	clientFlags = 1 | 2 // fixed newstyle, no zeroes

	optGo  = 7
	optAck = 1
	optInf = 3

	maxReply = 1 << 20
)

// Export is what the server told about the export.
type Export struct {
	Size                uint64
	Flags               uint16 // transmission flags
	Min, Preferred, Max uint32 // block sizes; 0 if the server gave none
}

// Dial connects to address and enters the transmission phase of the export with
// NBD_OPT_GO. No other option is negotiated: replies are simple ones.
func Dial(ctx context.Context, network, address, export string) (net.Conn, Export, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, Export{}, err
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(30 * time.Second)
	}
	_ = c.SetDeadline(deadline)
	e, err := handshake(c, export)
	if err != nil {
		_ = c.Close()
		return nil, Export{}, fmt.Errorf("NBD handshake with %s: %w", address, err)
	}
	_ = c.SetDeadline(time.Time{})
	return c, e, nil
}

func handshake(c net.Conn, export string) (Export, error) {
	if err := Greet(c); err != nil {
		return Export{}, err
	}
	data := binary.BigEndian.AppendUint32(nil, uint32(len(export)))
	data = append(data, export...)
	data = binary.BigEndian.AppendUint16(data, 1)
	data = binary.BigEndian.AppendUint16(data, 3) // NBD_INFO_BLOCK_SIZE
	if err := SendOption(c, optGo, data); err != nil {
		return Export{}, err
	}
	var e Export
	for {
		kind, info, err := ReadReply(c, optGo)
		if err != nil {
			return e, err
		}
		switch {
		case kind == optAck:
			return e, nil
		case kind == optInf:
			e.learn(info)
		default:
			return e, fmt.Errorf("server answers GO with 0x%x: %q", kind, info)
		}
	}
}

func (e *Export) learn(info []byte) {
	if len(info) < 2 {
		return
	}
	be := binary.BigEndian
	switch kind := be.Uint16(info); {
	case kind == 0 && len(info) == 12:
		e.Size, e.Flags = be.Uint64(info[2:]), be.Uint16(info[10:])
	case kind == 3 && len(info) == 14:
		e.Min, e.Preferred, e.Max = be.Uint32(info[2:]), be.Uint32(info[6:]), be.Uint32(info[10:])
	}
}

// Greet reads the server's greeting and answers with the client's flags.
func Greet(c io.ReadWriter) error {
	var hello [18]byte
	if _, err := io.ReadFull(c, hello[:]); err != nil {
		return err
	}
	be := binary.BigEndian
	if be.Uint64(hello[:]) != nbdMagic || be.Uint64(hello[8:]) != optMagic {
		return errors.New("not a newstyle NBD server")
	}
	_, err := c.Write(be.AppendUint32(nil, clientFlags))
	return err
}

// SendOption sends one option of the handshake.
func SendOption(c io.Writer, option uint32, data []byte) error {
	be := binary.BigEndian
	p := be.AppendUint64(nil, optMagic)
	p = be.AppendUint32(p, option)
	p = be.AppendUint32(p, uint32(len(data)))
	_, err := c.Write(append(p, data...))
	return err
}

// ReadReply reads one reply to an option: its type and data.
func ReadReply(c io.Reader, option uint32) (uint32, []byte, error) {
	var h [20]byte
	if _, err := io.ReadFull(c, h[:]); err != nil {
		return 0, nil, err
	}
	be := binary.BigEndian
	if be.Uint64(h[:]) != replyMagic || be.Uint32(h[8:]) != option {
		return 0, nil, fmt.Errorf("bad reply header % x to option %d", h, option)
	}
	n := be.Uint32(h[16:])
	if n > maxReply {
		return 0, nil, fmt.Errorf("reply of %d bytes to option %d", n, option)
	}
	data := make([]byte, n)
	_, err := io.ReadFull(c, data)
	return be.Uint32(h[12:]), data, err
}

// Command is one compact request header and, for a write, its data.
type Command struct {
	Flags, Type uint16
	Cookie      uint64
	Offset      uint64
	Length      uint32
	Data        []byte
}

// Send writes the request.
func (r Command) Send(c io.Writer) error {
	_, err := c.Write(append(r.Header(), r.Data...))
	return err
}

// Header is the request without its data.
func (r Command) Header() []byte {
	be := binary.BigEndian
	p := be.AppendUint32(nil, 0x25609513)
	p = be.AppendUint16(p, r.Flags)
	p = be.AppendUint16(p, r.Type)
	p = be.AppendUint64(p, r.Cookie)
	p = be.AppendUint64(p, r.Offset)
	return be.AppendUint32(p, r.Length)
}

// ReadSimple reads one simple reply's header: the error number and the cookie.
func ReadSimple(c io.Reader) (errno uint32, cookie uint64, err error) {
	var h [16]byte
	if _, err := io.ReadFull(c, h[:]); err != nil {
		return 0, 0, err
	}
	be := binary.BigEndian
	if be.Uint32(h[:]) != 0x67446698 {
		return 0, 0, fmt.Errorf("bad simple reply % x", h)
	}
	return be.Uint32(h[4:]), be.Uint64(h[8:]), nil
}
