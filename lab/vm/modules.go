package vm

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Modules of the kernel by what asks for them. Which a guest loads matters: xfs
// alone takes an emulated guest 1.7 s.
var (
	deviceModules = map[string][]string{
		virtioBlk: {"virtio_blk"}, nvmeUserspace: {"virtio_blk"}, vhostUserBlk: {"virtio_blk"},
		virtioSCSI: {"virtio_scsi", "sd_mod"}, vhostSCSI: {"virtio_scsi", "sd_mod"},
		nvme: {"nvme"}, vfioPCI: {"nvme"},
	}
	schedulerModules = map[string]string{"mq-deadline": "mq_deadline", "bfq": "bfq", "kyber": "kyber_iosched"}
	// crc32c_generic comes first: libcrc32c finds no algorithm without it.
	fileSystemModules = map[string][]string{
		"none": nil, "ext4": {"crc32c_generic", "ext4"}, "xfs": {"crc32c_generic", "xfs"},
		"": {"crc32c_generic", "ext4", "xfs"},
	}
	// imageModules: the root file system of an image may be any of these.
	imageModules = []string{"virtio_blk", "crc32c_generic", "ext4", "xfs", "btrfs"}
)

// optional: without it a guest works, with less.
var optional = []string{vsockModule, "crc32c_generic", "pvpanic_pci", "btrfs", "xfs", "ext4"}

func ideModules(machine string) []string {
	if machine == machineQ35 {
		return []string{"ahci", "sd_mod"}
	}
	return piixModules
}

var piixModules = []string{"ata_piix", "sd_mod"}

// wanted are the modules for c, those of the bus first.
func wanted(c Config) []string {
	list := []string{"virtio_pci", "virtio_console", "pvpanic_pci"}
	if c.Guest.Machine == machineMicroVM {
		list = []string{"virtio_mmio", "virtio_console"}
	}
	if c.vsock.port != 0 || c.Guest.Channel == channelVsock {
		list = append(list, vsockModule)
	}
	if c.Setup.Device == ide {
		list = append(list, ideModules(c.Guest.Machine)...)
	}
	list = append(list, deviceModules[c.Setup.Device]...)
	if c.Guest.Image != "" {
		list = append(list, imageModules...)
	}
	list = append(list, fileSystemModules[c.FileSystem]...)
	if module := schedulerModules[c.Setup.GuestScheduler]; module != "" {
		list = append(list, module)
	}
	return distinct(list)
}

func distinct(names []string) []string {
	var list []string
	for _, name := range names {
		if !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list
}

// essential are those of the names without which the guest cannot do its part.
func essential(c Config, names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		asked := name == c.FileSystem || name == vsockModule && c.Guest.Channel == channelVsock
		return slices.Contains(optional, name) && !asked
	})
}

// guestModules resolves the modules for c, or says which essential one the
// kernel lacks.
func guestModules(k kernel, c Config) ([]string, error) {
	names := wanted(c)
	files, lacks, err := k.load(names)
	if err != nil {
		return nil, err
	}
	if slices.Contains(lacks, "ahci") { // see argv.ide
		names = append(slices.DeleteFunc(names, func(n string) bool { return n == "ahci" }), piixModules...)
		if files, lacks, err = k.load(names); err != nil {
			return nil, err
		}
	}
	if lacks = essential(c, lacks); len(lacks) > 0 {
		return nil, fmt.Errorf("kernel %s has no %s, which device=%s on machine %s with guest-scheduler=%s, channel=%s and file system %q needs: set guest.kernel to one that has, such as Debian's linux-image-amd64",
			k.version, strings.Join(lacks, ", "), c.Setup.Device, c.Guest.Machine, c.Setup.GuestScheduler, cmp.Or(c.Guest.Channel, channelAuto), c.FileSystem)
	}
	return files, nil
}
