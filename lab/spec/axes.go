package spec

// AxisInfo describes one axis for lists and for the reference.
type AxisInfo struct {
	Name string
	// Values are the closed set or the form of a value.
	Values string
	// Default is what the axis is that nobody mentions.
	Default string
	// GuestOnly: the axis means nothing to host clients.
	GuestOnly bool
	Help      string
}

// Axes lists every axis, in the order of the reference.
func Axes() []AxisInfo {
	defaults := Defaults()
	out := make([]AxisInfo, 0, len(axes))
	for i := range axes {
		a := &axes[i]
		out = append(out, AxisInfo{Name: a.name, Values: a.form, Default: a.get(&defaults), GuestOnly: a.guest, Help: a.help})
	}
	return out
}

// axis is one row of the table of axes, all that is known of it.
type axis struct {
	name, form, help string
	// set reads a value into a setup, get writes it in its shortest form.
	set func(s *Setup, value string) error
	get func(s *Setup) string
	// guest: of the virtual machine or of QEMU.
	guest bool
	// whole: a value may hold commas, so --set takes one and not a list.
	whole bool
	// idle says why a value other than the default does nothing in a combination, "" if
	// it does; nil: it always does.
	idle func(c *combo) string
}

func ofGuest(a axis) axis { a.guest = true; return a }

func when(a axis, idle func(c *combo) string) axis { a.idle = idle; return a }

// axes is the one list of them.
var axes = []axis{
	backingAxis,
	when(choice("host-fs", "file system that the disks' files lie on: the one of the work folder (here), or a new one",
		func(s *Setup) *string { return &s.HostFS }, "here", "xfs", "ext4", "btrfs"), idleHostFS),
	choice("format", "image format; backing=overlay is qcow2 by itself",
		func(s *Setup) *string { return &s.Format }, "raw", "qcow2"),
	when(size("cluster-size", "qcow2 cluster, a power of two",
		func(s *Setup) *int64 { return &s.ClusterSize }, checkCluster), needsQcow2),
	when(switched("extended-l2", "qcow2 with 32 subclusters to a cluster",
		func(s *Setup) *bool { return &s.ExtendedL2 }), needsQcow2),
	when(size("l2-cache-size", "QEMU's cache of qcow2 tables",
		func(s *Setup) *int64 { return &s.L2Cache }, checkCache), idleL2Cache),
	when(choice("preallocation", "how a new image is allocated; metadata is qcow2's alone",
		func(s *Setup) *string { return &s.Preallocation }, "off", "metadata", "falloc", "full"), idlePreallocation),
	choice("pass", "first: the disk is new; second: each block was written once before",
		func(s *Setup) *string { return &s.Pass }, "first", "second"),
	choice("server", "process between the disk and QEMU or the host client: an NBD server on a unix socket, "+
		"qsd (qemu-storage-daemon, vhost-user-blk), an iSCSI target, or QEMU's LUKS layer",
		func(s *Setup) *string { return &s.Server }, "none", "vmdisk", "qemu-nbd", "nbdkit", "qsd", "qsd-nbd", "iscsi", "luks"),
	when(filterAxis, idleFilter),
	ofGuest(choice("device", "what the guest sees; vhost-user-blk takes server=qsd by itself, "+
		"nvme-userspace is QEMU's nvme:// below a virtio-blk",
		func(s *Setup) *string { return &s.Device },
		"virtio-blk", "virtio-scsi", "ide", "nvme", "vhost-user-blk", "vhost-scsi", "nvme-userspace", "vfio-pci")),
	when(ofGuest(switched("iothread", "a thread of its own for the device's queues",
		func(s *Setup) *bool { return &s.IOThread })), idleIOThread),
	when(ofGuest(pollAxis), idlePoll),
	when(ofGuest(queuesAxis), idleQueues),
	when(choice("cache", "cache mode as QEMU names it; none and directsync bypass the host's page cache",
		func(s *Setup) *string { return &s.Cache }, "writeback", "none", "writethrough", "directsync", "unsafe"), idleCache),
	when(choice("aio", "how QEMU (or a QEMU server, or the host client) does file I/O; native needs cache none or directsync",
		func(s *Setup) *string { return &s.AIO }, "threads", "native", "io_uring"), idleAIO),
	ofGuest(choice("guest-scheduler", "I/O scheduler of the guest's disk",
		func(s *Setup) *string { return &s.GuestScheduler }, schedulers...)),
	when(choice("host-scheduler", "I/O scheduler of the host's block device below: a loop device, or one that is given",
		func(s *Setup) *string { return &s.HostScheduler }, schedulers...), idleHostScheduler),
	ofGuest(numaAxis),
	jobAxis("bs", "block size of the jobs", func(s *Setup) *string { return &s.BlockSize }),
	jobAxis("iodepth", "I/Os in flight of each job", func(s *Setup) *string { return &s.Depth }),
	jobAxis("numjobs", "how often each job runs at the same time", func(s *Setup) *string { return &s.Jobs }),
	jobAxis("rw", "read, write, randread, randwrite, … of the jobs", func(s *Setup) *string { return &s.Mode }),
}

var schedulers = []string{"default", "none", "mq-deadline", "bfq", "kyber"}

// findAxis returns the axis called name.
func findAxis(name string) (*axis, bool) {
	for i := range axes {
		if axes[i].name == name {
			return &axes[i], true
		}
	}
	return nil, false
}

func axisNames() []string {
	names := make([]string, len(axes))
	for i := range axes {
		names[i] = axes[i].name
	}
	return names
}

// shortest returns a value as it is written back: 1024K is 1M, yes is on.
func (a *axis) shortest(value string) (string, error) {
	var s Setup
	if err := a.set(&s, value); err != nil {
		return "", err
	}
	return a.get(&s), nil
}
