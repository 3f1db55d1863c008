package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/diskurl"
)

// host is what this machine offers. Its functions are replaced in tests.
type host struct {
	run     runner
	root    bool
	program func(name string) bool
	// fileSystem: the kernel has it, after its module was loaded if need be.
	fileSystem func(ctx context.Context, name string) bool
	// target: the device mapper has the target.
	target func(ctx context.Context, name string) bool
	// module: loaded, or it could be.
	module func(ctx context.Context, name string) bool
	exists func(path string) bool
	free   func(path string) (int64, error)
	memory func() (int64, error)
	// schedulers that a device's queue offers.
	schedulers func(device string) ([]string, error)
	reflink    func(dir string) error
	built      func(scheme string) bool
	// cacheIn is "none" where files can be opened past the page cache.
	cacheIn func(dir string) string
}

func thisHost() host { return hostWith(runCommand) }

func hostWith(run runner) host {
	h := host{
		run:     run,
		root:    os.Geteuid() == 0,
		program: func(name string) bool { _, err := findProgram(name); return err == nil },
		exists:  exists, free: freeSpace, memory: freeMemory, schedulers: schedulersOf, reflink: tryReflink, built: diskurl.Built, cacheIn: cacheIn,
	}
	h.module = func(ctx context.Context, name string) bool {
		_, err := h.run(ctx, command{name: "modprobe", args: []string{"-q", name}})
		return err == nil
	}
	h.fileSystem = func(ctx context.Context, name string) bool {
		return kernelHas(name) || h.module(ctx, name) && kernelHas(name)
	}
	h.target = func(ctx context.Context, name string) bool {
		if !h.hasTarget(ctx, name) {
			h.module(ctx, targetModule(name))
		}
		return h.hasTarget(ctx, name)
	}
	return h
}

// need calls back for programs that are missing, with what brings them.
func (h host) need(r *reasons, programs ...string) {
	for _, p := range programs {
		if !h.program(p) {
			r.add("%s is not installed: apt-get install %s", p, packages[p])
		}
	}
}

var packages = map[string]string{
	"qemu-img": "qemu-utils", "qemu-nbd": "qemu-utils", "qemu-storage-daemon": "qemu-system-common", "nbdkit": "nbdkit",
	"tgtd": "tgt", "tgtadm": "tgt", "lvcreate": "lvm2", "dmsetup": "dmsetup",
	"zpool": "zfsutils-linux", "zfs": "zfsutils-linux", "blkid": "util-linux",
	"mke2fs": "e2fsprogs", "mkfs.xfs": "xfsprogs", "mkfs.btrfs": "btrfs-progs",
}

// kernelHas: the file system is listed as one of a block device.
func kernelHas(name string) bool {
	text, err := os.ReadFile("/proc/filesystems")
	return err == nil && slices.Contains(strings.Fields(string(text)), name)
}

// targetModule has a target of the device mapper; the plain ones are in its own.
func targetModule(name string) string {
	if name == "linear" {
		return "dm-mod"
	}
	return "dm-" + name
}

func (h host) hasTarget(ctx context.Context, name string) bool {
	out, err := h.run(ctx, command{name: "dmsetup", args: []string{"targets"}})
	return err == nil && slices.Contains(strings.Fields(out), name)
}

func freeMemory() (int64, error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return 0, err
	}
	m, err := fs.Meminfo()
	if err != nil {
		return 0, err
	}
	if m.MemAvailableBytes == nil {
		return 0, errors.New("/proc/meminfo has no MemAvailable")
	}
	return int64(*m.MemAvailableBytes), nil
}

// schedulersOf reads what a device offers, the one in force in no way marked.
func schedulersOf(device string) ([]string, error) {
	dir, err := queueFolder(device)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "scheduler"))
	if err != nil {
		return nil, err
	}
	return strings.Fields(strings.NewReplacer("[", "", "]", "").Replace(string(text))), nil
}

// tryReflink shares a block between two files in a folder, or the nearest parent
// that exists.
func tryReflink(dir string) error {
	for !exists(dir) && dir != "/" {
		dir = filepath.Dir(dir)
	}
	tmp, err := os.MkdirTemp(dir, "vmdisk-reflink-")
	if err != nil {
		return err
	}
	from := filepath.Join(tmp, "a")
	err = os.WriteFile(from, make([]byte, unit), 0o600)
	if err == nil {
		err = cloneFile(from, filepath.Join(tmp, "b"))
	}
	return errors.Join(err, os.RemoveAll(tmp))
}

// room is what a set-up needs of a block device.
type room struct {
	size int64  // the least
	all  string // what would use a larger one as a whole, "" for nothing
}

// deviceProblem says why a block device may not be overwritten, "" if it may. ours:
// what it holds is from this store.
func (h host) deviceProblem(ctx context.Context, path string, r room, ours bool) string {
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return fmt.Sprintf("device %s: %v", path, errors.Unwrap(err))
	case st.Mode()&os.ModeDevice == 0 || st.Mode()&os.ModeCharDevice != 0:
		return fmt.Sprintf("device %s is no block device: backing=copy takes files", path)
	}
	f, err := openExclusive(ctx, path)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Sprintf("device %s is in use (mounted, or held by another device: see lsblk %s): unmount or release it first", path, path)
	}
	if err != nil {
		return fmt.Sprintf("device %s: %v: it must be writable", path, errors.Unwrap(err))
	}
	defer f.Close()
	end, err := f.Seek(0, 2)
	switch {
	case err != nil:
		return fmt.Sprintf("device %s: %v", path, err)
	case end < r.size:
		return fmt.Sprintf("device %s has %s, the disk of a node %s: use a larger device or a smaller disk", path, sizeText(end), sizeText(r.size))
	case end > r.size && r.all != "" && r.size > 0:
		return fmt.Sprintf("device %s has %s and %s uses all of it, the disk of a node has %s: give a partition or volume of that size, or --set disk=%d", path, sizeText(end), r.all, sizeText(r.size), end)
	case ours:
		return ""
	}
	return h.signature(ctx, path)
}

// signature says what a device already holds, "" for nothing that is known.
func (h host) signature(ctx context.Context, path string) string {
	out, err := h.run(ctx, command{name: "blkid", args: []string{"-p", "-o", "export", path}})
	switch {
	case isNothing(err):
		return ""
	case err != nil:
		return fmt.Sprintf("device %s: what it holds can't be found out: %v", path, err)
	}
	what := "data of a known kind"
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if name == "TYPE" || name == "PTTYPE" {
			what = value
		}
	}
	return fmt.Sprintf("device %s holds %s, which would be lost: if it may be, wipefs -a %s", path, what, path)
}

// isNothing: blkid has found no signature.
func isNothing(err error) bool {
	var exit interface{ ExitCode() int }
	return errors.As(err, &exit) && exit.ExitCode() == 2
}
