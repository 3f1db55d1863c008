package spec

// Clients of an experiment.
const (
	// ClientGuest: every node is a virtual machine.
	ClientGuest = "guest"
	// ClientHost: every node is a process of this host that uses its disk
	// directly, so that back ends compare honestly where no KVM is.
	ClientHost = "host"
)

// Spec is an experiment, checked and complete: defaults are filled in.
type Spec struct {
	Name, Title, Summary string
	// Client is ClientGuest or ClientHost.
	Client string
	// Nodes run at the same time, each with a disk of its own. 1..26.
	Nodes int
	// Repeats of every cell, 1 or more.
	Repeats   int
	Guest     Guest
	Disk      Disk
	Workloads []Workload
	// Sweeps are the tables of the experiment, each a matrix of its own. A file
	// with "axes" and without "sweeps" has one, named like the experiment.
	Sweeps []Sweep
	// Options are fio options that win over every workload's own, NAME=VALUE; what
	// --set gives that is neither a field nor an axis.
	Options []string
	// Fixed are axes with one value in all sweeps: the file's "set", and --set's.
	Fixed []Fixed
	// Devices are what backing=device stands for: block devices of the user, or PCI
	// addresses for devices of guests that take one. Their content is lost.
	Devices []string

	at      map[string]Pos // where fields were given, by path, for messages
	changed bool           // by Set
	source  string         // what Parse read
	sets    []string       // what Set changed, in order
}

// Guest is the virtual machine of each node.
type Guest struct {
	Memory int64 // bytes
	CPUs   int
	// Machine is QEMU's: pc, q35 or microvm.
	Machine string
	// Accel is auto (KVM where a probe guest boots with it, else TCG), kvm or tcg.
	Accel string
	// Kernel is the path of a kernel image, or auto: the host's newest with modules.
	Kernel string
	// Image is a raw or qcow2 disk image that holds a root file system, "" for
	// none. It is never written to.
	Image, ImageFormat string
	// Boot is kernel (the lab's kernel and initramfs, with the vmdisk binary as
	// init, and Image's root only looked into for fio) or image (the image boots by
	// itself and starts `vmdisk lab agent`).
	Boot string
	// Channel to the agent in the guest: serial (a virtio-serial port), vsock, or auto:
	// vsock where the host has it.
	Channel string
	// Engine runs the workloads: vmdisk (the built-in engine) or fio (Image's, or
	// the host's for host clients).
	Engine string
}

// Disk is what each node gets.
type Disk struct {
	Size int64 // bytes, virtual
	// Data is how many bytes of the golden disk, which the backings clone or copy,
	// hold data.
	Data int64
	// FileSystem on the disk: none (workloads use the device), ext4 or xfs.
	FileSystem string
}

// Workload is one fio job file.
type Workload struct {
	Name, Title string
	// JobFile is its text. Without a filename jobs use the node's disk, or with a
	// file system files on it.
	JobFile string
	// Precondition is none, fill (every block written once), or steady (filled
	// twice, then written until the rate is steady).
	Precondition string
	// Metric decides which cell of a sweep is best: iops, bw or read_p99. "": IOPS, or
	// from blocks of 64 KiB on bandwidth.
	Metric string
	Pos    Pos

	job jobOrigin
}

// Sweep is one matrix: every combination of the values of its axes, with every
// one of its workloads.
type Sweep struct {
	Name, Title string
	// Text says what the sweep shows; it goes into the report.
	Text      string
	Client    string // "" is the experiment's
	Nodes     int    // 0 is the experiment's
	Workloads []string
	Axes      []Axis
	// Fixed are axes with one value in this sweep; they win over the experiment's.
	Fixed []Fixed
	// Exclude are combinations that are left out.
	Exclude []map[string]string
	Options []string // fio options, NAME=VALUE; they win over the experiment's
	Pos     Pos
}

// Axis is a name and its values in their shortest form.
type Axis struct {
	Name   string
	Values []string
	Pos    Pos
}

// Fixed is an axis that is not varied, with its value in its shortest form.
type Fixed struct {
	Axis, Value string
	Pos         Pos
}

// Cell is one combination: what is measured Repeats times.
type Cell struct {
	// ID is stable between runs of the same file: "SWEEP/WORKLOAD/axis=value,…" of
	// the axes that the sweep varies.
	ID       string
	Sweep    string
	Workload string
	Client   string
	Nodes    int
	// Varied are the axes of the sweep with this cell's values, in the file's order.
	Varied []Value
	Setup  Setup
	// FileSystem is what the workload finds on its disk: none, or the name of what is
	// mounted for it. Host clients use the disk itself, whatever is on it.
	FileSystem string
	// Options are fio options that win over the workload's own, NAME=VALUE, each name
	// once; those of the axes bs, iodepth, numjobs and rw are among them.
	Options []string
	// Impossible says why the combination cannot be, on whatever host; "" if it can.
	// Such a cell is listed and never run.
	Impossible string
}

