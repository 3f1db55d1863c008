package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// VsockHost is the CID of the host for its guests.
const VsockHost = unix.VMADDR_CID_HOST

// VsockConn is a stream between a guest and its host, AF_VSOCK of vsock(7). Deadlines
// work, and closing it ends reads and writes that are under way.
type VsockConn struct {
	*os.File
	// CID is the address of the other side, which the host's kernel vouches for.
	CID uint32
}

// VsockListener takes connections of guests.
type VsockListener struct {
	file *os.File
	// Port is the one that the kernel chose.
	Port uint32
}

// vsockBacklog is how many connections may wait: strangers' too, which are refused.
const vsockBacklog = 16

// ListenVsock listens at a port that the kernel chooses, for every CID.
func ListenVsock() (*VsockListener, error) {
	fd, err := vsockSocket()
	if err != nil {
		return nil, err
	}
	l, err := listenOn(fd)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on vsock: %w", err), unix.Close(fd))
	}
	return l, nil
}

func listenOn(fd int) (*VsockListener, error) {
	if err := unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: unix.VMADDR_PORT_ANY}); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(fd, vsockBacklog); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return nil, os.NewSyscallError("getsockname", err)
	}
	own, ok := name.(*unix.SockaddrVM)
	if !ok {
		return nil, fmt.Errorf("the socket has the address %T", name)
	}
	return &VsockListener{file: os.NewFile(uintptr(fd), "vsock listener"), Port: own.Port}, nil
}

// vsockSocket is one that does not block, which is what makes an os.File of it heed
// deadlines.
func vsockSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("this kernel has no vsock: %w", os.NewSyscallError("socket", err))
	}
	return fd, nil
}

// Accept waits for the next connection, until Close.
func (l *VsockListener) Accept() (*VsockConn, error) {
	raw, err := l.file.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("accept on vsock: %w", err)
	}
	var fd int
	var from unix.Sockaddr
	var failed error
	err = raw.Read(func(listening uintptr) bool {
		fd, from, failed = unix.Accept4(int(listening), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch failed {
		case unix.EAGAIN, unix.EINTR, unix.ECONNABORTED:
			return false // it is woken at the next one
		}
		return true
	})
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		err = os.ErrClosed // the runtime's own error for it matches nothing
	}
	if err == nil {
		err = failed
	}
	if err != nil {
		return nil, fmt.Errorf("accept on vsock: %w", err)
	}
	c := &VsockConn{File: os.NewFile(uintptr(fd), "vsock"), CID: unix.VMADDR_CID_ANY}
	if peer, ok := from.(*unix.SockaddrVM); ok {
		c.CID = peer.CID
	}
	return c, nil
}

// Close ends Accept.
func (l *VsockListener) Close() error { return l.file.Close() }

// DialVsock connects to a port of the host or, where that is the loopback CID, of the
// same machine.
func DialVsock(ctx context.Context, cid, port uint32) (*VsockConn, error) {
	fd, err := vsockSocket()
	if err != nil {
		return nil, err
	}
	err = unix.Connect(fd, &unix.SockaddrVM{CID: cid, Port: port})
	under := errors.Is(err, unix.EINPROGRESS) || errors.Is(err, unix.EINTR)
	c := &VsockConn{File: os.NewFile(uintptr(fd), "vsock"), CID: cid}
	if under {
		err = c.connect(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect to vsock %d:%d: %w", cid, port, err), c.Close())
	}
	return c, nil
}

// errConnecting is the state of a connection that is neither made nor refused yet.
var errConnecting = errors.New("still connecting")

// connect waits until a connection is made.
func (c *VsockConn) connect(ctx context.Context) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetWriteDeadline(time.Unix(1, 0)) })
	var state error
	err = raw.Write(func(fd uintptr) bool {
		state = connection(int(fd))
		return state != errConnecting
	})
	if !stop() {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	return state
}

func connection(fd int) error {
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	if code != 0 {
		return unix.Errno(code)
	}
	_, err = unix.Getpeername(fd)
	if errors.Is(err, unix.ENOTCONN) {
		return errConnecting
	}
	return os.NewSyscallError("getpeername", err)
}
