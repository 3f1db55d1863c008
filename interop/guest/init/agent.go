package main

import (
	"fmt"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/interop/guest/wire"
)

// agent is the state between requests.
type agent struct {
	devices map[string]*device // by path, "/dev/nbd0"
}

// do runs one operation; step tells the host how far it is.
func (a *agent) do(r wire.Request, step func(int)) (string, error) {
	switch r.Op {
	case "connect":
		return "", a.connect(r)
	case "disconnect":
		return "", a.disconnect(r.Path)
	case "reconnects":
		return a.reconnects(r.Path)
	case "run":
		return runCommand(r)
	case "mount":
		return "", mountFS(r.Path, r.Target)
	case "umount":
		return "", unmount(r.Target)
	case "write":
		return "", writeFiles(r.Path, r.First, r.Count, r.Size, r.Seed, step)
	case "verify":
		return verifyFiles(r.Path, r.First, r.Count, r.Size, r.Seed)
	case "fsx":
		return exercise(r.Path, r.Count, r.Size, r.Seed)
	case "drop":
		return "", dropCaches()
	case "set":
		return "", os.WriteFile(r.Path, []byte(r.Target), 0)
	case "log":
		return kernelLog()
	}
	return "", fmt.Errorf("unknown operation %q", r.Op)
}

// runCommand runs Argv and returns its output, also of a failed one.
func runCommand(r wire.Request) (string, error) {
	cmd := exec.Command(r.Argv[0], r.Argv[1:]...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// mountFS mounts the ext4 file system on device Path at Target. Nothing is
// written back behind the workload's back: what reaches the server between two
// syncs is then decided by the workload alone.
func mountFS(device, target string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	for _, knob := range []string{"dirty_writeback_centisecs", "dirty_expire_centisecs"} {
		v := "0"
		if knob == "dirty_expire_centisecs" {
			v = "360000"
		}
		if err := os.WriteFile("/proc/sys/vm/"+knob, []byte(v), 0); err != nil {
			return err
		}
	}
	if err := unix.Mount(device, target, "ext4", unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("mount %s: %w", device, err)
	}
	return nil
}

func unmount(target string) error {
	var err error
	for range 50 {
		if err = unix.Unmount(target, 0); err != unix.EBUSY {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("umount %s: %w", target, err)
	}
	return nil
}

func dropCaches() error {
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}

func kernelLog() (string, error) {
	buf := make([]byte, 64<<10)
	const readAll = 3 // SYSLOG_ACTION_READ_ALL
	n, err := unix.Klogctl(readAll, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}
