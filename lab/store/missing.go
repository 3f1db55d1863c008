package store

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/vmdisk/vmdisk/diskurl"
	"github.com/vmdisk/vmdisk/lab/spec"
)

// reasons are collected, each once.
type reasons struct{ list []string }

func (r *reasons) add(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); text != "" && !slices.Contains(r.list, text) {
		r.list = append(r.list, text)
	}
}

// Missing says why disks of a setup can't be made on this host, one reason each
// with its remedy; none means that they can. It tries to load modules, and changes
// nothing else. What depends on the work folder and the disk's size is known to
// Options.Missing only.
func Missing(ctx context.Context, setup spec.Setup, client string, nodes int) []string {
	return newPreflight(thisHost(), setup, client, nodes).run(ctx)
}

// Missing is like the function, and also looks at space, memory, the file system of
// Dir and the sizes of devices. The folder need not exist yet. written is as in
// Need.
func (o Options) Missing(ctx context.Context, setup spec.Setup, client string, nodes int, written int64) []string {
	if err := o.check(); err != nil {
		return []string{err.Error()}
	}
	p := newPreflight(thisHost(), setup, client, nodes)
	p.o = &o
	list := p.run(ctx)
	disk, mem := o.Need(setup, nodes, written)
	p.space(o.Dir, disk, mem)
	return append(list, p.left(len(list))...)
}

// Missing is like Options.Missing, with what is there already taken into account.
func (s *Store) Missing(ctx context.Context, setup spec.Setup, client string, nodes int, written int64) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := newPreflight(thisHost(), setup, client, nodes)
	p.o, p.used, p.host.run = &s.o, s.used, s.run
	list := p.run(ctx)
	disk, mem := s.need(setup, nodes, written)
	p.space(s.o.Dir, disk, mem)
	if h := s.hostFS[setup.HostFS]; h != nil && slices.Contains(fileBackings, p.kind) {
		p.space(h.dir, disk, 0)
	}
	return append(list, p.left(len(list))...)
}

// preflight judges one setup.
type preflight struct {
	reasons
	host   host
	setup  spec.Setup
	client string
	nodes  int
	kind   string // of the backing
	arg    string
	o      *Options        // nil: not known
	used   map[string]bool // devices with data of ours
}

func newPreflight(h host, setup spec.Setup, client string, nodes int) *preflight {
	p := &preflight{host: h, setup: setup, client: client, nodes: nodes}
	p.kind, p.arg = kindOf(setup.Backing)
	return p
}

// left are the reasons after the first n.
func (p *preflight) left(n int) []string { return p.list[n:] }

func (p *preflight) run(ctx context.Context) []string {
	if p.nodes < 1 || p.nodes > 26 {
		p.add("%d nodes: 1 to 26 are possible", p.nodes)
	}
	p.backing(ctx)
	p.hostFileSystem(ctx)
	p.golden()
	p.format()
	p.server()
	p.clients()
	p.filters()
	p.hostScheduler(ctx)
	p.vhostSCSI(ctx)
	return p.list
}

func (p *preflight) root(what string) {
	if !p.host.root {
		p.add("%s needs root: run it as root or through sudo", what)
	}
}

func (p *preflight) loops(what string) {
	p.root(what)
	if !p.host.exists("/dev/loop-control") && !p.host.module(context.Background(), "loop") {
		p.add("%s needs loop devices, and this kernel has none: modprobe loop", what)
	}
}

func (p *preflight) backing(ctx context.Context) {
	switch p.kind {
	case "copy", "sparse", "falloc", "full":
		p.directHere()
	case "reflink":
		p.directHere()
		p.reflink()
	case "overlay":
		p.directHere()
		p.host.need(&p.reasons, "qemu-img")
	case "tmpfs":
		p.root("backing=tmpfs (a mount)")
		if p.direct() && p.host.cacheIn("/dev/shm") != "none" { // it nearly always is a tmpfs
			p.add("tmpfs of this kernel is always cached: cache=writeback, or Linux 6.6 or newer")
		}
	case "loop":
		p.loops("backing=loop")
	case "lvm", "lvm-snapshot", "lvm-thin":
		p.lvm(ctx)
	case "zvol", "zvol-clone":
		p.zfs(ctx)
	case "device":
		p.devices(ctx)
	case "url":
		p.urls()
	default:
		p.add("unknown backing %q", p.setup.Backing)
	}
	if p.setup.Pass == "second" && (p.kind == "url" || isPCI(p.arg)) {
		p.add("pass=second writes files and block devices of the host: pass=first for backing=%s", p.kind)
	}
}

