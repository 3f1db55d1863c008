package vm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/lab/agent"
)

// What Guest.Channel may be. Empty is auto.
const (
	channelAuto   = "auto"
	channelSerial = "serial"
	channelVsock  = "vsock"
)

// vsockModule drives the guest's end.
const vsockModule = "vmw_vsock_virtio_transport"

// vsock is the address of a guest and of the host's port for its agent.
type vsock struct {
	cid, port uint32 // 0: the guest has none
}

// lacksVsock says what this host lacks for guests with a vsock.
func (h hostFiles) lacksVsock() []string {
	const serial = ", or set guest.channel=serial"
	f, err := os.OpenFile(filepath.Join(h.dev, "vhost-vsock"), os.O_RDWR, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return []string{"there is no /dev/vhost-vsock for guest.channel=vsock: modprobe vhost_vsock, on a kernel that has it" + serial}
	}
	if err != nil {
		return []string{fmt.Sprintf("/dev/vhost-vsock cannot be opened (%v): run as root, or join its group%s", errors.Unwrap(err), serial)}
	}
	_ = f.Close()
	return nil
}

// noMMIOVsock: see noMMIOThread; a vhost device is woken the same way.
const noMMIOVsock = "machine microvm has vsock only with KVM: use machine pc or q35, or set guest.channel=serial"

// addVsock decides whether the guest gets a vsock, and listens for it. The listener
// is nil if it gets none.
func (c *Config) addVsock(ctx context.Context) (*agent.VsockListener, error) {
	if c.Guest.Channel == channelSerial {
		return nil, nil
	}
	lacks := theHost.lacksVsock()
	if c.Guest.Machine == machineMicroVM && c.Accel != AccelKVM {
		lacks = append(lacks, noMMIOVsock)
	}
	if c.Guest.Boot == bootKernel && !c.Kit.has(vsockModule) {
		lacks = append(lacks, fmt.Sprintf("kernel %s has no %s", c.Kit.Version, vsockModule))
	}
	if !slices.Contains(asked(ctx, "devices", listDevices), virtio(*c, vhostVsock)) {
		lacks = append(lacks, "QEMU does not say that it has the device "+virtio(*c, vhostVsock))
	}
	var l *agent.VsockListener
	if len(lacks) == 0 {
		var err error
		if l, err = agent.ListenVsock(); err != nil {
			lacks = append(lacks, err.Error())
		}
	}
	switch {
	case len(lacks) > 0 && c.Guest.Channel == channelVsock:
		return nil, fmt.Errorf("guest %s: %s", c.Name, lacks[0])
	case len(lacks) > 0:
		return nil, nil
	}
	c.vsock = vsock{cid: randomCID(), port: l.Port}
	return l, nil
}

// vhostVsock is QEMU's device, without the name of the bus.
const vhostVsock = "vhost-vsock"

// randomCID: 0 to 2 are the hypervisor's, the loopback's and the host's, the last
// one means any, and older kernels take no more than 32 bits.
func randomCID() uint32 { return 3 + rand.Uint32N(1<<31) }

// errCIDTaken: another guest of this host has the CID.
var errCIDTaken = errors.New("its vsock address is taken")

// cidTries is how often a guest whose CID is taken gets another one.
const cidTries = 5

// withFreeCID boots a guest again whose CID was taken.
func withFreeCID(boot func() (*VM, error)) (v *VM, err error) {
	for range cidTries {
		if v, err = boot(); !errors.Is(err, errCIDTaken) {
			break
		}
	}
	return v, err
}

// cidTaken recognises what QEMU says then.
func cidTaken(text string) bool {
	return strings.Contains(text, "unable to set guest cid") && strings.Contains(strings.ToLower(text), unix.EADDRINUSE.Error())
}

// acceptor is agent.VsockListener.
type acceptor interface {
	Accept() (*agent.VsockConn, error)
	Close() error
}

// admit waits for the guest itself to connect: any guest and any process of the host
// can try.
func admit(l acceptor, cid uint32) (*agent.VsockConn, error) {
	for {
		c, err := l.Accept()
		if err != nil || c.CID == cid {
			return c, err
		}
		_ = c.Close()
	}
}

// reached waits until the agent in the guest has come to one of its ways to the lab,
// and takes that one. The agent comes to the serial port when vsock failed.
func (v *VM) reached(ctx context.Context, c Config, l acceptor) error {
	v.agent = v.serial
	if l == nil {
		return v.wait(ctx, v.opened, nil)
	}
	came, done := make(chan struct{}), make(chan struct{})
	var conn *agent.VsockConn
	go func() { // ends with the listener, at the latest below
		defer close(done)
		var err error
		if conn, err = admit(l, c.vsock.cid); err == nil {
			close(came)
		}
	}()
	err := v.wait(ctx, came, v.opened)
	_ = l.Close()
	<-done
	switch {
	case conn != nil && err == nil:
		v.agent = conn
	case conn != nil:
		err = errors.Join(err, conn.Close())
	case err == nil && c.Guest.Channel == channelVsock:
		err = fmt.Errorf("its agent came by the serial port, not by vsock: its kernel may lack %s; set guest.channel=auto or serial", vsockModule)
	}
	return err
}
