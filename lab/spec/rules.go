package spec

import (
	"fmt"
	"slices"
	"strings"
)

// combo is one combination of values of the axes, while it is judged.
type combo struct {
	Setup
	client, machine string
	nodes           int
	// given are the axes that somebody gave a value.
	given map[string]bool
}

func (c *combo) guest() bool { return c.client == ClientGuest }

func (c *combo) among(value string, list ...string) bool { return slices.Contains(list, value) }

// backing is the kind of it, without its argument.
func (c *combo) backing() string {
	kind, _, _ := strings.Cut(c.Backing, ":")
	return kind
}

// passed devices are those for which QEMU opens no file of the host.
func (c *combo) passed() bool {
	return c.guest() && c.among(c.Device, "vhost-scsi", "vfio-pci", "nvme-userspace")
}

// wantsPCI: QEMU or the guest drives the device itself.
func (c *combo) wantsPCI() bool { return c.guest() && c.among(c.Device, "vfio-pci", "nvme-userspace") }

// blockBacking: what is below is a block device of the host.
func (c *combo) blockBacking() bool {
	return c.among(c.backing(), "loop", "device", "lvm", "lvm-snapshot", "lvm-thin", "zvol", "zvol-clone")
}

// opener is who opens the image: vmdisk (a host client), qemu (the guest's), or the
// server; "" if nobody opens one.
func (c *combo) opener() string {
	switch {
	case c.passed() || c.Server == "iscsi":
		return ""
	case c.Server == "luks", c.Server == "none" && c.guest():
		return "qemu"
	case c.Server == "none":
		return "vmdisk"
	}
	return c.Server
}

// imply fills in what follows from given values where nothing else was given.
func (c *combo) imply() {
	if c.Backing == "overlay" && !c.given["format"] {
		c.Format = "qcow2"
	}
	if c.guest() && c.Device == "vhost-user-blk" && !c.given["server"] {
		c.Server = "qsd"
	}
	if c.guest() && c.Server == "qsd" && !c.given["device"] {
		c.Device = "vhost-user-blk"
	}
}

// Why a value other than the default does nothing, by axis; see axis.idle.

func idleHostFS(c *combo) string {
	if c.among(c.backing(), "copy", "sparse", "falloc", "full", "reflink", "overlay", "loop") {
		return ""
	}
	return "host-fs is of files, and backing=" + c.backing() + " has none"
}

func needsQcow2(c *combo) string {
	if c.Format == "qcow2" {
		return ""
	}
	return "only format=qcow2 has it"
}

func idleL2Cache(c *combo) string {
	if why := needsQcow2(c); why != "" {
		return why
	}
	if c.among(c.opener(), "qemu", "qsd", "qsd-nbd", "qemu-nbd") {
		return ""
	}
	return "only QEMU has such a cache"
}

func idlePreallocation(c *combo) string {
	switch {
	case c.among(c.backing(), "copy", "sparse"):
		return ""
	case c.backing() == "overlay" && c.ExtendedL2:
		return ""
	case c.backing() == "overlay":
		return "an overlay can be preallocated with extended-l2=on only"
	}
	return "images are preallocated with backing=copy and backing=sparse only"
}

func idleFilter(c *combo) string {
	if c.opener() == "vmdisk" {
		return ""
	}
	return "filters need server=vmdisk, or host clients without a server"
}

func idleIOThread(c *combo) string {
	if c.among(c.Device, "virtio-blk", "virtio-scsi", "nvme-userspace") {
		return ""
	}
	return "device=" + c.Device + " has no iothread; virtio-blk and virtio-scsi have"
}

func idlePoll(c *combo) string {
	switch {
	case idleIOThread(c) != "":
		return idleIOThread(c)
	case !c.IOThread:
		return "it is a property of an iothread: iothread=on"
	}
	return ""
}

func idleQueues(c *combo) string {
	if c.among(c.Device, "ide", "vfio-pci") {
		return "device=" + c.Device + " has no queues to set"
	}
	return ""
}

func idleCache(c *combo) string {
	switch {
	case c.opener() == "" && c.Server == "iscsi":
		return "the iSCSI target has its own cache"
	case c.opener() == "":
		return "with device=" + c.Device + " QEMU opens no file of the host"
	}
	return ""
}

func idleAIO(c *combo) string {
	switch {
	case idleCache(c) != "":
		return idleCache(c)
	case c.Server == "nbdkit":
		return "server=nbdkit has one kind of file I/O"
	}
	return ""
}

func idleHostScheduler(c *combo) string {
	if c.among(c.backing(), "loop", "device") && !c.wantsPCI() {
		return ""
	}
	return "it is of a block device: backing=loop or backing=device"
}

// idle returns why the axis does nothing in the combination, "" if it does.
func (c *combo) idle(a *axis) string {
	switch {
	case a.guest && !c.guest():
		return a.name + " is of guests, and the clients are host processes"
	case a.idle == nil:
		return ""
	}
	return a.idle(c)
}

// conflict returns why the combination cannot be, "" if it can. Each function
// knows the conflicts of one thing.
func (c *combo) conflict() string {
	for _, f := range []func(*combo) string{
		conflictBacking, conflictFormat, conflictServer, conflictDevice, conflictCache, conflictFilters,
	} {
		if why := f(c); why != "" {
			return why
		}
	}
	return ""
}

