package monitor

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/procfs"
)

// Fact is one name and value of the host.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Describe says what the host is: CPU, memory, kernel, mitigations, versions of the
// programs that experiments use, and for each path (a file, folder or block
// device) the file system and the device below. What can't be known is left out.
// own is the version of this program.
func Describe(ctx context.Context, own string, paths ...string) []Fact {
	d := describer{proc: "/proc", sys: "/sys"}
	d.cpu()
	d.memory()
	d.add("kernel", d.read(d.proc, "sys/kernel/osrelease"))
	d.add("mitigations", d.mitigations())
	d.add("governor", d.governor())
	d.add("virtualization", d.virtualization())
	d.add("vmdisk", strings.TrimPrefix(own+", "+runtime.Version(), ", "))
	for _, p := range programs {
		d.add(p[0], version(ctx, p))
	}
	for _, p := range paths {
		d.path(p)
	}
	return d.facts
}

// describer collects facts. proc and sys are the mount points.
type describer struct {
	proc, sys string
	facts     []Fact
}

func (d *describer) add(name, value string) {
	f := Fact{name, value}
	if value != "" && !slices.Contains(d.facts, f) {
		d.facts = append(d.facts, f)
	}
}

func (d *describer) read(root, name string) string {
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func (d *describer) cpu() {
	cpus := fmt.Sprint(runtime.NumCPU())
	if fs, err := procfs.NewFS(d.proc); err == nil {
		if info, err := fs.CPUInfo(); err == nil && len(info) > 0 {
			d.add("CPU", info[0].ModelName)
			cpus = fmt.Sprint(len(info))
			if n := physicalCores(info); n > 0 && n != len(info) {
				cpus += fmt.Sprintf(" (cores: %d)", n)
			}
		}
	}
	d.add("CPUs", cpus)
	nodes, err := filepath.Glob(filepath.Join(d.sys, "devices/system/node/node[0-9]*"))
	if err == nil && len(nodes) > 0 {
		d.add("NUMA nodes", fmt.Sprint(len(nodes)))
	}
}

func physicalCores(info []procfs.CPUInfo) int {
	cores := map[string]bool{}
	for _, c := range info {
		if c.CoreID == "" {
			return 0 // not told on every architecture
		}
		cores[c.PhysicalID+"/"+c.CoreID] = true
	}
	return len(cores)
}

func (d *describer) memory() {
	fs, err := procfs.NewFS(d.proc)
	if err != nil {
		return
	}
	if m, err := fs.Meminfo(); err == nil && m.MemTotalBytes != nil {
		d.add("memory", fmt.Sprintf("%.1f GiB", float64(*m.MemTotalBytes)/(1<<30)))
	}
}

// mitigations sums up what the kernel says of each weakness of the CPU.
func (d *describer) mitigations() string {
	files, err := filepath.Glob(filepath.Join(d.sys, "devices/system/cpu/vulnerabilities/*"))
	if err != nil {
		return ""
	}
	var on, open []string
	for _, f := range files {
		switch text := d.read("", f); {
		case strings.HasPrefix(text, "Mitigation"):
			on = append(on, filepath.Base(f))
		case strings.HasPrefix(text, "Vulnerable"):
			open = append(open, filepath.Base(f))
		}
	}
	var parts []string
	if len(on) > 0 {
		parts = append(parts, "on for "+strings.Join(on, ", "))
	}
	if len(open) > 0 {
		parts = append(parts, "vulnerable to "+strings.Join(open, ", "))
	}
	if len(parts) == 0 && len(files) > 0 {
		return "none needed"
	}
	return strings.Join(parts, "; ")
}

func (d *describer) governor() string {
	files, err := filepath.Glob(filepath.Join(d.sys, "devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"))
	if err != nil {
		return ""
	}
	var all []string
	for _, f := range files {
		if g := d.read("", f); g != "" && !slices.Contains(all, g) {
			all = append(all, g)
		}
	}
	return strings.Join(all, ", ")
}

// virtualization says whether this host is itself a guest: experiments on one are
// disturbed by its neighbours.
func (d *describer) virtualization() string {
	fs, err := procfs.NewFS(d.proc)
	if err != nil {
		return ""
	}
	info, err := fs.CPUInfo()
	if err != nil || len(info) == 0 {
		return ""
	}
	if !slices.Contains(info[0].Flags, "hypervisor") {
		return "none"
	}
	by := d.read(d.sys, "hypervisor/type")
	if by == "" {
		by = strings.TrimSpace(d.read(d.sys, "class/dmi/id/sys_vendor") + " " + d.read(d.sys, "class/dmi/id/product_name"))
	}
	if by == "" {
		return "this host is itself a virtual machine"
	}
	return "this host is itself a virtual machine (" + by + ")"
}

// programs that experiments run, with the option that prints the version.
var programs = [][]string{
	{"QEMU", "qemu-system-" + qemuArch(), "--version"},
	{"fio", "fio", "--version"},
	{"nbdkit", "nbdkit", "--version"},
	{"qemu-nbd", "qemu-nbd", "--version"},
	{"qemu-storage-daemon", "qemu-storage-daemon", "--version"},
}

func qemuArch() string {
	if runtime.GOARCH == "arm64" {
		return "aarch64"
	}
	return "x86_64"
}

// version is the first line a program prints; "" if it isn't there.
func version(ctx context.Context, program []string) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program[1], program[2:]...).Output()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}

// LoadText is what `w` prints, or without it /proc/loadavg: who and what else was
// there.
func LoadText(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "w").Output(); err == nil {
		return string(out)
	}
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	return string(text)
}
