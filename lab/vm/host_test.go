package vm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/lab/spec"
)

// hostOf makes the files of a host; a text that begins with "-> " is where a link
// points to.
func hostOf(t *testing.T, files map[string]string) hostFiles {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(target, path); err != nil {
				t.Fatal(err)
			}
			continue
		}
		write(t, path, []byte(text))
	}
	return hostFiles{sys: filepath.Join(dir, "sys"), dev: filepath.Join(dir, "dev")}
}

// TestLacksNode: nodes without CPUs (memory alone, such as CXL's) and without memory.
func TestLacksNode(t *testing.T) {
	t.Parallel()
	const node = "sys/" + nodeFolder
	h := hostOf(t, map[string]string{
		node + "/has_cpu": "0-1\n", node + "/has_memory": "0,2\n",
		node + "/node0/cpulist": "0-3\n", node + "/node1/cpulist": "4-7\n", node + "/node2/cpulist": "\n",
	})
	for numa, want := range map[string]string{
		"off": "", "0:0": "", "1:2": "", "0:2": "", "1:0": "",
		"0:1": "NUMA node 1 of this host has no memory: those that have are 0,2: set numa=CPU:MEMORY",
		"2:0": "NUMA node 2 of this host has no CPUs: those that have are 0-1: set numa=CPU:MEMORY",
		"2:1": "NUMA node 2 of this host has no CPUs: those that have are 0-1: set numa=CPU:MEMORY | NUMA node 1 of this host has no memory: those that have are 0,2: set numa=CPU:MEMORY",
		"5:0": "this host has no NUMA node 5: those with CPUs are 0-1",
		"0:9": "this host has no NUMA node 9: those with memory are 0,2",
	} {
		if got := oneLineEach(t, h.lacksNode(numa)); got != want {
			t.Errorf("numa=%s: %q, want %q", numa, got, want)
		}
	}
	if set, err := h.nodeCPUs("1:0"); err != nil || set.Count() != 4 || !set.IsSet(7) {
		t.Errorf("CPUs of node 1: %v, %v", set, err)
	}
	_, err := h.nodeCPUs("2:0")
	wantError(t, err, "NUMA node 2 has no CPUs")
	_, err = h.nodeCPUs("5:0")
	wantError(t, err, "NUMA node 5: ")
	if got := oneLineEach(t, hostOf(t, nil).lacksNode("0:0")); !strings.Contains(got, "this host has no NUMA node 0: those with CPUs are not known") {
		t.Errorf("a host that tells nothing: %q", got)
	}
}

// TestLacksVFIO: what a device and its IOMMU group lack to go to a guest.
func TestLacksVFIO(t *testing.T) {
	t.Parallel()
	const pci = "sys/bus/pci/devices/0000:"
	device := func(files map[string]string, address, group, driver string) {
		files[pci+address+"/class"] = "0x010802\n"
		if driver != "" {
			files[pci+address+"/driver"] = "-> ../../../bus/pci/drivers/" + driver
		}
		if group != "" {
			files[pci+address+"/iommu_group"] = "-> ../../../kernel/iommu_groups/" + group
			files["sys/kernel/iommu_groups/"+group+"/devices/0000:"+address] = "-> ../../../../bus/pci/devices/0000:" + address
		}
	}
	files := map[string]string{"dev/vfio/vfio": "", "dev/vfio/1": "", "dev/vfio/2": ""}
	device(files, "01:00.0", "1", "vfio-pci")
	device(files, "02:00.0", "2", "vfio-pci") // beside a bridge and a device without driver
	device(files, "02:00.1", "2", "")
	device(files, "02:00.2", "2", "pcieport")
	files[pci+"02:00.2/class"] = "0x060400\n"
	device(files, "03:00.0", "3", "nvme")
	device(files, "04:00.0", "4", "vfio-pci")
	device(files, "04:00.1", "4", "ahci")
	device(files, "05:00.0", "5", "")
	device(files, "06:00.0", "", "vfio-pci")
	device(files, "07:00.0", "7", "vfio-pci") // without a file in /dev/vfio
	h := hostOf(t, files)
	for devices, want := range map[string]string{
		"0000:01:00.0":              "",
		"0000:02:00.0":              "",
		"0000:01:00.0;0000:02:00.0": "",
		"0000:03:00.0":              "PCI device 0000:03:00.0 (IOMMU group 3) is bound to nvme: to bind it to vfio-pci, run: modprobe vfio-pci && driverctl set-override 0000:03:00.0 vfio-pci",
		"0000:04:00.0":              "PCI device 0000:04:00.1 is bound to ahci, and is in IOMMU group 4 with 0000:04:00.0, which goes to the guest as a whole: run: modprobe vfio-pci && driverctl set-override 0000:04:00.1 vfio-pci",
		"0000:05:00.0":              "PCI device 0000:05:00.0 (IOMMU group 5) is bound to no driver: to bind it to vfio-pci, run: modprobe vfio-pci && driverctl set-override 0000:05:00.0 vfio-pci",
		"0000:06:00.0":              "PCI device 0000:06:00.0 has no IOMMU group: switch the IOMMU on in the firmware, and boot with intel_iommu=on or amd_iommu=on",
		"0000:07:00.0":              "IOMMU group 7 of PCI device 0000:07:00.0: /dev/vfio/7: no such file or directory: run as root, or chown it",
		"0000:ff:00.0":              "", // who prepares the disks says that it is not there
	} {
		if got := oneLineEach(t, h.lacksVFIO(spec.Setup{Backing: "device:" + devices})); got != want {
			t.Errorf("%s: %q, want %q", devices, got, want)
		}
	}
	if got := oneLineEach(t, hostOf(t, nil).lacksVFIO(spec.Setup{Backing: "device:0000:01:00.0"})); !strings.HasPrefix(got, "there is no /dev/vfio/vfio: modprobe vfio-pci") {
		t.Errorf("no VFIO at all: %q", got)
	}
}
