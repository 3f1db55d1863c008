package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/lab/spec"
)

// Missing says why guests of a set-up can't run on this host, one reason each with
// its remedy; none means that they can. It asks QEMU what it has, and starts no
// guest but where only KVM would do and is not asked for. What depends on a disk is
// the matter of who makes the disk.
func Missing(ctx context.Context, guest spec.Guest, setup spec.Setup) []string {
	if runtime.GOARCH != "amd64" {
		return []string{"guests are x86-64 and run on such a host only"}
	}
	if _, err := exec.LookPath(QEMU); err != nil {
		return []string{"QEMU is not installed: apt-get install qemu-system-x86"}
	}
	why := slices.Concat(lacksBoot(guest, setup), lacksDevice(ctx, guest, setup), lacksNode(setup.NUMA))
	if setup.AIO == "io_uring" && !blockless(setup.Device) {
		why = append(why, asked(ctx, "io_uring", lacksIOUring)...)
	}
	return why
}

// lacksBoot is about kernel, modules and image.
func lacksBoot(guest spec.Guest, setup spec.Setup) []string {
	var why []string
	if guest.Image != "" {
		if err := unix.Access(guest.Image, unix.R_OK); err != nil {
			why = append(why, fmt.Sprintf("guest image %s: %v", guest.Image, err))
		}
	}
	if guest.Boot != bootKernel {
		return why
	}
	k, err := findKernel(guest.Kernel)
	if err == nil {
		_, err = guestModules(k, Config{Guest: guest, Setup: setup})
	}
	if err != nil {
		why = append(why, err.Error())
	}
	return why
}

// deviceNames are QEMU's names of devices, for -device help.
var deviceNames = map[string]string{
	virtioBlk: "virtio-blk-pci", nvmeUserspace: "virtio-blk-pci", virtioSCSI: "virtio-scsi-pci", ide: "ide-hd", nvme: "nvme",
	vhostUserBlk: "vhost-user-blk-pci", vhostSCSI: "vhost-scsi-pci", vfioPCI: "vfio-pci",
}

func lacksDevice(ctx context.Context, guest spec.Guest, setup spec.Setup) []string {
	var why []string
	names := asked(ctx, "devices", listDevices)
	// No names: QEMU gave no answer. That shows when a guest is booted.
	if name := deviceNames[setup.Device]; name != "" && names != nil && !slices.Contains(names, name) {
		why = append(why, fmt.Sprintf("this QEMU has no device %s: install one that was built with it", name))
	}
	if guest.Machine == machineMicroVM && hostKHz() == 0 {
		why = append(why, "machine microvm hangs unless it is told the rate of the TSC, which this host's /proc/cpuinfo does not show: use machine pc or q35")
	}
	if guest.Machine == machineMicroVM && setup.IOThread && !hasKVM(ctx, guest.Accel) {
		why = append(why, noMMIOThread)
	}
	switch setup.Device {
	case vhostSCSI:
		if _, err := os.Stat("/dev/vhost-scsi"); err != nil {
			why = append(why, "there is no /dev/vhost-scsi: modprobe vhost_scsi, on a kernel that has it")
		}
	case vfioPCI, nvmeUserspace:
		if _, err := os.Stat("/dev/vfio/vfio"); err != nil {
			why = append(why, "there is no /dev/vfio/vfio: modprobe vfio-pci, on a host with an IOMMU, and bind the device to it")
		}
	}
	return why
}

func hasKVM(ctx context.Context, accel string) bool {
	if accel == AccelKVM || accel == AccelTCG {
		return accel == AccelKVM
	}
	ok, _ := ProbeKVM(ctx)
	return ok
}

// askTime bounds each question to QEMU.
const askTime = 20 * time.Second

// answers of QEMU, by the program's path and the question, are kept for the life of
// the process.
var answers struct {
	mu  sync.Mutex
	got map[[2]string][]string
}

// asked returns what QEMU answers, nil if it cannot be asked.
func asked(ctx context.Context, what string, ask func(context.Context) ([]string, error)) []string {
	path, err := exec.LookPath(QEMU)
	if err != nil {
		return nil
	}
	key := [2]string{path, what}
	answers.mu.Lock()
	defer answers.mu.Unlock()
	if got, ok := answers.got[key]; ok {
		return got
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	got, err := ask(ctx)
	if err != nil {
		return nil
	}
	if answers.got == nil {
		answers.got = map[[2]string][]string{}
	}
	answers.got[key] = got
	return got
}

func listDevices(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, QEMU, "-device", "help").Output()
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		if rest, ok := strings.CutPrefix(line, `name "`); ok {
			name, _, _ := strings.Cut(rest, `"`)
			names = append(names, name)
		}
	}
	return names, nil
}

// lacksIOUring opens a file as a guest's disk would be: QEMU may have been built
// without io_uring, and a host may forbid it.
func lacksIOUring(ctx context.Context) (_ []string, err error) {
	dir, err := os.MkdirTemp("", "vmdisk-uring-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, "disk")
	if err := os.WriteFile(file, make([]byte, 4096), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-machine", "none", "-qmp", "stdio",
		"-blockdev", "driver=file,node-name=disk,aio=io_uring,filename="+quote(file))
	cmd.Stdin = strings.NewReader(`{"execute":"qmp_capabilities"}{"execute":"quit"}`)
	out, runErr := cmd.CombinedOutput()
	if runErr == nil {
		return []string{}, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	text := strings.Split(strings.TrimSpace(string(out)), "\n")
	return []string{"QEMU cannot use aio=io_uring here: " + text[len(text)-1]}, nil
}
