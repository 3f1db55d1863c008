package nbd_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
	"github.com/vmdisk/vmdisk/driver/nbd"
	"github.com/vmdisk/vmdisk/nbd/client"
)

// peer starts a foreign server on a unix socket that args name by SOCK.
func peer(t testing.TB, args ...string) client.Config {
	t.Helper()
	dir, err := os.MkdirTemp("", "nbdpeer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	sock := filepath.Join(dir, "s")
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "SOCK", sock)
	}
	if _, err := exec.LookPath(args[0]); err != nil {
		t.Fatalf("%v (install nbdkit and qemu-utils)", err)
	}
	cmd := exec.Command(args[0], args[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	for range 1000 {
		if nc, err := net.Dial("unix", sock); err == nil {
			nc.Close()
			return client.Config{Network: "unix", Addr: sock}
		}
		select {
		case <-ended:
			t.Fatalf("%v ended: %s", args, out.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatalf("%v does not listen: %s", args, out.String())
	return client.Config{}
}

func openPeer(args ...string) disktest.Opener {
	return func(tb testing.TB) *disk.Disk {
		d, err := nbd.Open(context.Background(), nbd.Config{Client: peer(tb, append([]string(nil), args...)...)})
		if err != nil {
			tb.Fatal(err)
		}
		return d
	}
}

func TestConformanceNbdkit(t *testing.T) {
	t.Parallel()
	disktest.Conformance(t, openPeer("nbdkit", "-f", "-U", "SOCK", "memory", "3145728"), disktest.Options{Ops: 100})
}
