package vm

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/vmdisk/vmdisk/lab/spec"
)

// Serial numbers of a guest's disks, where the device has one. A vhost-user,
// vhost-scsi or vfio device brings its own: the guest's disk is then the first one
// that is not ImageSerial.
const (
	DataSerial  = "vmdisk-data"
	ImageSerial = "vmdisk-image"
)

// Accelerators, as Config has them.
const (
	AccelKVM = "kvm"
	AccelTCG = "tcg"
)

// What Guest.Boot may be.
const (
	bootKernel = "kernel"
	bootImage  = "image"
)

// Machines.
const (
	machinePC      = "pc"
	machineQ35     = "q35"
	machineMicroVM = "microvm"
)

// Devices of the "device" axis.
const (
	virtioBlk     = "virtio-blk"
	virtioSCSI    = "virtio-scsi"
	ide           = "ide"
	nvme          = "nvme"
	vhostUserBlk  = "vhost-user-blk"
	vhostSCSI     = "vhost-scsi"
	nvmeUserspace = "nvme-userspace"
	vfioPCI       = "vfio-pci"
)

// Config is one guest to boot.
type Config struct {
	// Name of the node; letters, digits, ".", "_", "-".
	Name string
	// Dir is private to this guest and exists: its sockets and console lie there. Its
	// path is short enough for unix sockets; see Boot.
	Dir   string
	Guest spec.Guest
	Setup spec.Setup
	// Disk is the guest's disk, as store prepared it.
	Disk spec.Source
	// Accel is AccelKVM or AccelTCG: Guest.Accel, decided.
	Accel string
	// Kit is what the guest boots; nil if Guest.Boot is image.
	Kit *Kit
	// FileSystem is what the guest mounts of its disk: none, ext4 or xfs. Empty: not
	// known, modules for all are loaded, which takes an emulated guest 2 s.
	FileSystem string
	// Timeout of Boot. 0: 3 minutes, 1 minute with KVM.
	Timeout time.Duration

	vsock vsock // Boot finds one
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

const minMemory = 64 << 20

// check refuses what QEMU would refuse, and what it would silently ignore: an axis
// value without effect makes two equal cells that are reported as different.
func (c Config) check() error {
	for _, check := range []func(Config) error{checkGuest, checkSource, checkDevice, checkImage, checkNode} {
		if err := check(c); err != nil {
			return err
		}
	}
	return nil
}

func checkGuest(c Config) error {
	g := c.Guest
	switch {
	case !nameForm.MatchString(c.Name):
		return fmt.Errorf("guest name %q: want letters, digits, dots, underscores, dashes", c.Name)
	case !slices.Contains([]string{machinePC, machineQ35, machineMicroVM}, g.Machine):
		return fmt.Errorf("machine %q: want pc, q35 or microvm", g.Machine)
	case c.Accel != AccelKVM && c.Accel != AccelTCG:
		return fmt.Errorf("accelerator %q: want kvm or tcg", c.Accel)
	case g.CPUs < 1:
		return fmt.Errorf("guest with %d CPUs: want 1 or more", g.CPUs)
	case g.Memory < minMemory:
		return fmt.Errorf("guest with %d bytes of memory: want %d MiB or more", g.Memory, minMemory>>20)
	case g.Boot == bootKernel && c.Kit == nil:
		return fmt.Errorf("guest %s boots a kernel, but no kit was made", c.Name)
	case g.Boot == bootImage && g.Image == "":
		return fmt.Errorf("guest %s boots its image, but none is given: set guest.image", c.Name)
	case g.Boot == bootImage && g.Machine == machineMicroVM:
		return fmt.Errorf("machine microvm has no firmware that boots an image: use boot: kernel, or machine pc or q35")
	case g.Boot != bootKernel && g.Boot != bootImage:
		return fmt.Errorf("boot %q: want kernel or image", g.Boot)
	case !slices.Contains([]string{"", channelAuto, channelSerial, channelVsock}, g.Channel):
		return fmt.Errorf("channel %q: want auto, serial or vsock", g.Channel)
	}
	_, _, _, err := placement(c.Setup.NUMA)
	return err
}

// sources are the drivers that a device can be attached to; the others take any
// that QEMU's block layer opens.
var sources = map[string]string{
	vhostUserBlk: "vhost-user", vhostSCSI: "vhost-scsi", vfioPCI: "vfio", nvmeUserspace: "nvme",
}

func checkSource(c Config) error {
	want, special := sources[c.Setup.Device]
	switch {
	case !utf8.ValidString(c.Disk.Path + c.Disk.Socket + c.Disk.Export + c.Disk.Backing):
		// It would go into JSON and come out as another name.
		return fmt.Errorf("disk %q: QEMU takes only names in UTF-8", c.Disk.Path+c.Disk.Socket)
	case special && c.Disk.Driver != want:
		return fmt.Errorf("device=%s needs a disk by %s, this one is by %q: choose another backing, server or device", c.Setup.Device, want, c.Disk.Driver)
	case !special && slices.Contains([]string{"vhost-user", "vhost-scsi", "vfio"}, c.Disk.Driver):
		return fmt.Errorf("a disk by %s cannot be device=%s", c.Disk.Driver, c.Setup.Device)
	}
	return nil
}

// blockless: QEMU only passes the device on, its block layer has no part in it.
func blockless(device string) bool {
	return device == vhostUserBlk || device == vhostSCSI || device == vfioPCI
}

// noMMIOThread: only KVM gives virtio-mmio the eventfds with which an iothread is
// woken.
const noMMIOThread = "machine microvm has iothreads only with KVM: use machine pc or q35, or iothread=off"

func checkDevice(c Config) error {
	s := c.Setup
	if !slices.Contains([]string{virtioBlk, virtioSCSI, ide, nvme, vhostUserBlk, vhostSCSI, nvmeUserspace, vfioPCI}, s.Device) {
		return fmt.Errorf("device %q: want virtio-blk, virtio-scsi, ide, nvme, vhost-user-blk, vhost-scsi, nvme-userspace or vfio-pci", s.Device)
	}
	threaded := s.Device == virtioBlk || s.Device == virtioSCSI || s.Device == nvmeUserspace
	switch {
	case s.IOThread && !threaded:
		return fmt.Errorf("device=%s has no iothread: set iothread=off, or device=virtio-blk or virtio-scsi", s.Device)
	case s.PollMaxNS >= 0 && !s.IOThread:
		return fmt.Errorf("poll-max-ns=%d is a property of an iothread: set iothread=on", s.PollMaxNS)
	case s.Queues < 0 || s.Queues > 1024:
		return fmt.Errorf("queues=%d: want 1 to 1024, or 0 for QEMU's default", s.Queues)
	case s.Queues > 0 && (s.Device == ide || s.Device == vfioPCI):
		return fmt.Errorf("device=%s has no queues to set: leave queues out", s.Device)
	case c.Guest.Machine == machineMicroVM && s.Device == ide:
		return fmt.Errorf("machine microvm has no IDE: use machine pc or q35, or another device")
	case s.IOThread && c.Guest.Machine == machineMicroVM && c.Accel != AccelKVM:
		return errors.New(noMMIOThread)
	}
	return nil
}

func checkImage(c Config) error {
	g := c.Guest
	if g.Image != "" && g.ImageFormat != formatRaw && g.ImageFormat != formatQcow2 {
		return fmt.Errorf("guest image %s has format %q: want raw or qcow2, a format is never guessed", g.Image, g.ImageFormat)
	}
	return nil
}

// placement is a NUMA axis value: the nodes whose CPUs run the guest and whose
// memory it has.
func placement(numa string) (cpu, memory int, on bool, err error) {
	if numa == "" || numa == "off" {
		return 0, 0, false, nil
	}
	c, m, ok := strings.Cut(numa, ":")
	cpu, errCPU := strconv.Atoi(c)
	memory, errMemory := strconv.Atoi(m)
	if !ok || errCPU != nil || errMemory != nil || cpu < 0 || memory < 0 {
		return 0, 0, false, fmt.Errorf("numa=%q: want off, or the numbers of the CPUs' and the memory's node such as 0:1", numa)
	}
	return cpu, memory, true, nil
}
