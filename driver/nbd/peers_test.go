package nbd_test

import (
	"bytes"
	"context"
	"errors"
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

// Every command keeps a server's block sizes: one that refuses anything else.
func TestConformanceBlockSizes(t *testing.T) {
	t.Parallel()
	for _, min := range []string{"512", "4096", "65536"} {
		t.Run(min, func(t *testing.T) {
			t.Parallel()
			disktest.Conformance(t, openPeer("nbdkit", "-f", "-U", "SOCK", "--filter=blocksize-policy", "memory", "3145728",
				"blocksize-minimum="+min, "blocksize-preferred=65536", "blocksize-maximum=1M", "blocksize-error-policy=error"), disktest.Options{Ops: 100})
		})
	}
}

// A server whose every BLOCK_STATUS fails has data throughout; its other maps fail.
func TestMapRefused(t *testing.T) {
	t.Parallel()
	d := openPeer("nbdkit", "-f", "-U", "SOCK", "--filter=error", "memory", "256M", "error-extents=EIO", "error-extents-rate=1")(t)
	defer d.Close()
	for off := int64(0); off < d.Size(); {
		e, err := d.Extents(bg, disk.Allocation, off, d.Size()-off, nil)
		must(t, err)
		for _, x := range e {
			if x.Flags != 0 {
				t.Fatalf("%+v at %d", x, off)
			}
			off += x.Len
		}
	}
}

// Part of a block goes alone to a server that cannot be read and never asked for whole
// blocks; one that did ask for them refuses, and is not asked.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "f")
	must(t, os.WriteFile(file, make([]byte, 8192), 0o600))
	eval := []string{"eval", "get_size=echo 8192", "pread=echo EIO >&2; exit 1", "can_write=exit 0",
		"pwrite=dd of=" + file + " oflag=seek_bytes conv=notrunc bs=64k seek=$4 status=none iflag=fullblock"}
	d := openPeer(append([]string{"nbdkit", "-f", "-U", "SOCK"}, eval...)...)(t)
	defer d.Close()
	must(t, d.WriteAt(bg, block(1000, 'x'), 100, 0))
	must(t, d.Zero(bg, 600, 10, 0))
	got, err := os.ReadFile(file)
	must(t, err)
	want := make([]byte, 8192)
	copy(want[100:], block(1000, 'x'))
	clear(want[600:610])
	if !bytes.Equal(got, want) {
		t.Error("other bytes arrived")
	}
	whole := openPeer(append(append([]string{"nbdkit", "-f", "-U", "SOCK", "--filter=blocksize-policy"}, eval...),
		"blocksize-minimum=512", "blocksize-error-policy=error")...)(t)
	defer whole.Close()
	must(t, whole.WriteAt(bg, block(1024, 'y'), 512, 0))
	if err := whole.WriteAt(bg, block(10, 'z'), 100, 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("%v", err)
	}
}