// direct: somebody opens images past the page cache.
func (p *preflight) direct() bool {
	return (p.setup.Cache == "none" || p.setup.Cache == "directsync") && p.setup.Server != "iscsi"
}

// directHere: a work folder on a RAM disk, mostly.
func (p *preflight) directHere() {
	if p.o == nil || !p.direct() || p.setup.HostFS != here {
		return
	}
	dir := p.o.Dir
	for !p.host.exists(dir) && dir != "/" {
		dir = filepath.Dir(dir)
	}
	if p.host.cacheIn(dir) != "none" {
		p.add("files in %s are always cached: cache=writeback, another folder, or a host-fs of its own", dir)
	}
}

func (p *preflight) reflink() {
	switch {
	case p.setup.Preallocation != "off":
		p.add("backing=reflink shares blocks, and none is left to preallocate: preallocation=off")
	case p.setup.HostFS == "ext4":
		p.add("ext4 can't share blocks: host-fs=xfs or host-fs=btrfs")
	case p.setup.HostFS == here && p.o != nil:
		if err := p.host.reflink(p.o.Dir); err != nil {
			p.add("the file system of %s can't share blocks: host-fs=xfs or host-fs=btrfs", p.o.Dir)
		}
	}
}

func (p *preflight) lvm(ctx context.Context) {
	p.loops("backing=" + p.kind)
	p.host.need(&p.reasons, "lvcreate", "dmsetup")
	if !p.host.program("dmsetup") {
		return
	}
	target := map[string]string{"lvm": "linear", "lvm-snapshot": "snapshot", "lvm-thin": "thin-pool"}[p.kind]
	if !p.host.target(ctx, target) {
		p.add("this kernel has no device mapper with the target %s (module %s): boot a kernel with it", target, targetModule(target))
	}
}

func (p *preflight) zfs(ctx context.Context) {
	p.root("backing=" + p.kind)
	p.host.need(&p.reasons, "zpool", "zfs")
	if !p.host.exists("/dev/zfs") && !p.host.module(ctx, "zfs") {
		p.add("this kernel has no ZFS: apt-get install zfs-dkms (contrib), which builds the module zfs for it")
	}
}

func (p *preflight) devices(ctx context.Context) {
	list := strings.Split(p.arg, ";")
	if p.arg == "" || len(list) < p.nodes {
		p.add("%d nodes need a device each, %d are given: backing=device:PATH;PATH… (what is on them is lost)", p.nodes, len(slices.DeleteFunc(list, func(s string) bool { return s == "" })))
		return
	}
	list = list[:p.nodes]
	seen := map[string]bool{}
	for _, path := range list {
		if seen[path] {
			p.add("device %s is given twice: every node needs one of its own", path)
		}
		seen[path] = true
		if isPCI(path) {
			p.pci(path)
			continue
		}
		p.host.need(&p.reasons, "blkid")
		p.add("%s", p.host.deviceProblem(ctx, path, room{size: p.size(), all: usesAll(p.setup, p.client)}, p.used[path]))
	}
}

// size is the least of a device.
func (p *preflight) size() int64 {
	switch {
	case p.o == nil:
		return 0
	case p.setup.Server == luks:
		return p.o.Size + luksRoom
	}
	return p.o.Size
}

var pciAddress = regexp.MustCompile(`^[0-9a-fA-F]{4}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]$`)

func isPCI(path string) bool { return pciAddress.MatchString(path) }

// pciSource is how QEMU reaches a PCI device, of which it uses so many bytes where it
// is more than handed on.
func pciSource(device, address string, size int64) spec.Source {
	if device == "nvme-userspace" {
		return spec.Source{Driver: "nvme", Path: address, Format: raw, Size: size}
	}
	return spec.Source{Driver: "vfio", Path: address, Format: raw}
}

func (p *preflight) pci(address string) {
	dir := "/sys/bus/pci/devices/" + strings.ToLower(address)
	switch {
	case p.client != spec.ClientGuest || p.setup.Device != "nvme-userspace" && p.setup.Device != "vfio-pci":
		p.add("%s is a PCI device: device=nvme-userspace or device=vfio-pci of guests take it", address)
	case !p.host.exists(dir):
		p.add("this host has no PCI device %s: see lspci -D", address)
	}
}

