package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/diskurl"
	"github.com/vmdisk/vmdisk/lab/spec"
)

// richHost has everything.
func richHost() host {
	yes := func(context.Context, string) bool { return true }
	return host{
		run:  func(context.Context, command) (string, error) { return "", nil },
		root: true, program: func(string) bool { return true }, fileSystem: yes, target: yes, module: yes,
		exists: func(string) bool { return true }, free: func(string) (int64, error) { return 1 << 50, nil },
		memory:     func() (int64, error) { return 1 << 40, nil },
		schedulers: func(string) ([]string, error) { return []string{"none", "mq-deadline", "bfq", "kyber"}, nil },
		reflink:    func(string) error { return nil },
		built:      func(scheme string) bool { return scheme != diskurl.FormatQcow2 && scheme != diskurl.SchemeVhostUser },
		cacheIn:    func(string) string { return "none" },
	}
}

// without is a rich host that lacks something.
func without(take func(h *host)) host {
	h := richHost()
	take(&h)
	return h
}

func TestMissing(t *testing.T) {
	t.Parallel()
	rich := richHost()
	no := func(context.Context, string) bool { return false }
	lacks := func(names ...string) host {
		return without(func(h *host) { h.program = func(n string) bool { return !slices.Contains(names, n) } })
	}
	user := without(func(h *host) { h.root = false })
	bare := without(func(h *host) {
		h.fileSystem, h.target, h.module = no, no, no
		h.exists = func(string) bool { return false }
		h.schedulers = func(string) ([]string, error) { return []string{"none"}, nil }
		h.reflink = func(string) error { return errors.ErrUnsupported }
		h.cacheIn = func(string) string { return "writeback" }
	})
	for _, c := range []struct {
		host   host
		setup  string
		client string
		want   string // "": can run
	}{
		{rich, "copy", "host", ""},
		{rich, "reflink host-fs=xfs", "host", ""},
		{rich, "lvm-thin", "guest", ""},
		{rich, "zvol-clone", "guest", ""},
		{rich, "tmpfs", "guest", ""},
		{rich, "overlay", "guest", ""},
		{rich, "loop device=vhost-scsi", "guest", ""},
		{rich, "copy server=qsd device=vhost-user-blk", "guest", ""},
		{rich, "loop host-scheduler=kyber", "host", ""},
		{rich, "device:0000:44:00.0;0000:45:00.0 device=vfio-pci", "guest", ""},
		{user, "loop", "host", "needs root"},
		{user, "copy host-fs=xfs", "host", "needs root"},
		{user, "tmpfs", "host", "needs root"},
		{user, "zvol", "guest", "needs root"},
		{user, "lvm", "guest", "needs root"},
		{user, "loop host-scheduler=bfq", "guest", "host-scheduler needs root"},
		{bare, "loop", "host", "modprobe loop"},
		{bare, "copy host-fs=btrfs", "host", "kernel has no btrfs"},
		{bare, "tmpfs", "host", "cache=writeback, or Linux 6.6"},
		{bare, "copy", "host", "files in / are always cached: cache=writeback"},
		{bare, "reflink", "host", "can't share blocks: host-fs=xfs"},
		{bare, "lvm", "guest", "target linear"},
		{bare, "lvm-snapshot", "guest", "target snapshot"},
		{bare, "lvm-thin", "guest", "target thin-pool"},
		{bare, "zvol", "guest", "zfs-dkms"},
		{bare, "loop device=vhost-scsi", "guest", "no vhost-scsi"},
		{bare, "loop host-scheduler=bfq", "guest", "modprobe bfq"},
		{bare, "loop host-scheduler=kyber", "guest", "modprobe kyber-iosched"},
		{bare, "device:0000:44:00.0;0000:45:00.0 device=vfio-pci", "guest", "no PCI device 0000:44:00.0"},
		{rich, "reflink host-fs=ext4", "host", "ext4 can't share blocks"},
		{rich, "reflink preallocation=full", "host", "none is left to preallocate"},
		{lacks("qemu-img"), "overlay", "guest", "apt-get install qemu-utils"},
		{lacks("qemu-img"), "copy format=qcow2", "guest", "apt-get install qemu-utils"},
		{lacks("qemu-nbd"), "copy server=qemu-nbd", "guest", "apt-get install qemu-utils"},
		{lacks("nbdkit"), "copy server=nbdkit cache=writeback", "guest", "apt-get install nbdkit"},
		{lacks("qemu-storage-daemon"), "copy server=qsd", "guest", "apt-get install qemu-system-common"},
		{lacks("tgtd"), "copy server=iscsi", "guest", "apt-get install tgt"},
		{lacks("lvcreate"), "lvm", "guest", "apt-get install lvm2"},
		{lacks("zpool"), "zvol", "guest", "apt-get install zfsutils-linux"},
		{lacks("mkfs.btrfs"), "copy host-fs=btrfs", "guest", "apt-get install btrfs-progs"},
		{rich, "copy server=nbdkit cache=none", "guest", "cache=writeback"},
		{rich, "copy server=nbdkit cache=writeback format=qcow2", "guest", "server=qemu-nbd"},
		{rich, "overlay server=vmdisk", "guest", "server=qemu-nbd"},
		{rich, "copy server=vmdisk aio=native", "guest", "no aio=native"},
		{rich, "copy server=qemu-nbd aio=native cache=writeback", "guest", "aio=native needs cache=none"},
		{rich, "overlay", "host", "host clients can't read qcow2 images in this build: server=qemu-nbd"},
		{rich, "copy aio=native", "host", "host clients have no aio=native"},
		{rich, "copy server=qsd", "host", "server=qsd-nbd"},
		{rich, "copy server=iscsi", "host", "client=guest"},
		{rich, "reflink server=luks", "guest", "backing=copy"},
		{rich, "copy server=luks format=qcow2", "guest", "a format of its own"},
		{rich, "loop format=qcow2", "guest", "qcow2 images lie in files"},
		{rich, "copy preallocation=metadata", "guest", "of format=qcow2"},
		{rich, "overlay preallocation=metadata", "guest", "extended-l2=on only"},
		{rich, "copy server=spdk", "guest", "unknown server"},
		{rich, "raid", "guest", `unknown backing "raid"`},
		{rich, "copy host-fs=zfs", "guest", "use here, xfs, ext4 or btrfs"},
		{rich, "copy host-scheduler=bfq", "guest", "host-scheduler is of a block device"},
		{rich, "copy device=vhost-scsi", "guest", "needs a block device below"},
		{rich, "device", "guest", "2 nodes need a device each, 0 are given"},
		{rich, "device:/dev/null", "guest", "2 nodes need a device each, 1 are given"},
		{rich, "device:/dev/null;/dev/null", "guest", "given twice"},
		{rich, "device:/dev/null;/dev/zero", "guest", "no block device"},
		{rich, "device:/nowhere;/dev/zero", "guest", "/nowhere: no such file"},
		{rich, "device:0000:44:00.0;0000:45:00.0", "guest", "device=nvme-userspace or device=vfio-pci"},
		{rich, "url:mem:64M", "host", ""},
		{rich, "url:null:64M server=vmdisk", "host", ""},
		{rich, "url:mem:64M", "guest", "client=host"},
		{rich, "url:mem:64M server=qemu-nbd", "host", "server=vmdisk"},
		{rich, "url:mem:64M pass=second", "host", "pass=first"},
		{rich, "url:nbd://h/x", "host", "would write to the same disk"},
		{rich, "url:nbd://h/x;nbd://h/y", "host", ""},
		{rich, "url:nbd://h/x;", "host", "node b has no URL"},
		{rich, "url:nbdd://h/x", "host", "unknown scheme"},
		{rich, "url:vhost-user:/a;vhost-user:/b", "host", "no driver for vhost-user"},
	} {
		list := newPreflight(c.host, parseSetup(t, c.setup), c.client, 2)
		list.o = &Options{Dir: "/d", Size: mib, FileSystem: "none"}
		why := strings.Join(list.run(t.Context()), "; ")
		if c.want == "" && why != "" || !strings.Contains(why, c.want) || strings.Contains(why, "\n") {
			t.Errorf("%s, client %s: %q, want %q", c.setup, c.client, why, c.want)
		}
	}
}

