package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Init is process 1 of the lab's guest: it mounts what a kernel offers, loads the
// modules of the initramfs, serves the lab and powers the guest off. It does not return.
func Init(o Options) {
	if err := guardedInit(o); err != nil && !errors.Is(err, ErrPowerOff) {
		// The lab shows the end of the console.
		fmt.Println("vmdisk agent:", err)
	}
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println("vmdisk agent: power off:", err)
	}
	select {} // a machine without power management halts here
}

func guardedInit(o Options) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	if err := os.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"); err != nil {
		return err
	}
	if err := mountSystem(); err != nil {
		return err
	}
	if err := loadModules("/modules"); err != nil {
		return err
	}
	if err := loopback(); err != nil {
		fmt.Println("vmdisk agent:", err) // only servers within the guest would miss it
	}
	return ServeGuest(context.Background(), o)
}

func mountSystem() error {
	for _, m := range []struct{ source, target, kind string }{
		{"proc", "/proc", "proc"}, {"sysfs", "/sys", "sysfs"}, {"devtmpfs", "/dev", "devtmpfs"}, {"devpts", "/dev/pts", "devpts"}, {"tmpfs", "/tmp", "tmpfs"},
	} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return nil
}

// loadModules loads the modules of dir in the order of their names. Drivers of
// hardware that is not there are not missed.
func loadModules(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.ko*"))
	if err != nil {
		return err
	}
	for _, file := range files { // Glob sorts
		err := loadModule(file)
		if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENODEV) {
			fmt.Printf("vmdisk agent: load %s: %v\n", file, err)
		}
	}
	return nil
}

func loadModule(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	const compressed = 4 // MODULE_INIT_COMPRESSED_FILE
	flags := 0
	if !strings.HasSuffix(file, ".ko") {
		flags = compressed
	}
	return unix.FinitModule(int(f.Fd()), "", flags)
}

// loopback brings up the interface lo.
func loopback() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}

// reapOrphans takes the exit status of processes whose parents ended before them and
// which this one, if it is a guest's init, got. It must not be called while a command
// runs: it would take that one's.
func reapOrphans() {
	if os.Getpid() != 1 {
		return
	}
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if pid <= 0 && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// portWait is how long a virtio-serial port may take to show up.
const portWait = 10 * time.Second

// ServePort serves the lab at a virtio-serial port of this guest.
func ServePort(ctx context.Context, name string, o Options) error {
	port, err := openPort(ctx, name)
	if err != nil {
		return err
	}
	return serveOn(ctx, port, o)
}

func openPort(ctx context.Context, name string) (*os.File, error) {
	for begun := time.Now(); time.Since(begun) < portWait; {
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return nil, err
		}
		for _, file := range names {
			have, _ := os.ReadFile(file)
			if strings.TrimSpace(string(have)) == name {
				return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(file)), os.O_RDWR, 0)
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil, fmt.Errorf("this machine has no virtio-serial port %q: is it a guest of vmdisk lab?", name)
}
