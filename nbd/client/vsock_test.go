package client

import (
	"context"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/nbd"
	"golang.org/x/sys/unix"
)

// A session over a socket that the net package does not know; few kernels have vsock
// to themselves, so a pair of unix sockets stands in.
func TestVsockConn(t *testing.T) {
	t.Parallel()
	fake := fake{mode: nbd.Simple}.config(t, func(f *fake) {
		r, _, _ := f.request()
		f.send(append(nbd.AppendSimpleReply(nil, r.Cookie, nbd.OK), make([]byte, r.Length)...))
		f.request()
	})
	cfg := fake
	cfg.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := fake.Dialer(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		defer nc.Close()
		f, err := nc.(*net.UnixConn).File()
		if err != nil {
			return nil, err
		}
		defer f.Close()
		fd, err := unix.Dup(int(f.Fd()))
		if err == nil {
			err = unix.SetNonblock(fd, true)
		}
		return vsockConn{os.NewFile(uintptr(fd), "vsock"), "2:1"}, err
	}
	c := dial(t, cfg)
	if err := c.ReadAt(context.Background(), make([]byte, 4096), 0); err != nil {
		t.Error(err)
	}
}

func TestVsockAddress(t *testing.T) {
	t.Parallel()
	if a, err := parseVsock("3:10809"); err != nil || a.CID != 3 || a.Port != 10809 {
		t.Errorf("%+v %v", a, err)
	}
	for _, bad := range []string{"3", "x:1", "4294967295:1", "1:-1", "1:4294967296"} {
		if _, err := parseVsock(bad); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
	// Nobody is there, whether the kernel has vsock or not.
	_, err := Dial(context.Background(), Config{Network: "vsock", Addr: "1:4294967294"})
	if err == nil || !strings.Contains(err.Error(), "vsock") {
		t.Error(err)
	}
}
