package vm

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/lab/agent"
	"github.com/vmdisk/vmdisk/lab/spec"
)

// TestVsock: the channel works over the sockets of a real kernel.
func TestVsock(t *testing.T) {
	t.Parallel()
	needQEMU(t)
	k := kit(t, vsockKit)
	c := guest(t, k)
	files, lacks, err := k.kernel.load(append(wanted(c), "vsock_loopback", vsockModule))
	if err != nil || len(lacks) > 0 {
		t.Fatalf("kernel %s lacks %q, %v", k.Version, lacks, err)
	}
	if err := k.archive(k.initramfs(c), files); err != nil {
		t.Fatal(err)
	}
	k.made[k.initramfs(c)] = true
	_, err = Boot(t.Context(), c)
	wantError(t, err, "guest a: QEMU ended: the guest powered off; its console: ")
	wantError(t, err, "vmdisk: vsock works")
	left(t, c)
}

// TestLacksVsock: why a host has no vsock for guests.
func TestLacksVsock(t *testing.T) {
	t.Parallel()
	if got := oneLineEach(t, hostOf(t, nil).lacksVsock()); got != "there is no /dev/vhost-vsock for guest.channel=vsock: modprobe vhost_vsock, on a kernel that has it, or set guest.channel=serial" {
		t.Errorf("%q", got)
	}
	if got := oneLineEach(t, hostOf(t, map[string]string{"dev/vhost-vsock": ""}).lacksVsock()); got != "" {
		t.Errorf("%q", got)
	}
	if got := oneLineEach(t, hostOf(t, map[string]string{"dev/vhost-vsock/x": ""}).lacksVsock()); !strings.HasPrefix(got, "/dev/vhost-vsock cannot be opened (is a directory): run as root, or join its group") {
		t.Errorf("%q", got)
	}
}

// TestMissingVsock: what is asked for and not there is told before a boot, and by it.
func TestMissingVsock(t *testing.T) {
	t.Parallel()
	needQEMU(t)
	lacks := theHost.lacksVsock()
	got := why(t, func(g *spec.Guest, _ *spec.Setup) { g.Channel = channelVsock })
	if got != strings.Join(lacks, " | ") {
		t.Errorf("%q, and the host lacks %q", got, lacks)
	}
	for _, channel := range []string{"", channelAuto, channelSerial} {
		if got := why(t, func(g *spec.Guest, _ *spec.Setup) { g.Channel = channel }); got != "" {
			t.Errorf("channel=%s: %q", channel, got)
		}
	}
	got = why(t, func(g *spec.Guest, _ *spec.Setup) {
		g.Channel, g.Machine, g.Accel = channelVsock, machineMicroVM, AccelTCG
	})
	if !strings.Contains(got, noMMIOVsock) {
		t.Errorf("emulated microvm: %q", got)
	}
	c := guest(t, kit(t, exitKit))
	c.Guest.Machine, c.Guest.Channel = machineMicroVM, channelVsock
	_, err := Boot(t.Context(), c)
	wantError(t, err, "guest a: ")
	if len(lacks) == 0 {
		lacks = []string{noMMIOVsock}
	}
	wantError(t, err, lacks[0])
}

// callers are connections that come to the lab, one after the other.
type callers struct {
	conns  chan *agent.VsockConn
	closed chan struct{}
}

func (c callers) Accept() (*agent.VsockConn, error) {
	select {
	case conn := <-c.conns:
		return conn, nil
	case <-c.closed:
		return nil, os.ErrClosed
	}
}

func (c callers) Close() error { close(c.closed); return nil }

// caller is a connection from a CID, and its other end.
func caller(t *testing.T, cid uint32) (*agent.VsockConn, *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	far := os.NewFile(uintptr(fds[1]), "far")
	t.Cleanup(func() { _ = far.Close() })
	return &agent.VsockConn{File: os.NewFile(uintptr(fds[0]), "near"), CID: cid}, far
}

