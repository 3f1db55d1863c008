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
// its remedy; none means that they can. fileSystem is what the guests mount, see
// Config.FileSystem. It asks QEMU what it has, and starts no guest but where only KVM
// would do and is not asked for. What depends on a disk is the matter of who makes
// the disk.
func Missing(ctx context.Context, guest spec.Guest, setup spec.Setup, fileSystem string) []string {
	if runtime.GOARCH != "amd64" {
		return []string{"guests are x86-64 and run on such a host only"}
	}
	if _, err := exec.LookPath(QEMU); err != nil {
		return []string{"QEMU is not installed: apt-get install qemu-system-x86"}
	}
	c := Config{Guest: guest, Setup: setup, FileSystem: fileSystem}
	why := slices.Concat(lacksBoot(c), lacksQEMU(ctx, c), lacksDevice(ctx, c), theHost.lacksNode(setup.NUMA))
	if setup.AIO == "io_uring" && !blockless(setup.Device) {
		why = append(why, asked(ctx, "io_uring", lacksIOUring)...)
	}
	return why
}

// lacksBoot is about kernel, modules and image.
func lacksBoot(c Config) []string {
	var why []string
	if c.Guest.Image != "" {
		if err := unix.Access(c.Guest.Image, unix.R_OK); err != nil {
			why = append(why, fmt.Sprintf("guest image %s: %v", c.Guest.Image, err))
		}
	}
	if c.Guest.Boot != bootKernel {
		return why
	}
	k, err := findKernel(c.Guest.Kernel)
	if err == nil {
		_, err = guestModules(k, c)
	}
	if err != nil {
		why = append(why, err.Error())
	}
	return why
}

// lacksQEMU is about what this QEMU was built with. No answer of it is not the answer
// that it has nothing: what is wrong shows when a guest is booted.
func lacksQEMU(ctx context.Context, c Config) []string {
	var why []string
	names := asked(ctx, "devices", listDevices)
	for _, name := range deviceNames(c) {
		if names != nil && !slices.Contains(names, name) {
			why = append(why, fmt.Sprintf("this QEMU has no device %s: install one that was built with it", name))
		}
	}
	why = append(why, asked(ctx, "sandbox", lacksSandbox)...)
	machines := asked(ctx, "machines", listMachines)
	if machines != nil && !slices.Contains(machines, c.Guest.Machine) {
		why = append(why, fmt.Sprintf("this QEMU has no machine %s: install one that was built with it, or set guest.machine to one of pc, q35, microvm that `%s -machine help` lists", c.Guest.Machine, QEMU))
	}
	return why
}

// deviceNames are the devices that a guest is made of, by QEMU's names.
func deviceNames(c Config) []string {
	names := []string{virtio(c, "virtio-serial"), "virtserialport"}
	if c.Guest.Machine != machineMicroVM {
		names = append(names, panicDevice)
	}
	if c.Guest.Channel == channelVsock {
		names = append(names, virtio(c, vhostVsock))
	}
	switch device := c.Setup.Device; device {
	case virtioBlk, nvmeUserspace:
		names = append(names, virtio(c, "virtio-blk"))
	case virtioSCSI:
		names = append(names, virtio(c, "virtio-scsi"), "scsi-hd")
	case vhostUserBlk, vhostSCSI:
		names = append(names, virtio(c, device))
	case ide:
		names = append(names, "ide-hd")
	case nvme, vfioPCI:
		names = append(names, device)
	}
	if c.Guest.Image != "" {
		names = append(names, virtio(c, "virtio-blk"))
	}
	return distinct(names)
}

func lacksDevice(ctx context.Context, c Config) []string {
	var why []string
	if c.Guest.Machine == machineMicroVM && hostKHz() == 0 {
		why = append(why, "machine microvm hangs unless it is told the rate of the TSC, which this host's /proc/cpuinfo does not show: use machine pc or q35")
	}
	if c.Guest.Machine == machineMicroVM && c.Setup.IOThread && !hasKVM(ctx, c.Guest.Accel) {
		why = append(why, noMMIOThread)
	}
	switch c.Setup.Device {
	case vhostSCSI:
		if _, err := os.Stat("/dev/vhost-scsi"); err != nil {
			why = append(why, "there is no /dev/vhost-scsi: modprobe vhost_scsi, on a kernel that has it")
		}
	case vfioPCI, nvmeUserspace:
		why = append(why, theHost.lacksVFIO(c.Setup)...)
	}
	if c.Guest.Channel == channelVsock {
		why = append(why, theHost.lacksVsock()...)
		if c.Guest.Machine == machineMicroVM && !hasKVM(ctx, c.Guest.Accel) {
			why = append(why, noMMIOVsock)
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
	return parseDevices(string(out)), nil
}

// parseDevices reads lines such as `name "virtio-blk-pci", bus PCI, alias "virtio-blk"`, below titles.
func parseDevices(help string) []string {
	var names []string
	for line := range strings.Lines(help) {
		rest, ok := strings.CutPrefix(line, `name "`)
		if name, _, closed := strings.Cut(rest, `"`); ok && closed && name != "" {
			names = append(names, name)
		}
	}
	return names
}

func listMachines(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, QEMU, "-machine", "help").Output()
	if err != nil {
		return nil, err
	}
	return parseMachines(string(out)), nil
}

// lacksSandbox: guests run only in a QEMU that denies itself what it does not need.
func lacksSandbox(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, QEMU, "-sandbox", confinement, "-version").CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return []string{}, nil
	case errors.As(err, &exit) && strings.Contains(string(out), "sandbox"):
		return []string{"this QEMU has no -sandbox: install one that was built with libseccomp"}, nil
	}
	return nil, err
}

// parseMachines reads lines such as "pc    Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-7.2)" below a title.
func parseMachines(help string) []string {
	var names []string
	for line := range strings.Lines(help) {
		if name, _, ok := strings.Cut(line, " "); ok && name != "" && name != "Supported" {
			names = append(names, name)
		}
	}
	return names
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
