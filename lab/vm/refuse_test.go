package vm

import (
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/lab/spec"
)

// refusals are combinations that QEMU would refuse in its own words, or in which
// something asked for would have no effect.
var refusals = []struct {
	change func(*Config)
	want   string
}{
	{func(c *Config) { c.Name = "a,b" }, `guest a,b: guest name "a,b": want letters, digits, dots, underscores, dashes`},
	{func(c *Config) { c.Guest.Machine = "virt" }, `machine "virt": want pc, q35 or microvm`},
	{func(c *Config) { c.Accel = "auto" }, `accelerator "auto": want kvm or tcg`},
	{func(c *Config) { c.Guest.CPUs = 0 }, "guest with 0 CPUs: want 1 or more"},
	{func(c *Config) { c.Guest.Memory = 32 << 20 }, "guest with 33554432 bytes of memory: want 64 MiB or more"},
	{func(c *Config) { c.Kit = nil }, "boots a kernel, but no kit was made"},
	{func(c *Config) { c.Guest.Boot = "image" }, "boots its image, but none is given: set guest.image"},
	{func(c *Config) {
		c.Guest.Boot, c.Guest.Image, c.Guest.ImageFormat, c.Guest.Machine = "image", "/root.raw", "raw", "microvm"
	}, "machine microvm has no firmware that boots an image: use boot: kernel, or machine pc or q35"},
	{func(c *Config) { c.Guest.Boot = "bios" }, `boot "bios": want kernel or image`},
	{func(c *Config) { c.Guest.Channel = "tcp" }, `channel "tcp": want auto, serial or vsock`},
	{func(c *Config) { c.Guest.Image = "/root.img" }, `guest image /root.img has format "": want raw or qcow2, a format is never guessed`},
	{func(c *Config) { c.Setup.NUMA = "0" }, `numa="0": want off, or the numbers of the CPUs' and the memory's node such as 0:1`},
	{func(c *Config) { c.Setup.NUMA = "0:-1" }, `numa="0:-1": want off`},
	{func(c *Config) { c.Setup.NUMA = "a:b" }, `numa="a:b": want off`},

	{func(c *Config) { c.Setup.Device = "floppy" }, `device "floppy": want virtio-blk, virtio-scsi, ide, nvme, vhost-user-blk, vhost-scsi, nvme-userspace or vfio-pci`},
	{func(c *Config) { c.Setup.Device = vhostUserBlk }, `device=vhost-user-blk needs a disk by vhost-user, this one is by "file": choose another backing, server or device`},
	{func(c *Config) { c.Setup.Device = vhostSCSI }, `device=vhost-scsi needs a disk by vhost-scsi, this one is by "file"`},
	{func(c *Config) { c.Setup.Device = vfioPCI }, `device=vfio-pci needs a disk by vfio, this one is by "file"`},
	{func(c *Config) { c.Setup.Device = nvmeUserspace }, `device=nvme-userspace needs a disk by nvme, this one is by "file"`},
	{func(c *Config) { c.Disk = vhostUser }, "a disk by vhost-user cannot be device=virtio-blk"},
	{func(c *Config) { c.Disk = vhostWWPN }, "a disk by vhost-scsi cannot be device=virtio-blk"},
	{func(c *Config) { c.Disk = vfio }, "a disk by vfio cannot be device=virtio-blk"},
	{func(c *Config) { c.Disk.Driver = "ftp" }, `disk by "ftp": want file, host_device, nbd, iscsi or nvme`},
	{func(c *Config) { c.Disk.Path = "/data/\xff.img" }, "QEMU takes only names in UTF-8"},

	{func(c *Config) { c.Setup.Device, c.Setup.IOThread = ide, true }, "device=ide has no iothread: set iothread=off, or device=virtio-blk or virtio-scsi"},
	{func(c *Config) { c.Setup.Device, c.Setup.IOThread = nvme, true }, "device=nvme has no iothread"},
	{func(c *Config) { c.Setup.PollMaxNS = 0 }, "poll-max-ns=0 is a property of an iothread: set iothread=on"},
	{func(c *Config) { c.Setup.Queues = -1 }, "queues=-1: want 1 to 1024, or 0 for QEMU's default"},
	{func(c *Config) { c.Setup.Queues = 1025 }, "queues=1025: want 1 to 1024"},
	{func(c *Config) { c.Setup.Device, c.Setup.Queues = ide, 1 }, "device=ide has no queues to set: leave queues out"},
	{func(c *Config) { c.Setup.Device, c.Disk, c.Setup.Queues = vfioPCI, vfio, 2 }, "device=vfio-pci has no queues to set"},
	{func(c *Config) { c.Guest.Machine, c.Setup.Device = "microvm", ide }, "machine microvm has no IDE: use machine pc or q35, or another device"},

	{on("microvm", threaded(virtioBlk, rawFile, -1)), "machine microvm has iothreads only with KVM: use machine pc or q35, or iothread=off"},

	{func(c *Config) { c.Setup.Cache = "fast" }, `cache "fast": want writeback, none, writethrough, directsync or unsafe`},
	{func(c *Config) { c.Setup.AIO = "posix" }, `aio "posix": want threads, native or io_uring`},
	{func(c *Config) { c.Setup.AIO, c.Setup.Cache = "native", "writeback" }, "aio=native cannot be combined with cache=writeback: it needs cache=none or directsync"},
	{func(c *Config) { c.Disk.Format = "" }, `the disk's format is "": want raw, qcow2 or luks, a format is never guessed`},
	{func(c *Config) { c.Setup.L2Cache = 1 << 20 }, "l2-cache-size is of format=qcow2, this disk is raw"},
	{func(c *Config) { c.Disk.Format, c.Disk.Size = "qcow2", 1<<20 }, "a qcow2 image has a size of its own"},
	{func(c *Config) { c.Disk.Format = "luks" }, "a LUKS disk needs a key file, none is given"},

	{iscsiURL("http://host/target/0"), `iSCSI disk "http://host/target/0": not such a URL: want iscsi://HOST[:PORT]/TARGET/LUN`},
	{iscsiURL("iscsi:///target/0"), "not such a URL"},
	{iscsiURL("iscsi://host/target"), "no target and unit number"},
	{iscsiURL("iscsi://host//0"), "no target and unit number"},
	{iscsiURL("iscsi://host/target/x"), "no target and unit number"},
	{iscsiURL("iscsi://host/target/70000"), "no target and unit number"},
	{iscsiURL("iscsi://me@host/target/0"), "a login is not supported"},
}

func iscsiURL(u string) func(*Config) {
	return func(c *Config) { c.Disk = spec.Source{Driver: "iscsi", URL: u, Format: "raw"} }
}

// TestRefusals: each is one line that names the guest and says what to change.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, r := range refusals {
		c := plain()
		r.change(&c)
		words, err := Argv(c)
		if err == nil || !strings.Contains(err.Error(), r.want) || !strings.HasPrefix(err.Error(), "guest "+c.Name+": ") {
			t.Errorf("%v, %v; want %q", words, err, r.want)
			continue
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%q is more than a line", err)
		}
	}
}
