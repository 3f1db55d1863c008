package vm

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vmdisk/vmdisk/lab/agent"
)

// QEMU is the program that runs guests.
const QEMU = "qemu-system-x86_64"

// IDs of QEMU's objects, as its monitor names them.
const (
	idAgent   = "agent"   // the agent's port
	idData    = "data"    // the device of the guest's disk
	idThread  = "io0"     // its iothread
	idMemory  = "mem"     // the memory backend
	idMonitor = "monitor" // QMP
)

// Argv is the complete command line of QEMU for a guest, which waits for "cont".
// It looks at nothing but c. A combination that QEMU refuses, or in which an axis
// would have no effect, is an error that says what to change.
func Argv(c Config) ([]string, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("guest %s: %w", c.Name, err)
	}
	a := &argv{words: []string{QEMU}}
	a.machine(c)
	a.channels(c)
	a.boot(c)
	if err := a.disk(c); err != nil {
		return nil, fmt.Errorf("guest %s: %w", c.Name, err)
	}
	return a.words, nil
}

// panicDevice tells of a guest's panic by an event.
const panicDevice = "pvpanic-pci"

// argv collects words.
type argv struct{ words []string }

func (a *argv) add(words ...string) { a.words = append(a.words, words...) }

// quote guards a value within a comma-separated option.
func quote(s string) string { return strings.ReplaceAll(s, ",", ",,") }

func (a *argv) machine(c Config) {
	memory := strconv.FormatInt(c.Guest.Memory>>20, 10) + "M"
	machine := c.Guest.Machine
	if machine == machineMicroVM && (c.Setup.Device == nvme || c.Setup.Device == vfioPCI) {
		machine += ",pcie=on"
	}
	backend := memoryBackend(c, memory)
	if backend != "" {
		machine += ",memory-backend=" + idMemory
	}
	a.add("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-S",
		"-name", "guest="+c.Name+",debug-threads=on", "-sandbox", confinement)
	a.add("-machine", machine)
	if c.Accel == AccelKVM {
		a.add("-accel", "kvm", "-cpu", "host")
	} else {
		a.add("-accel", "tcg,thread=multi", "-cpu", "max")
	}
	a.add("-smp", strconv.Itoa(c.Guest.CPUs), "-m", memory)
	if backend != "" {
		a.add("-object", backend)
	}
}

// confinement is what QEMU denies itself, by seccomp, once it has started: calls that it
// never makes, other users' rights, other programs, and changes of its priority and
// CPUs, which its parent has set.
const confinement = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

// memoryBackend: a vhost-user server maps the guest's memory, so it is shared; a
// guest with a NUMA placement has it on that node and nowhere else.
func memoryBackend(c Config, size string) string {
	_, node, bound, _ := placement(c.Setup.NUMA)
	kind := "memory-backend-ram"
	if c.Setup.Device == vhostUserBlk {
		kind = "memory-backend-memfd"
	} else if !bound {
		return ""
	}
	backend := kind + ",id=" + idMemory + ",size=" + size
	if c.Setup.Device == vhostUserBlk {
		backend += ",share=on"
	}
	if bound {
		backend += fmt.Sprintf(",host-nodes=%d,policy=bind", node)
	}
	return backend
}

// virtio is the name of a virtio device on the machine's bus. Names that have no
// "-device" form are the plain ones on virtio-mmio.
func virtio(c Config, kind string) string {
	switch {
	case c.Guest.Machine != machineMicroVM:
		return kind + "-pci"
	case kind == vhostUserBlk || kind == vhostSCSI:
		return kind
	default:
		return kind + "-device"
	}
}

func (a *argv) channels(c Config) {
	socket := func(id, name string) string {
		return "socket,id=" + id + ",path=" + quote(filepath.Join(c.Dir, name))
	}
	a.add("-chardev", socket("console", consoleSocket), "-serial", "chardev:console")
	a.add("-chardev", socket(idMonitor, monitorName), "-mon", "chardev="+idMonitor+",mode=control")
	a.add("-device", virtio(c, "virtio-serial")+",id=ports", "-chardev", socket("agent-socket", agentName),
		"-device", "virtserialport,id="+idAgent+",bus=ports.0,chardev=agent-socket,name="+agent.Port)
	if c.Guest.Machine != machineMicroVM {
		a.add("-device", panicDevice)
	}
	a.vsock(c)
}

// vsock adds the guest's, and tells an image the port that waits for its agent; the
// lab's own kernel has it in its command line.
func (a *argv) vsock(c Config) {
	if c.vsock.port == 0 {
		return
	}
	a.add("-device", fmt.Sprintf("%s,id=vsock,guest-cid=%d", virtio(c, vhostVsock), c.vsock.cid))
	if c.Guest.Boot == bootImage {
		a.add("-fw_cfg", fmt.Sprintf("name=%s,string=%d", agent.VsockFile, c.vsock.port))
	}
}

func (a *argv) boot(c Config) {
	if c.Guest.Boot == bootKernel {
		a.add("-kernel", c.Kit.Kernel, "-initrd", c.Kit.initramfs(c), "-append", c.Kit.cmdline(c))
	}
	if c.Guest.Image == "" {
		return
	}
	// snapshot=on exists only here: what the guest writes goes to a file without a
	// name in TMPDIR.
	a.add("-drive", "if=none,id=image,snapshot=on,format="+c.Guest.ImageFormat+
		",file.driver=file,file.locking=on,file.filename="+quote(c.Guest.Image))
	device := virtio(c, "virtio-blk") + ",id=root,drive=image,serial=" + ImageSerial
	if c.Guest.Boot == bootImage {
		device += ",bootindex=0"
	}
	a.add("-device", device)
}