func (p *preflight) urls() {
	list := urlsFor(p.arg, p.nodes)
	shared := !strings.Contains(p.arg, ";")
	for i, text := range list[:min(p.nodes, len(list))] {
		u, err := diskurl.Parse(text)
		switch {
		case text == "":
			p.add("node %s has no URL: give one for each, separated by ;", nodeName(i))
		case err != nil:
			p.add("%v", err)
		case !builtAll(&p.host, u):
			p.add("%s: this build has no driver for %s", text, strings.Join(u.Names(), " and "))
		case shared && p.nodes > 1 && !private(u):
			p.add("%d nodes would write to the same disk %s: give one URL for each, separated by ;", p.nodes, text)
		}
	}
	switch {
	case p.client != spec.ClientHost:
		p.add("backing=url is for host clients: client=host")
	case p.o != nil && p.o.FileSystem != "none":
		p.add("backing=url is used as it is, and has no file system: file-system none")
	case p.setup.Server != "none" && p.setup.Server != "vmdisk":
		p.add("backing=url is opened by vmdisk: server=none or server=vmdisk")
	}
}

func builtAll(h *host, u diskurl.URL) bool {
	return !slices.ContainsFunc(u.Names(), func(name string) bool { return !h.built(name) })
}

// private: every client that opens the URL has a disk of its own.
func private(u diskurl.URL) bool {
	_, own := u.Addr.(diskurl.SizeAddr)
	return own
}

func (p *preflight) hostFileSystem(ctx context.Context) {
	name := p.setup.HostFS
	if name == here || !slices.Contains(fileBackings, p.kind) {
		return
	}
	c, ok := mkfs[name]
	if !ok {
		p.add("unknown host-fs %q: use here, xfs, ext4 or btrfs", name)
		return
	}
	p.loops("host-fs=" + name)
	p.host.need(&p.reasons, c.name)
	if !p.host.fileSystem(ctx, name) {
		p.add("this kernel has no %s: boot one that has, or host-fs=here", name)
	}
}

// golden is the disk that is copied, cloned or shared.
func (p *preflight) golden() {
	if p.o == nil || p.kind == "url" || isPCI(p.arg) || p.o.FileSystem == "none" {
		return
	}
	p.host.need(&p.reasons, mkfs[p.o.FileSystem].name)
	if p.o.FileSystem == "xfs" && p.o.Data > 0 {
		p.loops("a golden disk with data on xfs")
	}
}

func (p *preflight) format() {
	prealloc := p.setup.Preallocation
	qcow := p.setup.Format == qcow2 || p.kind == "overlay"
	if prealloc == "metadata" && !qcow {
		p.add("preallocation=metadata is of format=qcow2")
	}
	if !qcow {
		return
	}
	p.host.need(&p.reasons, "qemu-img")
	switch {
	case p.setup.Server == luks:
		p.add("server=luks is a format of its own: format=raw")
	case !slices.Contains([]string{"copy", "sparse", "falloc", "full", "reflink", "overlay", "tmpfs"}, p.kind):
		p.add("qcow2 images lie in files, not on backing=%s: format=raw", p.kind)
	case p.kind == "overlay" && prealloc != "off" && !p.setup.ExtendedL2:
		p.add("an overlay can be preallocated with extended-l2=on only: preallocation=off")
	}
}

func (p *preflight) server() {
	native := p.setup.AIO == "native"
	switch p.setup.Server {
	case "none":
	case "vmdisk":
		p.rawOnly(diskurl.FormatQcow2)
		if native {
			p.add("server=vmdisk has no aio=native: aio=threads or aio=io_uring")
		}
	case "nbdkit":
		p.host.need(&p.reasons, "nbdkit")
		p.rawOnly("")
		if p.direct() {
			p.add("server=nbdkit uses the host's page cache: cache=writeback")
		}
	case "qemu-nbd", luks:
		p.host.need(&p.reasons, "qemu-img", "qemu-nbd")
	case "qsd", "qsd-nbd":
		p.host.need(&p.reasons, "qemu-storage-daemon")
	case "iscsi":
		p.host.need(&p.reasons, "tgtd", "tgtadm")
		p.rawOnly("")
	default:
		p.add("unknown server %q", p.setup.Server)
	}
	qemu := slices.Contains([]string{"qemu-nbd", "qsd", "qsd-nbd", luks}, p.setup.Server)
	if qemu && native && !p.direct() {
		p.add("aio=native needs cache=none or cache=directsync")
	}
	if p.setup.Server == luks && !slices.Contains([]string{"copy", "sparse", "falloc", "full", "tmpfs", "loop", "lvm", "zvol", "device"}, p.kind) {
		p.add("server=luks makes an image of its own, which backing=%s can't be: backing=copy", p.kind)
	}
}