func TestMissingFilters(t *testing.T) {
	t.Parallel()
	for filters, want := range map[string]string{"delay:write=1ms": "", "b@delay": "", "delay:write": "want KEY=VALUE"} {
		su := setup(func(su *spec.Setup) { su.Filters = filters })
		if why := strings.Join(newPreflight(richHost(), su, spec.ClientHost, 2).run(t.Context()), "; "); want == "" && why != "" || !strings.Contains(why, want) {
			t.Errorf("filters %q: %q, want %q", filters, why, want)
		}
	}
	su := parseSetup(t, "copy server=qemu-nbd")
	su.Filters = "stats"
	if why := newPreflight(richHost(), su, spec.ClientHost, 2).run(t.Context()); len(why) != 1 || !strings.Contains(why[0], "server=vmdisk") {
		t.Errorf("filters with qemu-nbd: %q", why)
	}
}

// TestMissingSpace: what is needed is compared with what is free, before anything starts.
func TestMissingSpace(t *testing.T) {
	t.Parallel()
	p := newPreflight(without(func(h *host) {
		h.free = func(string) (int64, error) { return 10 << 30, nil }
		h.memory = func() (int64, error) { return 1 << 30, nil }
	}), setup(nil), "host", 2)
	p.space("/d", 10<<30, 1<<30)
	if len(p.list) != 0 {
		t.Errorf("exactly enough: %q", p.list)
	}
	p.space("/d", 11<<30, 2<<30)
	want := []string{"/d has 10 GiB free and the disks need up to 11 GiB", "the host has 1 GiB of memory free and the disks need up to 2 GiB"}
	for i, w := range want {
		if len(p.list) != 2 || !strings.HasPrefix(p.list[i], w) {
			t.Errorf("%q, want %q", p.list, w)
		}
	}

	// A folder that is not there yet, on the file system that will hold it.
	dir := filepath.Join(t.TempDir(), "a/b")
	o := Options{Dir: dir, Size: 1 << 50, Data: 1 << 50, FileSystem: "none"}
	if why := o.Missing(t.Context(), setup(nil), spec.ClientHost, 1, 0); len(why) != 1 || !strings.Contains(why[0], "need up to 2.00") && !strings.Contains(why[0], "need up to 2 PiB") {
		t.Errorf("a PiB: %q", why)
	}
	o.Data, o.Size = 0, mib
	if why := o.Missing(t.Context(), setup(nil), spec.ClientHost, 1, 0); len(why) != 0 {
		t.Errorf("a MiB: %q", why)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("asking made %s", dir)
	}
}

