package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// vsockAddr is "cid:port" of AF_VSOCK (vsock(7)).
type vsockAddr string

func (vsockAddr) Network() string  { return "vsock" }
func (a vsockAddr) String() string { return string(a) }

// vsockConn makes a net.Conn of a socket that the net package does not know.
type vsockConn struct {
	*os.File
	remote vsockAddr
}

func (c vsockConn) LocalAddr() net.Addr  { return vsockAddr("local") }
func (c vsockConn) RemoteAddr() net.Addr { return c.remote }

// parseVsock reads "cid:port".
func parseVsock(addr string) (*unix.SockaddrVM, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	cid, err := strconv.ParseUint(host, 10, 32)
	if err != nil || cid == math.MaxUint32 {
		return nil, fmt.Errorf("vsock address %q: the context id %q is no number", addr, host)
	}
	n, err := strconv.ParseUint(port, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("vsock address %q: the port %q is no number", addr, port)
	}
	return &unix.SockaddrVM{CID: uint32(cid), Port: uint32(n)}, nil
}

// dialVsock connects to a machine's host (cid 2) or to a machine. The kernel itself
// gives up after two seconds (SO_VM_SOCKETS_CONNECT_TIMEOUT).
func dialVsock(ctx context.Context, addr string) (net.Conn, error) {
	to, err := parseVsock(addr)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("vsock: %w", err)
	}
	err = unix.Connect(fd, to)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("vsock %s: %w", addr, err), unix.Close(fd))
	}
	return vsockConn{os.NewFile(uintptr(fd), "vsock:"+addr), vsockAddr(addr)}, nil
}