// rawOnly: the server reads raw images, and those of a scheme once it is built.
func (p *preflight) rawOnly(scheme string) {
	if (p.setup.Format == qcow2 || p.kind == "overlay") && (scheme == "" || !p.host.built(scheme)) {
		p.add("server=%s can't read qcow2 images: server=qemu-nbd or server=qsd-nbd", p.setup.Server)
	}
}

// clients of the host can use what this build has drivers for.
func (p *preflight) clients() {
	if p.client != spec.ClientHost {
		return
	}
	switch p.setup.Server {
	case "none":
		if (p.setup.Format == qcow2 || p.kind == "overlay") && !p.host.built(diskurl.FormatQcow2) {
			p.add("host clients can't read qcow2 images in this build: server=qemu-nbd")
		}
		if p.setup.AIO == "native" {
			p.add("host clients have no aio=native: aio=threads or aio=io_uring")
		}
	case "qsd":
		if !p.host.built(diskurl.SchemeVhostUser) {
			p.add("host clients can't use vhost-user disks in this build: server=qsd-nbd")
		}
	case "iscsi":
		p.add("host clients can't use iSCSI disks: client=guest, or server=qemu-nbd")
	}
}

func (p *preflight) filters() {
	if p.setup.Filters == "" {
		return
	}
	if p.setup.Server != "vmdisk" && (p.setup.Server != "none" || p.client != spec.ClientHost) {
		p.add("filters need server=vmdisk, or host clients without a server")
	}
	for i := range max(p.nodes, 0) {
		if _, err := filtersFor(p.setup.Filters, nodeName(i)); err != nil {
			p.add("%v", err)
		}
	}
}

func (p *preflight) hostScheduler(ctx context.Context) {
	name := p.setup.HostScheduler
	if name == "default" || name == "" {
		return
	}
	p.root("host-scheduler")
	var devices []string
	switch {
	case p.kind == "device":
		for path := range strings.SplitSeq(p.arg, ";") {
			if real, err := filepath.EvalSymlinks(path); err == nil {
				devices = append(devices, filepath.Base(real))
			}
		}
	case p.kind == "loop" || slices.Contains(fileBackings, p.kind) && p.setup.HostFS != here:
		devices = []string{"loop0"}
	default:
		p.add("host-scheduler is of a block device: backing=loop, backing=device or a host-fs of its own")
	}
	for _, d := range devices {
		if p.offers(d, name) {
			continue
		}
		// A module that is loaded now is offered at once, by every device.
		module := map[string]string{"kyber": "kyber-iosched"}[name]
		if module == "" {
			module = name
		}
		if !p.host.module(ctx, module) || !p.offers(d, name) {
			p.add("this kernel has no scheduler %s for %s: modprobe %s, or another kernel", name, d, module)
		}
	}
}

func (p *preflight) offers(device, name string) bool {
	list, err := p.host.schedulers(device)
	return err == nil && slices.Contains(list, name)
}

func (p *preflight) vhostSCSI(ctx context.Context) {
	if p.client != spec.ClientGuest || p.setup.Device != "vhost-scsi" {
		return
	}
	p.root("device=vhost-scsi")
	if !slices.Contains([]string{"loop", "lvm", "lvm-snapshot", "lvm-thin", "zvol", "zvol-clone", "device"}, p.kind) || p.setup.Server != "none" {
		p.add("device=vhost-scsi needs a block device below, without a server: backing=loop")
	}
	for _, m := range []string{"configfs", "target_core_mod", "target_core_iblock", "vhost_scsi"} {
		if !p.host.module(ctx, m) {
			p.add("this kernel has no vhost-scsi (modules target_core_mod, target_core_iblock, vhost_scsi): boot one that has")
			return
		}
	}
	if !p.host.exists(configFS) {
		p.add("%s is not there: mount -t configfs configfs /sys/kernel/config", configFS)
	}
}

// space compares what is needed with what is free.
func (p *preflight) space(dir string, disk, mem int64) {
	if free, err := p.host.free(dir); err != nil {
		p.add("%v", err)
	} else if disk > free {
		p.add("%s has %s free and the disks need up to %s: fewer nodes (--set nodes=N), smaller disks (--set disk=SIZE) or jobs (--set size=SIZE), or another folder (--work DIR)", dir, sizeText(free), sizeText(disk))
	}
	if mem <= 0 {
		return
	}
	if free, err := p.host.memory(); err != nil {
		p.add("%v", err)
	} else if mem > free {
		p.add("the host has %s of memory free and the disks need up to %s: fewer nodes (--set nodes=N), or smaller disks (--set disk=SIZE)", sizeText(free), sizeText(mem))
	}
}
