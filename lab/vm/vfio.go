package vm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/lab/spec"
)

// hostFiles are where a kernel tells of its devices, and where they are.
type hostFiles struct{ sys, dev string }

var theHost = hostFiles{sys: "/sys", dev: "/dev"}

// driverVFIO is the kernel's driver that hands PCI devices to programs.
const driverVFIO = "vfio-pci"

// lacksVFIO says why the PCI devices of a set-up cannot be handed to guests. That
// they exist is checked by who prepares the disks.
func (h hostFiles) lacksVFIO(setup spec.Setup) []string {
	if _, err := os.Stat(filepath.Join(h.dev, "vfio/vfio")); err != nil {
		return []string{"there is no /dev/vfio/vfio: modprobe vfio-pci, on a host with an IOMMU, and bind the device to it"}
	}
	var why []string
	list, _ := strings.CutPrefix(setup.Backing, "device:")
	for address := range strings.SplitSeq(list, ";") {
		if dir := h.pci(strings.ToLower(address)); isFolder(dir) {
			why = append(why, h.lacksGroup(strings.ToLower(address))...)
		}
	}
	return distinct(why)
}

func isFolder(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

func (h hostFiles) pci(address string) string {
	return filepath.Join(h.sys, "bus/pci/devices", address)
}

// lacksGroup is about one device and those that the IOMMU cannot tell from it: a
// group goes to one owner as a whole.
func (h hostFiles) lacksGroup(address string) []string {
	link, err := os.Readlink(filepath.Join(h.pci(address), "iommu_group"))
	if err != nil {
		return []string{fmt.Sprintf("PCI device %s has no IOMMU group: switch the IOMMU on in the firmware, and boot with intel_iommu=on or amd_iommu=on", address)}
	}
	group := filepath.Base(link)
	var why []string
	if driver := h.driver(address); driver != driverVFIO {
		why = append(why, fmt.Sprintf("PCI device %s (IOMMU group %s) is %s: to bind it to vfio-pci, run: %s", address, group, bound(driver), bindVFIO(address)))
	}
	members, err := os.ReadDir(filepath.Join(h.sys, "kernel/iommu_groups", group, "devices"))
	if err != nil {
		return append(why, fmt.Sprintf("IOMMU group %s of PCI device %s: %v", group, address, errors.Unwrap(err)))
	}
	for _, m := range members {
		driver := h.driver(m.Name())
		if m.Name() == address || h.harmless(m.Name(), driver) {
			continue
		}
		why = append(why, fmt.Sprintf("PCI device %s is %s, and is in IOMMU group %s with %s, which goes to the guest as a whole: run: %s", m.Name(), bound(driver), group, address, bindVFIO(m.Name())))
	}
	if len(why) > 0 {
		return why
	}
	file := filepath.Join("vfio", group)
	if err := unix.Access(filepath.Join(h.dev, file), unix.R_OK|unix.W_OK); err != nil {
		why = append(why, fmt.Sprintf("IOMMU group %s of PCI device %s: /dev/%s: %v: run as root, or chown it", group, address, file, err))
	}
	return why
}

// driver that has a PCI device, "" for none.
func (h hostFiles) driver(address string) string {
	link, err := os.Readlink(filepath.Join(h.pci(address), "driver"))
	if err != nil {
		return ""
	}
	return filepath.Base(link)
}

// harmless reports whether the kernel lets a group be used while one of its devices
// has this driver: none, one that does nothing, or that of a bridge.
func (h hostFiles) harmless(address, driver string) bool {
	switch driver {
	case "", driverVFIO, "pci-stub":
		return true
	}
	const bridge = "0x06"
	class, err := os.ReadFile(filepath.Join(h.pci(address), "class"))
	return err == nil && strings.HasPrefix(string(class), bridge)
}

func bound(driver string) string {
	if driver == "" {
		return "bound to no driver"
	}
	return "bound to " + driver
}

// bindVFIO is a command line that takes a device from its driver.
func bindVFIO(address string) string {
	return "modprobe vfio-pci && driverctl set-override " + address + " vfio-pci"
}
