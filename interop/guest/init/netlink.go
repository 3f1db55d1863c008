package main

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/interop/rawnbd"
)

// The generic netlink family "nbd", include/uapi/linux/nbd-netlink.h.
const (
	nbdCmdConnect     = 1
	nbdCmdDisconnect  = 2
	nbdCmdReconfigure = 3

	nbdAttrIndex       = 1
	nbdAttrSize        = 2
	nbdAttrBlockSize   = 3
	nbdAttrTimeout     = 4
	nbdAttrServerFlags = 5
	nbdAttrSockets     = 7
	nbdAttrDeadTimeout = 8

	nbdSockItem = 1
	nbdSockFD   = 1
)

// requestTimeout in seconds. Without one the kernel never gives up a request
// that was sent on a connection which then broke: the task waits for ever.
const requestTimeout = 15

// netlink is a generic netlink socket that knows the family nbd.
type netlink struct {
	fd     int
	family uint16
}

var order = binary.NativeEndian

func dialNetlink() (*netlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	n := &netlink{fd: fd}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		n.close()
		return nil, fmt.Errorf("netlink bind: %w", err)
	}
	if err := n.findFamily("nbd"); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

func (n *netlink) close() { _ = unix.Close(n.fd) }

func (n *netlink) connect(index uint32, sock int, e rawnbd.Export, deadSecs int) error {
	block := uint64(max(e.Min, 512))
	p := attr32(nil, nbdAttrIndex, index)
	p = attr64(p, nbdAttrSize, e.Size)
	p = attr64(p, nbdAttrBlockSize, block)
	p = attr64(p, nbdAttrTimeout, requestTimeout)
	p = attr64(p, nbdAttrServerFlags, uint64(e.Flags))
	if deadSecs > 0 {
		p = attr64(p, nbdAttrDeadTimeout, uint64(deadSecs))
	}
	return n.ask(n.family, nbdCmdConnect, sockets(p, sock))
}

func (n *netlink) reconfigure(index uint32, sock int) error {
	return n.ask(n.family, nbdCmdReconfigure, sockets(attr32(nil, nbdAttrIndex, index), sock))
}

func (n *netlink) disconnect(index uint32) error {
	return n.ask(n.family, nbdCmdDisconnect, attr32(nil, nbdAttrIndex, index))
}

func sockets(p []byte, sock int) []byte {
	fd := attr32(nil, nbdSockFD, uint32(sock))
	item := attr(nil, nbdSockItem|unix.NLA_F_NESTED, fd)
	return attr(p, nbdAttrSockets|unix.NLA_F_NESTED, item)
}

func (n *netlink) findFamily(name string) error {
	p := attr(nil, unix.CTRL_ATTR_FAMILY_NAME, append([]byte(name), 0))
	if err := n.send(unix.GENL_ID_CTRL, unix.CTRL_CMD_GETFAMILY, unix.NLM_F_REQUEST, p); err != nil {
		return err
	}
	kind, body, err := n.receive()
	if err != nil {
		return err
	}
	if kind == unix.NLMSG_ERROR {
		return fmt.Errorf("netlink family %q: %w", name, messageError(body))
	}
	for body = body[min(len(body), unix.GENL_HDRLEN):]; len(body) >= unix.SizeofNlAttr; {
		size := int(order.Uint16(body))
		if size < unix.SizeofNlAttr || size > len(body) {
			break
		}
		if order.Uint16(body[2:]) == unix.CTRL_ATTR_FAMILY_ID {
			n.family = order.Uint16(body[4:])
			return nil
		}
		body = body[min(len(body), align(size)):]
	}
	return fmt.Errorf("netlink family %q: no number in the answer", name)
}

// ask sends a command and waits until the kernel has done it.
func (n *netlink) ask(family uint16, cmd uint8, attrs []byte) error {
	if err := n.send(family, cmd, unix.NLM_F_REQUEST|unix.NLM_F_ACK, attrs); err != nil {
		return err
	}
	for {
		kind, body, err := n.receive()
		if err != nil {
			return err
		}
		if kind == unix.NLMSG_ERROR {
			return messageError(body)
		}
	}
}

func (n *netlink) send(family uint16, cmd uint8, flags uint16, attrs []byte) error {
	p := make([]byte, unix.SizeofNlMsghdr+unix.GENL_HDRLEN, unix.SizeofNlMsghdr+unix.GENL_HDRLEN+len(attrs))
	order.PutUint32(p, uint32(cap(p)))
	order.PutUint16(p[4:], family)
	order.PutUint16(p[6:], flags)
	p[unix.SizeofNlMsghdr] = cmd
	p[unix.SizeofNlMsghdr+1] = 1 // version
	return unix.Sendto(n.fd, append(p, attrs...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

func (n *netlink) receive() (kind uint16, body []byte, err error) {
	p := make([]byte, 16<<10)
	got, _, err := unix.Recvfrom(n.fd, p, 0)
	if err != nil {
		return 0, nil, err
	}
	if got < unix.SizeofNlMsghdr {
		return 0, nil, errors.New("short netlink message")
	}
	return order.Uint16(p[4:]), p[unix.SizeofNlMsghdr:got], nil
}

// messageError is the errno of an NLMSG_ERROR, nil for an acknowledgement.
func messageError(body []byte) error {
	if len(body) < 4 {
		return errors.New("short netlink error")
	}
	if code := int32(order.Uint32(body)); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}

func align(n int) int { return (n + unix.NLA_ALIGNTO - 1) &^ (unix.NLA_ALIGNTO - 1) }

func attr(p []byte, kind uint16, value []byte) []byte {
	p = order.AppendUint16(p, uint16(unix.SizeofNlAttr+len(value)))
	p = order.AppendUint16(p, kind)
	p = append(p, value...)
	return append(p, make([]byte, align(len(value))-len(value))...)
}

func attr32(p []byte, kind uint16, v uint32) []byte {
	return attr(p, kind, order.AppendUint32(nil, v))
}
func attr64(p []byte, kind uint16, v uint64) []byte {
	return attr(p, kind, order.AppendUint64(nil, v))
}