func conflictBacking(c *combo) string {
	switch {
	case c.backing() == "url" && c.guest():
		return "backing=url is for host clients: --set client=host"
	case c.backing() == "url" && !c.among(c.Server, "none", "vmdisk"):
		return "backing=url is opened by vmdisk: server=none or server=vmdisk"
	case c.Backing == "overlay" && c.Format != "qcow2":
		return "backing=overlay is qcow2: leave format out, or format=qcow2"
	case c.Backing == "reflink" && !c.among(c.HostFS, "here", "xfs", "btrfs"):
		return "backing=reflink needs a file system that can share blocks: host-fs=xfs or host-fs=btrfs"
	}
	return ""
}

func conflictFormat(c *combo) string {
	if c.Format != "qcow2" {
		if c.Preallocation == "metadata" && idlePreallocation(c) == "" {
			return "preallocation=metadata needs format=qcow2"
		}
		return ""
	}
	switch {
	case c.among(c.Backing, "falloc", "full"):
		return "backing=" + c.Backing + " is a raw file: for qcow2, backing=sparse and preallocation=" + c.Backing
	case !c.among(c.Backing, "copy", "sparse", "reflink", "overlay", "tmpfs"):
		return "qcow2 images lie in files: backing=copy, sparse, reflink, overlay or tmpfs"
	case c.among(c.Server, "vmdisk", "nbdkit", "iscsi", "luks"):
		return "server=" + c.Server + " serves raw images only: server=qemu-nbd or server=qsd-nbd"
	case c.opener() == "vmdisk":
		return "host clients open raw images only: --set server=qemu-nbd"
	case c.ExtendedL2 && c.ClusterSize != 0 && c.ClusterSize < 16<<10:
		return "extended-l2=on needs clusters of 16K or more"
	}
	return ""
}

func conflictServer(c *combo) string {
	switch {
	case c.Server == "none":
		return ""
	case c.passed():
		return "device=" + c.Device + " has no server between: server=none"
	case !c.guest() && c.among(c.Server, "qsd", "iscsi", "luks"):
		return "server=" + c.Server + " is for guests: host clients take none, vmdisk, qemu-nbd, nbdkit or qsd-nbd"
	}
	return ""
}

func conflictDevice(c *combo) string {
	pci := strings.HasPrefix(c.Backing, "device:") && pciAddress.MatchString(strings.Split(c.Backing[len("device:"):], ";")[0])
	switch {
	case !c.guest() && pci:
		return "host clients take a block device, not a PCI address"
	case !c.guest():
		return ""
	case c.Device == "vhost-user-blk" && c.Server != "qsd":
		return "device=vhost-user-blk needs server=qsd"
	case c.Server == "qsd" && c.Device != "vhost-user-blk":
		return "server=qsd is reached by device=vhost-user-blk only"
	case c.Device == "vhost-scsi" && !c.blockBacking():
		return "device=vhost-scsi needs a block device below: backing=loop, lvm…, zvol… or device"
	case c.wantsPCI() && c.backing() != "device":
		return "device=" + c.Device + " takes a PCI device of yours: backing=device"
	case c.wantsPCI() && !pci && c.Backing != "device":
		return "device=" + c.Device + " takes a PCI address: backing=device:0000:44:00.0"
	case pci && !c.wantsPCI():
		return "device=" + c.Device + " takes a block device, not a PCI address"
	case c.machine == "microvm" && c.Device == "ide":
		return "machine=microvm has no IDE: --set machine=pc"
	}
	return ""
}

func conflictCache(c *combo) string {
	if idleCache(c) != "" {
		return ""
	}
	direct := c.among(c.Cache, "none", "directsync")
	switch {
	case c.Server == "nbdkit" && direct:
		return "server=nbdkit uses the host's page cache: cache=writeback"
	case c.AIO != "native" || idleAIO(c) != "":
		return ""
	case c.opener() == "vmdisk":
		return "aio=native is QEMU's: aio=io_uring or aio=threads"
	case !direct:
		return "aio=native needs cache=none or cache=directsync"
	}
	return ""
}

// conflictFilters finds filters for nodes that are not there.
func conflictFilters(c *combo) string {
	for w := range strings.FieldsSeq(c.Filters) {
		node, _, ok := strings.Cut(w, "@")
		if ok && len(node) == 1 && int(node[0]-'a') >= c.nodes {
			return fmt.Sprintf("filter %s: there is no node %s, the last one is %c", w, node, 'a'+c.nodes-1)
		}
	}
	return ""
}

// give puts devices of the user in the place of a bare backing=device. It returns
// what is missing, "" if nothing is.
func (c *combo) give(devices []string) string {
	var own []string
	if c.Backing == "device" {
		own = slices.DeleteFunc(slices.Clone(devices), func(d string) bool { return pciAddress.MatchString(d) != c.wantsPCI() })
	} else if list, ok := strings.CutPrefix(c.Backing, "device:"); ok {
		own = strings.Split(list, ";")
	} else {
		return ""
	}
	if len(own) < c.nodes {
		kind, form := "block device", "/dev/PATH"
		if c.wantsPCI() {
			kind, form = "PCI address", "0000:44:00.0"
		}
		return fmt.Sprintf("needs a %s of your own for each node, %d in all and %d given: --set devices=%s,… (what is on it is lost)", kind, c.nodes, len(own), form)
	}
	c.Backing = "device:" + strings.Join(own[:c.nodes], ";")
	return ""
}