// waiting is a guest that runs, as far as one who waits for its agent can tell.
func waiting(t *testing.T, channel string) (*VM, Config, callers) {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	p, err := start([]string{"sleep", "1000"}, t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.kill() })
	v := newVM(t.TempDir())
	v.serial, v.process = near, p
	c := plain()
	c.Guest.Channel, c.vsock = channel, vsock{cid: 4711, port: 1}
	return v, c, callers{make(chan *agent.VsockConn, 2), make(chan struct{})}
}

// TestReached: the way by which the agent comes is the one that is taken.
func TestReached(t *testing.T) {
	t.Parallel()
	v, c, l := waiting(t, channelAuto)
	stranger, strangers := caller(t, 5)
	own, _ := caller(t, 4711)
	l.conns <- stranger
	l.conns <- own
	if err := v.reached(t.Context(), c, l); err != nil || v.agent != own {
		t.Errorf("by vsock: %v", err)
	}
	if _, err := strangers.Read(make([]byte, 1)); err == nil {
		t.Error("a stranger is still connected")
	}
	_ = own.Close()

	v, c, l = waiting(t, channelAuto)
	close(v.opened)
	if err := v.reached(t.Context(), c, l); err != nil || v.agent != v.serial {
		t.Errorf("by the serial port: %v", err)
	}
	<-l.closed

	v, c, l = waiting(t, channelVsock)
	close(v.opened)
	wantError(t, v.reached(t.Context(), c, l), "its agent came by the serial port, not by vsock: its kernel may lack vmw_vsock_virtio_transport")

	v, c, _ = waiting(t, channelAuto)
	broken := callers{closed: make(chan struct{})}
	once := brokenOnce{broken}
	time.AfterFunc(20*time.Millisecond, func() { close(v.opened) })
	if err := v.reached(t.Context(), c, once); err != nil || v.agent != v.serial {
		t.Errorf("a listener that fails leaves the serial port: %v", err)
	}

	v, c, l = waiting(t, channelVsock)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, errors.New("enough"))
	defer cancel()
	wantError(t, v.reached(ctx, c, l), "enough")
	<-l.closed
}

// brokenOnce is a listener that fails by itself.
type brokenOnce struct{ callers }

func (brokenOnce) Accept() (*agent.VsockConn, error) { return nil, unix.EMFILE }

// TestTakenCID: a guest whose address is another one's gets a new one, a few times.
func TestTakenCID(t *testing.T) {
	t.Parallel()
	const said = "QEMU ended (exit status 1): -device vhost-vsock-pci,id=vsock,guest-cid=7: vhost-vsock: unable to set guest cid: Address already in use"
	for _, c := range []struct{ taken, want int }{{0, 1}, {1, 2}, {cidTries - 1, cidTries}, {100, cidTries}} {
		tries := 0
		_, err := withFreeCID(func() (*VM, error) {
			tries++
			if tries <= c.taken {
				return nil, newVM(filepath.Join(t.TempDir(), "none")).failed("a", errors.New(said))
			}
			return nil, nil
		})
		if tries != c.want || (err != nil) != (c.taken >= cidTries) {
			t.Errorf("taken %d times: %d tries, %v", c.taken, tries, err)
		}
		if err != nil {
			wantError(t, err, "guest a: its vsock address is taken: QEMU ended")
		}
	}
	other := 0
	_, err := withFreeCID(func() (*VM, error) {
		other++
		return nil, errors.New("vhost-vsock: unable to set guest cid: Permission denied")
	})
	if other != 1 || err == nil {
		t.Errorf("another error: %d tries, %v", other, err)
	}
	first := randomCID()
	differ := false
	for range 1000 {
		cid := randomCID()
		if cid < 3 || cid == unix.VMADDR_CID_ANY {
			t.Fatalf("CID %d", cid)
		}
		differ = differ || cid != first
	}
	if !differ {
		t.Errorf("every guest gets the CID %d", first)
	}
}
