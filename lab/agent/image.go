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
	"time"

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
func openImage(ctx context.Context, own string) (*imageRoot, error) {
	begun := time.Now()
	for {
		r, tried := findImage(own)
		if r != nil {
			return r, nil
		}
		// A bus is scanned in the background.
		if time.Since(begun) > patience {
			if len(tried) == 0 {
				return nil, errors.New("guest image: the guest sees no disk beside its own")
			}
			return nil, fmt.Errorf("guest image: no root file system with fio (%s)", strings.Join(tried, "; "))
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// findImage tries every partition; tried says what is wrong with each.
func findImage(own string) (_ *imageRoot, tried []string) {
	for _, name := range theSys.disks() {
		if name == own {
			continue
		}
		for _, part := range theSys.partitions(name) {
			r, err := mountImage("/dev/" + part)
			if err == nil {
				return r, nil
			}
			tried = append(tried, part+": "+err.Error())
		}
	}
	return nil, tried
}

// imageKinds are the file systems that a root may be, and the option that mounts one
// read-only which was not unmounted.
var imageKinds = [][2]string{{"ext4", "noload"}, {"xfs", "norecovery"}, {"btrfs", "rescue=nologreplay"}}

func mountRoot(device, dir string) error {
	for _, kind := range imageKinds {
		for _, option := range []string{"", kind[1]} {
			if unix.Mount(device, dir, kind[0], unix.MS_RDONLY, option) == nil {
				return nil
			}
		}
	}
	return errors.New("no ext4, xfs or btrfs that this kernel mounts")
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
	if err := mountRoot(device, r.dir); err != nil {
		return nil, err
	}
	r.mounts = append(r.mounts, r.dir)
	if r.fio() == "" {
		return nil, errors.New("no fio in it")
	}
	for _, b := range []struct{ source, target, kind string }{{"/dev", "dev", ""}, {"proc", "proc", "proc"}, {"sysfs", "sys", "sysfs"}, {"tmpfs", "tmp", "tmpfs"}, {"tmpfs", "mnt", "tmpfs"}} {
		if err := r.mount(b.source, filepath.Join(r.dir, b.target), b.kind); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// mount without a kind binds a folder.
func (r *imageRoot) mount(source, target, kind string) error {
	flags := uintptr(0)
	if kind == "" {
		flags = unix.MS_BIND
	}
	if err := unix.Mount(source, target, kind, flags, ""); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	r.mounts = append(r.mounts, target)
	return nil
}

// share makes a folder of the node visible in the image, at the same path.
func (r *imageRoot) share(dir string) error {
	target := filepath.Join(r.dir, dir)
	if slices.Contains(r.mounts, target) {
		return nil
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	return r.mount(dir, target, "")
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
	var program string
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
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd, err := fioCommand(ctx, root, "--version")
	if err != nil {
		return ""
	}
	out, err := cmd.Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
