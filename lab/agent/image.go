package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// imageMount is where the root of the guest's image is.
const imageMount = "/mnt/image"

// imageRoot is the root file system of a guest image, mounted to run its fio.
type imageRoot struct {
	dir    string
	mounts []string // in order
}

func (r *imageRoot) path() string {
	if r == nil {
		return ""
	}
	return r.dir
}

func (r *imageRoot) close() {
	if r == nil {
		return
	}
	for _, m := range slices.Backward(r.mounts) {
		_ = unix.Unmount(m, unix.MNT_DETACH)
	}
}

// fioPaths are where distributions install fio.
var fioPaths = []string{"usr/bin/fio", "usr/local/bin/fio", "bin/fio"}

// openImage looks for a root file system with fio on all disks but the node's own.
func openImage(_ context.Context, own string) (*imageRoot, error) {
	var tried []string
	for _, name := range blockDevices() {
		if name == own {
			continue
		}
		for _, part := range partitions(name) {
			tried = append(tried, part)
			if r, err := mountImage("/dev/" + part); err == nil {
				return r, nil
			}
		}
	}
	if len(tried) == 0 {
		return nil, errors.New("guest image: the guest sees no disk beside its own")
	}
	return nil, fmt.Errorf("guest image: no root file system with fio on %s", strings.Join(tried, ", "))
}

// partitions of a disk, and the disk itself.
func partitions(name string) []string {
	dirs, _ := filepath.Glob(filepath.Join("/sys/block", name, name+"*"))
	var all []string
	for _, d := range dirs {
		all = append(all, filepath.Base(d))
	}
	return append(all, name)
}

func mountImage(device string) (_ *imageRoot, err error) {
	if err := os.MkdirAll(imageMount, 0o755); err != nil {
		return nil, err
	}
	r := &imageRoot{dir: imageMount}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	for _, kind := range []string{"ext4", "xfs", "btrfs"} {
		if err = unix.Mount(device, r.dir, kind, unix.MS_RDONLY, ""); err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	r.mounts = append(r.mounts, r.dir)
	if r.fio() == "" {
		return nil, errors.New("no fio")
	}
	for _, b := range []struct{ source, target, kind string }{{"/dev", "dev", ""}, {"proc", "proc", "proc"}, {"sysfs", "sys", "sysfs"}, {"tmpfs", "tmp", "tmpfs"}, {"tmpfs", "mnt", "tmpfs"}} {
		target := filepath.Join(r.dir, b.target)
		flags := uintptr(0)
		if b.kind == "" {
			flags = unix.MS_BIND
		}
		if err = unix.Mount(b.source, target, b.kind, flags, ""); err != nil {
			return nil, fmt.Errorf("mount %s: %w", target, err)
		}
		r.mounts = append(r.mounts, target)
	}
	return r, nil
}

// share makes a folder of the node visible in the image, at the same path.
func (r *imageRoot) share(dir string) error {
	target := filepath.Join(r.dir, dir)
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(dir, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s in the image: %w", dir, err)
	}
	r.mounts = append(r.mounts, target)
	return nil
}

// fio is its path within the image, "" if there is none.
func (r *imageRoot) fio() string {
	for _, p := range fioPaths {
		if _, err := os.Stat(filepath.Join(r.dir, p)); err == nil {
			return "/" + p
		}
	}
	return ""
}

// fioCommand runs fio, of a root if one is given.
func fioCommand(ctx context.Context, root string, args ...string) (*exec.Cmd, error) {
	program := ""
	if root != "" {
		program = (&imageRoot{dir: root}).fio()
	} else {
		program, _ = exec.LookPath("fio")
	}
	if program == "" {
		return nil, errors.New("fio is not installed here: use a guest image that has it, or engine=vmdisk")
	}
	cmd := exec.CommandContext(ctx, program, args...)
	if root != "" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
		cmd.Dir = "/tmp"
		cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp"}
	}
	return cmd, nil
}

// fioVersion is what `fio --version` says, "" without fio.
func fioVersion(root string) string {
	cmd, err := fioCommand(context.Background(), root, "--version")
	if err != nil {
		return ""
	}
	out, err := cmd.Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