func TestNeed(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	o := Options{Size: 100 * gib, Data: 4 * gib, FileSystem: "none"}
	for _, c := range []struct {
		setup   string
		nodes   int
		written int64
		disk    float64 // GiB, within a tenth
		mem     float64
	}{
		{"copy", 4, gib, 4*5 + 4, 0},
		{"copy", 4, 0, 4*4 + 4, 0},
		{"copy", 4, -1, 400 + 4, 0},
		{"copy preallocation=falloc", 2, 0, 204, 0},
		{"sparse", 2, gib, 2 + 4, 0},
		{"falloc", 2, 0, 204, 0},
		{"full", 1, 0, 104, 0},
		{"reflink host-fs=xfs", 4, gib, 4 + 4 + 0.5, 0},
		{"reflink format=qcow2 host-fs=btrfs", 1, 0, 4 + 4 + 0.25, 0},
		{"overlay", 1, gib, 16 + 4, 0},
		{"overlay", 1, 50 * gib, 104, 0},
		{"overlay extended-l2=on cluster-size=128k", 1, gib, 1 + 4, 0},
		{"loop pass=second", 2, 0, 204, 0},
		{"tmpfs", 2, gib, 4, 10},
		{"lvm", 2, gib, 10 + 4, 0},
		{"lvm-thin", 1, gib, 16 + 4, 0},
		{"zvol", 1, gib, 5.6 + 4, 0},
		{"copy server=luks", 1, 0, 104, 0},
		{"url:mem:1G", 3, gib, 0, 3},
		{"url:null:1G", 3, gib, 0, 0},
		{"device:/dev/x", 1, gib, 4, 0},
	} {
		disk, mem := o.Need(parseSetup(t, c.setup), c.nodes, c.written)
		for what, pair := range map[string][2]float64{"disk": {float64(disk) / gib, c.disk}, "memory": {float64(mem) / gib, c.mem}} {
			if got, want := pair[0], pair[1]; got < want-0.01 || got > want*1.1+0.2*float64(c.nodes) {
				t.Errorf("%s, %d nodes that write %d: %.2f GiB of %s, want %.2f", c.setup, c.nodes, c.written, got, what, want)
			}
		}
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "d")
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Size: mib, FileSystem: "none"}, "no name"},
		{Options{Dir: "/" + strings.Repeat("d", 90), Size: mib, FileSystem: "none"}, "use a shorter one"},
		{Options{Dir: "/a\nb", Size: mib, FileSystem: "none"}, "control characters"},
		{Options{Dir: dir, Size: 1000, FileSystem: "none"}, "multiple of 4096"},
		{Options{Dir: dir, Size: -4096, FileSystem: "none"}, "multiple of 4096"},
		{Options{Dir: dir, Size: mib, Data: 2 * mib, FileSystem: "none"}, "do not fit on a disk of 1 MiB"},
		{Options{Dir: dir, Size: mib, Data: -1, FileSystem: "none"}, "do not fit"},
		{Options{Dir: dir, Size: mib, FileSystem: "ext4"}, "too small for ext4: 16 MiB"},
		{Options{Dir: dir, Size: 64 * mib, FileSystem: "xfs"}, "too small for xfs: 300 MiB"},
		{Options{Dir: dir, Size: 64 * mib, Data: 60 * mib, FileSystem: "ext4"}, "do not fit"},
		{Options{Dir: dir, Size: mib, FileSystem: "ntfs"}, "use none, ext4 or xfs"},
	} {
		_, err := Open(t.Context(), c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %v, want %q", c.o, err, c.want)
		}
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Error("bad options made the folder")
	}
}

// TestTargetModule: the module of a target is loaded before it is looked for again.
func TestTargetModule(t *testing.T) {
	t.Parallel()
	for target, module := range map[string]string{"linear": "dm-mod", "thin-pool": "dm-thin-pool"} {
		loaded := ""
		h := hostWith(func(_ context.Context, c command) (string, error) {
			if c.name == "modprobe" {
				loaded = c.args[len(c.args)-1]
			}
			if loaded == module {
				return target + "           v1.2.3\n", nil
			}
			return "", nil
		})
		if !h.target(t.Context(), target) {
			t.Errorf("target %s: loaded %q, want %q", target, loaded, module)
		}
	}
}