// Value is one axis with one value.
type Value struct {
	Axis  string `json:"axis"`
	Value string `json:"value"`
}

// Setup is a value for every axis. Its zero value is not valid; see Defaults.
// The axis names are in the comments.
type Setup struct {
	// Backing is where a node's disk lies ("backing"):
	//   copy       a file with a copy of the golden disk (sparse where it is)
	//   sparse     a new sparse file; falloc: reserved; full: written with zeros
	//   reflink    a file that shares the golden's blocks (FICLONE)
	//   overlay    a qcow2 overlay over the golden disk, made by qemu-img
	//   loop       a loop block device over a copy of the golden disk
	//   tmpfs      a file with a copy of the golden disk on a RAM file system
	//   lvm        an LVM volume with a copy; lvm-snapshot, lvm-thin: clones
	//   zvol       a ZFS volume with a copy; zvol-clone: a clone of a snapshot
	//   device:PATH  a block device that the user gives (its content is lost); with
	//              several nodes a list with ";". In files also without PATH: as many
	//              of Spec.Devices as there are nodes. A cell's Setup has the PATH.
	//   url:URL    any disk URL of vmdisk, host clients only
	Backing string
	HostFS  string // "host-fs": here, xfs, ext4, btrfs: the file system that files lie on
	// Format of the image: raw, qcow2 ("format").
	Format        string
	ClusterSize   int64  // "cluster-size" bytes, 0: the format's default
	ExtendedL2    bool   // "extended-l2"
	L2Cache       int64  // "l2-cache-size" bytes, 0: QEMU's default
	Preallocation string // "preallocation": off, metadata, falloc, full
	Pass          string // "pass": first (a new disk), second (each block was written once)
	// Server is the process between disk and QEMU (or host client): none, vmdisk,
	// qemu-nbd, nbdkit (NBD on a unix socket), qsd (qemu-storage-daemon,
	// vhost-user-blk), qsd-nbd, iscsi, luks (QEMU's LUKS layer) ("server").
	Server string
	// Filters are of `vmdisk serve`, outermost first, separated by spaces; with
	// server=vmdisk, or host clients without a server ("filter"). NODE@FILTER
	// is for one node (a, b, …) alone.
	Filters string
	// Device of the guest: virtio-blk, virtio-scsi, ide, nvme, vhost-user-blk,
	// vhost-scsi, nvme-userspace (nvme:// by QEMU), vfio-pci ("device").
	Device         string
	IOThread       bool   // "iothread"
	PollMaxNS      int64  // "poll-max-ns", -1: QEMU's default
	Queues         int    // "queues", 0: QEMU's default
	Cache          string // "cache": writeback none writethrough directsync unsafe
	AIO            string // "aio": threads native io_uring
	GuestScheduler string // "guest-scheduler": default none mq-deadline bfq kyber
	HostScheduler  string // "host-scheduler": the same, of the loop device below
	NUMA           string // "numa": off, or node numbers CPU:MEMORY such as 0:1
	// BlockSize, Depth, Jobs and Mode replace the jobs' bs, iodepth, numjobs and
	// rw where not empty ("bs", "iodepth", "numjobs", "rw").
	BlockSize, Depth, Jobs, Mode string
}

// Defaults is what an axis is that nobody mentions.
func Defaults() Setup {
	return Setup{
		Backing: "copy", HostFS: "here", Format: "raw", Preallocation: "off", Pass: "first", Server: "none",
		Device: "virtio-blk", PollMaxNS: -1, Cache: "none", AIO: "threads",
		GuestScheduler: "default", HostScheduler: "default", NUMA: "off",
	}
}

// Source is how QEMU reaches a disk.
type Source struct {
	// Driver is QEMU's protocol driver: file, host_device, nbd, iscsi, nvme; or
	// vhost-user (a socket), vhost-scsi (a WWPN), vfio (a PCI address).
	Driver string
	// Path of a file or device; the PCI address for nvme and vfio; the WWPN.
	Path string
	// Socket is a unix socket (nbd, vhost-user).
	Socket string
	// Export is the NBD export's name.
	Export string
	// URL of an iSCSI target.
	URL string
	// Size is how many bytes from its start are the disk's, or the LUKS image's; 0: all.
	Size int64
	// Format is the image format over it: raw, qcow2, luks.
	Format string
	// KeyFile holds the passphrase of a LUKS image.
	KeyFile string
	// Backing names an overlay's backing file, which QEMU must find by itself.
	Backing string
}
