package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// probeTime is what a guest gets to boot with KVM to the point where its kernel
// looks for an init. It takes a second where KVM works.
const probeTime = 15 * time.Second

// probed is the outcome of the probe, kept for the life of the process.
var probed struct {
	mu   sync.Mutex
	done bool
	ok   bool
	why  string
}

// ProbeKVM reports whether guests run with KVM, and if not why. It boots one: there
// are hosts, virtual machines themselves, with a /dev/kvm with which ordinary
// guests hang in early boot.
func ProbeKVM(ctx context.Context) (ok bool, why string) {
	probed.mu.Lock()
	defer probed.mu.Unlock()
	if probed.done {
		return probed.ok, probed.why
	}
	err := probe(ctx)
	if ctx.Err() != nil {
		return false, ctx.Err().Error()
	}
	probed.done, probed.ok = true, err == nil
	if err != nil {
		probed.why = err.Error()
	}
	return probed.ok, probed.why
}

func probe(ctx context.Context) (err error) {
	if runtime.GOARCH != "amd64" {
		return errors.New("guests are x86-64, this host is not")
	}
	if err := unix.Access("/dev/kvm", unix.R_OK|unix.W_OK); errors.Is(err, unix.ENOENT) {
		return errors.New("there is no /dev/kvm")
	} else if err != nil {
		return fmt.Errorf("/dev/kvm cannot be opened (%w): run as root, or join its group", err)
	}
	k, err := findKernel("auto")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "vmdisk-kvm-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return bootsWithKVM(ctx, k.path, dir)
}

// bootsWithKVM boots a kernel without a root: it panics in the end, and QEMU ends. Its
// console is bounded as those of other guests are: one that boots over and over, or a
// kernel that prints without end, must not fill the host's disk.
func bootsWithKVM(ctx context.Context, kernel, dir string) error {
	at := filepath.Join(dir, consoleSocket)
	l, err := listen(ctx, at)
	if err != nil {
		return err
	}
	printed, connected := newConsole(), make(chan struct{})
	go func() {
		defer close(connected)
		if conn, err := l.Accept(); err == nil {
			printed.keep(conn)
		}
	}()
	defer func() {
		_ = l.Close()
		<-connected
		printed.close()
	}()
	p, err := start([]string{
		QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "pc", "-accel", "kvm", "-cpu", "host",
		"-m", "256M", "-kernel", kernel, "-append", "console=ttyS0 panic=-1",
		"-chardev", "socket,id=console,path=" + quote(at), "-serial", "chardev:console",
	}, dir, nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	select {
	case <-p.Done():
	case <-ctx.Done():
		if err := p.kill(); err != nil {
			return err
		}
		return fmt.Errorf("/dev/kvm is there, but a guest did not boot with it in %v", probeTime)
	}
	select {
	case <-connected:
		printed.drained(lastWords)
	case <-time.After(outputDelay): // it ended before it connected
	}
	if !strings.Contains(printed.String(), "Kernel panic") {
		return fmt.Errorf("/dev/kvm is there, but a guest did not boot with it: QEMU %s", p.ending())
	}
	return nil
}
