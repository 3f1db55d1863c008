package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/interop/guest/wire"
	"github.com/vmdisk/vmdisk/interop/rawnbd"
)

// device is one attached NBD device. With a dead time it is kept attached as
// `nbd-client -persist` would: whenever the server goes away, requests wait, and
// a new connection is handed to the kernel, which sends them again.
type device struct {
	index  uint32
	req    wire.Request
	cancel context.CancelFunc
	done   chan struct{}

	mu         sync.Mutex
	sock       int // our duplicate of the socket that the kernel uses
	reconnects int
}

// connect attaches export Export of the server at Addr to device Path. Secs is
// how long requests wait for the server to come back; 0: they fail at once.
func (a *agent) connect(r wire.Request) error {
	index, err := strconv.ParseUint(strings.TrimPrefix(filepath.Base(r.Path), "nbd"), 10, 32)
	if err != nil {
		return fmt.Errorf("device %q: %w", r.Path, err)
	}
	sock, export, err := dial(r)
	if err != nil {
		return err
	}
	nl, err := dialNetlink()
	if err != nil {
		return err
	}
	defer nl.close()
	if err := nl.connect(uint32(index), sock, export, r.Secs); err != nil {
		return fmt.Errorf("attach %s: %w", r.Path, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := &device{index: uint32(index), req: r, cancel: cancel, done: make(chan struct{}), sock: sock}
	a.devices[r.Path] = d
	if r.Secs > 0 {
		go d.persist(ctx)
	} else {
		close(d.done)
	}
	return waitSize(r.Path)
}

// dial makes a connection and returns it as a plain blocking socket.
func dial(r wire.Request) (int, rawnbd.Export, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, export, err := rawnbd.Dial(ctx, "tcp", r.Addr, r.Export)
	if err != nil {
		return -1, export, err
	}
	defer func() { _ = c.Close() }()
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		return -1, export, err
	}
	defer func() { _ = f.Close() }()
	sock, err := unix.Dup(int(f.Fd()))
	if err == nil {
		err = unix.SetNonblock(sock, false)
	}
	return sock, export, err
}

// persist replaces the connection whenever it breaks.
func (d *device) persist(ctx context.Context) {
	defer close(d.done)
	for {
		d.waitBroken(ctx)
		for ctx.Err() == nil {
			err := d.reconnect()
			if err == nil {
				break
			}
			fmt.Println("reconnect:", err)
			time.Sleep(50 * time.Millisecond)
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// waitBroken returns when the peer of the socket is gone.
func (d *device) waitBroken(ctx context.Context) {
	for ctx.Err() == nil {
		fds := []unix.PollFd{{Fd: int32(d.sock), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(fds, 50)
		if n > 0 || (err != nil && err != unix.EINTR) {
			return
		}
	}
}

func (d *device) reconnect() error {
	sock, _, err := dial(d.req)
	if err != nil {
		return err
	}
	nl, err := dialNetlink()
	if err != nil {
		return err
	}
	defer nl.close()
	if err := nl.reconfigure(d.index, sock); err != nil {
		_ = unix.Close(sock)
		return err
	}
	_ = unix.Close(d.sock)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sock = sock
	d.reconnects++
	return nil
}

// reconnects tells how often the device at path got a new connection.
func (a *agent) reconnects(path string) (string, error) {
	d := a.devices[path]
	if d == nil {
		return "", fmt.Errorf("%s is not attached", path)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return strconv.Itoa(d.reconnects), nil
}

// disconnect detaches the device.
func (a *agent) disconnect(path string) error {
	d := a.devices[path]
	if d == nil {
		return fmt.Errorf("%s is not attached", path)
	}
	delete(a.devices, path)
	d.cancel()
	<-d.done
	nl, err := dialNetlink()
	if err != nil {
		return err
	}
	defer nl.close()
	err = nl.disconnect(d.index)
	_ = unix.Close(d.sock)
	return err
}

// waitSize waits until the kernel shows the device's size.
func waitSize(path string) error {
	file := filepath.Join("/sys/block", filepath.Base(path), "size")
	for range 400 {
		size, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(size)) != "0" {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("%s has no size after 2 s", path)
}
