package vm

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/lab/spec"
)

// why joins the reasons.
func why(t *testing.T, change func(*spec.Guest, *spec.Setup)) string {
	t.Helper()
	g, s := plain().Guest, spec.Defaults()
	change(&g, &s)
	return oneLineEach(t, Missing(t.Context(), g, s, "none"))
}

func oneLineEach(t *testing.T, reasons []string) string {
	t.Helper()
	for _, r := range reasons {
		if strings.Contains(r, "\n") {
			t.Errorf("%q is more than a line", r)
		}
	}
	return strings.Join(reasons, " | ")
}

func TestMissing(t *testing.T) {
	t.Parallel()
	needQEMU(t)
	if got := why(t, func(*spec.Guest, *spec.Setup) {}); got != "" {
		t.Errorf("a plain guest cannot run here: %s", got)
	}
	kernel := fakeKernel(t, fakeDeps, "")
	for _, c := range []struct {
		want   string
		change func(*spec.Guest, *spec.Setup)
	}{
		{"kernel /boot/none does not exist: run: apt-get install linux-image-cloud-amd64, or set guest.kernel", func(g *spec.Guest, _ *spec.Setup) { g.Kernel = "/boot/none" }},
		{"kernel 9.9.9-test has no nvme", func(g *spec.Guest, s *spec.Setup) { g.Kernel, s.Device = kernel, nvme }},
		{"guest image /none.img: no such file or directory", func(g *spec.Guest, _ *spec.Setup) { g.Image = "/none.img" }},
		{"guest image /none.img: no such file or directory", func(g *spec.Guest, _ *spec.Setup) { g.Image, g.Boot = "/none.img", "image" }},
		{"this host has no NUMA node 7", func(_ *spec.Guest, s *spec.Setup) { s.NUMA = "7:7" }},
		{"this host has no NUMA node 7", func(_ *spec.Guest, s *spec.Setup) { s.NUMA = "0:7" }},
		{"kernel 9.9.9-test has no virtio_mmio", func(g *spec.Guest, _ *spec.Setup) { g.Kernel, g.Machine = kernel, "microvm" }},
		{"machine microvm has iothreads only with KVM", func(g *spec.Guest, s *spec.Setup) { g.Machine, g.Accel, s.IOThread = "microvm", "tcg", true }},
	} {
		if got := why(t, c.change); got != c.want && !strings.HasPrefix(got, c.want) {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	for _, device := range []string{virtioBlk, virtioSCSI, ide, nvme, vhostUserBlk} {
		if got := why(t, func(_ *spec.Guest, s *spec.Setup) { s.Device = device }); got != "" {
			t.Errorf("device=%s: %s", device, got)
		}
	}
	for device, file := range map[string]string{vhostSCSI: "/dev/vhost-scsi", vfioPCI: "/dev/vfio/vfio", nvmeUserspace: "/dev/vfio/vfio"} {
		_, err := os.Stat(file)
		got := why(t, func(_ *spec.Guest, s *spec.Setup) { s.Device = device })
		if (err == nil) != (got == "") || err != nil && !strings.HasPrefix(got, "there is no "+file+": modprobe ") {
			t.Errorf("device=%s, %s: %v: %q", device, file, err, got)
		}
	}
}

// fakePATH makes a QEMU of a script the only program there is. It must not be
// called in a parallel test.
func fakePATH(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if script != "" {
		if err := os.WriteFile(filepath.Join(dir, QEMU), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
}

func TestMissingWithoutQEMU(t *testing.T) {
	fakePATH(t, "")
	if got := why(t, func(*spec.Guest, *spec.Setup) {}); got != "QEMU is not installed: apt-get install qemu-system-x86" {
		t.Errorf("%q", got)
	}
}

// TestMissingModules: a file system that is to be mounted needs its module.
func TestMissingModules(t *testing.T) {
	t.Parallel()
	needQEMU(t)
	g := plain().Guest
	g.Kernel = fakeKernel(t, fakeDeps, "")
	for fileSystem, want := range map[string]string{
		"none": "", "xfs": "", "": "",
		"ext4": `kernel 9.9.9-test has no ext4, which device=virtio-blk on machine pc with guest-scheduler=default, channel=auto and file system "ext4" needs: set guest.kernel`,
	} {
		got := oneLineEach(t, Missing(t.Context(), g, spec.Defaults(), fileSystem))
		if !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%q: %q, want %q", fileSystem, got, want)
		}
	}
}

// helps is a QEMU that lists some of its parts.
const helps = `case "$*" in
*io_uring*) echo "qemu: -blockdev: aio=io_uring was specified, but is not supported in this build" >&2; exit 1;;
"-machine help") echo "Supported machines are:"; echo "microvm              microvm (i386)"; echo "pc   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-7.2)";;
*) for d in virtio-blk-pci virtio-serial-pci virtserialport pvpanic-pci; do echo "name \"$d\", bus PCI"; done;;
esac`

func TestMissingDevice(t *testing.T) {
	fakePATH(t, helps)
	if got := why(t, func(*spec.Guest, *spec.Setup) {}); got != "" {
		t.Errorf("%q", got)
	}
	got := why(t, func(_ *spec.Guest, s *spec.Setup) { s.Device = virtioSCSI })
	if got != "this QEMU has no device virtio-scsi-pci: install one that was built with it | this QEMU has no device scsi-hd: install one that was built with it" {
		t.Errorf("%q", got)
	}
}

func TestMissingMachine(t *testing.T) {
	fakePATH(t, helps)
	got := why(t, func(g *spec.Guest, _ *spec.Setup) { g.Machine = machineQ35 })
	if want := "this QEMU has no machine q35: install one that was built with it, or set guest.machine to one of"; !strings.HasPrefix(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestMissingIOUring(t *testing.T) {
	fakePATH(t, helps)
	got := why(t, func(_ *spec.Guest, s *spec.Setup) { s.AIO = "io_uring" })
	if !strings.HasPrefix(got, "QEMU cannot use aio=io_uring here: ") || !strings.HasSuffix(got, "not supported in this build") {
		t.Errorf("%q", got)
	}
	if got := why(t, func(_ *spec.Guest, s *spec.Setup) { s.AIO, s.Device = "io_uring", vhostUserBlk }); strings.Contains(got, "io_uring") {
		t.Errorf("a device that QEMU only passes on: %q", got)
	}
}

// TestMissingBroken: no answer of QEMU is not the answer that it has nothing.
func TestMissingBroken(t *testing.T) {
	fakePATH(t, "exit 1")
	if got := why(t, func(*spec.Guest, *spec.Setup) {}); got != "" {
		t.Errorf("%q", got)
	}
}

// TestProbeKVM: one answer, with a reason unless KVM works, and only once by
// booting a guest.
func TestProbeKVM(t *testing.T) {
	t.Parallel()
	needQEMU(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if ok, why := ProbeKVM(ctx); ok || why == "" {
		t.Errorf("with a context that has ended: %v, %q", ok, why)
	}
	ok, why := ProbeKVM(t.Context())
	t.Logf("KVM %v %s", ok, why)
	if ok != (why == "") || strings.Contains(why, "\n") {
		t.Errorf("%v, %q", ok, why)
	}
	begun := time.Now()
	for range 1000 {
		again, whyAgain := ProbeKVM(t.Context())
		if again != ok || whyAgain != why {
			t.Fatalf("%v %q, then %v %q", ok, why, again, whyAgain)
		}
	}
	if took := time.Since(begun); took > probeTime/2 {
		t.Errorf("a thousand answers took %v", took)
	}
}

func TestParseCPUs(t *testing.T) {
	t.Parallel()
	set, err := parseCPUs("0-3,8")
	if err != nil || set.Count() != 5 || !set.IsSet(8) || !set.IsSet(2) || set.IsSet(4) {
		t.Errorf("%v, %v", set, err)
	}
	for _, bad := range []string{"", "a", "3-1", "-1", "1-", "0-99999", "0,,1", "1024"} {
		if _, err := parseCPUs(bad); err == nil || !strings.Contains(err.Error(), "want numbers and ranges such as 0-3,8") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if set, err := theHost.nodeCPUs("0:0"); err != nil || set.Count() < 1 || set.Count() > 2*runtime.NumCPU() {
		t.Errorf("CPUs of node 0: %v, %v", set, err)
	}
}
