package vm

import (
	"bytes"
	"context"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"

	"github.com/vmdisk/vmdisk/lab/spec"
)

// xzModule is "module text" as xz packs it.
const xzModule = "fd377a585a000004e6d6b4460200210116000000742fe5a301000a6d6f64756c652074657874000091cd3a247718010e0001230bc21bfd091fb6f37d010000000004595a"

// fakeKernel makes a kernel of which only the modules' files are real.
func fakeKernel(t *testing.T, dep, builtin string) string {
	t.Helper()
	dir := t.TempDir()
	modules := filepath.Join(dir, "lib/modules/9.9.9-test")
	write(t, filepath.Join(dir, "boot/vmlinuz"), bzImage("9.9.9-test"))
	write(t, filepath.Join(modules, "modules.dep"), []byte(dep))
	write(t, filepath.Join(modules, "modules.builtin"), []byte(builtin))
	packed, err := hex.DecodeString(xzModule)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(dep) {
		name, _, _ := strings.Cut(line, ":")
		text := []byte("plain " + name)
		if strings.HasSuffix(name, ".xz") {
			text = packed
		}
		write(t, filepath.Join(modules, name), text)
	}
	return filepath.Join(dir, "boot/vmlinuz")
}

const fakeDeps = `kernel/virtio_pci.ko: kernel/virtio_legacy.ko kernel/virtio.ko
kernel/virtio_legacy.ko: kernel/virtio.ko
kernel/virtio.ko:
kernel/virtio_console.ko.xz: kernel/virtio.ko
kernel/virtio-blk.ko: kernel/virtio.ko
kernel/xfs.ko: kernel/libcrc32c.ko
kernel/libcrc32c.ko:
`

// readArchive returns names in their order, and contents.
func readArchive(t *testing.T, file string) ([]string, map[string]cpio.Record) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(f))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	all := map[string]cpio.Record{}
	for _, r := range records {
		if r.Name == "TRAILER!!!" {
			continue
		}
		names = append(names, r.Name)
		all[r.Name] = r
	}
	return names, all
}

func content(t *testing.T, r cpio.Record) string {
	t.Helper()
	text, err := io.ReadAll(io.NewSectionReader(r, 0, int64(r.FileSize)))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestInitramfs: modules in an order in which they load, unpacked, and /init.
func TestInitramfs(t *testing.T) {
	t.Parallel()
	buildDir(t)
	init, err := buildExit()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "made")
	k, err := NewKit(t.Context(), dir, init, spec.Guest{Kernel: fakeKernel(t, fakeDeps, "kernel/ext4.ko\n")})
	if err != nil {
		t.Fatal(err)
	}
	if k.Version != "9.9.9-test" || !k.has("ext4") || !k.has("xfs") || k.has("nvme") || k.has("pvpanic_pci") || k.has("ahci") {
		t.Errorf("kit %+v", k)
	}
	c := plain()
	c.Kit = k
	for range 2 { // the second time it is there
		if err := k.prepare(c); err != nil {
			t.Fatal(err)
		}
	}
	names, files := readArchive(t, k.initramfs(c))
	t.Log(names)
	at := func(module string) int {
		return slices.IndexFunc(names, func(n string) bool { return strings.HasSuffix(n, "-"+module+".ko") })
	}
	if len(names) != 7 || names[0] != "modules" || names[6] != "init" {
		t.Fatalf("the initramfs holds %q", names)
	}
	if !slices.IsSorted(names[1:6]) {
		t.Errorf("the order of the names is not that of loading: %q", names)
	}
	if at("virtio") > at("virtio_legacy") || at("virtio_legacy") > at("virtio_pci") || at("virtio_pci") > at("virtio_console") || at("virtio_console") > at("virtio-blk") {
		t.Errorf("order %q", names)
	}
	if got := content(t, files[names[at("virtio_console")]]); got != "module text" {
		t.Errorf("the compressed module came as %q", got)
	}
	if got := content(t, files[names[at("virtio")]]); got != "plain kernel/virtio.ko" {
		t.Errorf("a module came as %q", got)
	}
	want, err := os.ReadFile(init)
	if err != nil {
		t.Fatal(err)
	}
	if r := files["init"]; !bytes.Equal([]byte(content(t, r)), want) || r.Mode&0o111 == 0 {
		t.Errorf("init has %d bytes, mode %o", r.FileSize, r.Mode)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.part")); left != nil {
		t.Errorf("left behind: %q", left)
	}
}

// TestKitLacks: what a guest needs and the kernel has not is said before a boot.
func TestKitLacks(t *testing.T) {
	t.Parallel()
	path := fakeKernel(t, fakeDeps, "")
	k, err := openKernel(path)
	if err != nil {
		t.Fatal(err)
	}
	lacks := func(want string, change func(*Config)) {
		t.Helper()
		c := plain()
		change(&c)
		_, err := guestModules(k, c)
		if want == "" && err != nil {
			t.Error(err)
		} else if want != "" {
			wantError(t, err, want)
		}
	}
	lacks("", func(*Config) {})
	lacks("", func(c *Config) { c.FileSystem = "xfs" })
	lacks("", func(c *Config) { c.FileSystem = "" })
	lacks("kernel 9.9.9-test has no ext4", func(c *Config) { c.FileSystem = "ext4" })
	lacks("has no nvme, which device=nvme on machine pc", func(c *Config) { c.Setup.Device = nvme })
	lacks("has no virtio_scsi, sd_mod, which device=virtio-scsi", func(c *Config) { c.Setup.Device = virtioSCSI })
	lacks("has no bfq", func(c *Config) { c.Setup.GuestScheduler = "bfq" })
	lacks("has no virtio_mmio", func(c *Config) { c.Guest.Machine = "microvm" })
	lacks("set guest.kernel to one that has", func(c *Config) { c.Guest.Machine, c.Setup.Device = "q35", ide })

	broken := fakeKernel(t, "kernel/virtio.ko:\n\n", "")
	k, err = openKernel(broken)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = k.load([]string{"virtio"})
	wantError(t, err, "modules.dep:2: no colon: run depmod 9.9.9-test")
}

// TestIDEWithoutAHCI: a q35 whose kernel has no ahci gets a PIIX and its driver.
func TestIDEWithoutAHCI(t *testing.T) {
	t.Parallel()
	k, err := openKernel(fakeKernel(t, fakeDeps+"kernel/ata_piix.ko:\nkernel/sd_mod.ko:\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	c := plain()
	c.Guest.Machine, c.Setup.Device = "q35", ide
	files, err := guestModules(k, c)
	if err != nil || !slices.ContainsFunc(files, func(f string) bool { return strings.HasSuffix(f, "/ata_piix.ko") }) {
		t.Errorf("%q, %v", files, err)
	}
}

// TestKitRefusals: an init that a guest could not run.
func TestKitRefusals(t *testing.T) {
	t.Parallel()
	kernel := fakeKernel(t, fakeDeps, "")
	refuse := func(init, want string) {
		t.Helper()
		_, err := NewKit(t.Context(), t.TempDir(), init, spec.Guest{Kernel: kernel})
		wantError(t, err, want)
	}
	text := filepath.Join(t.TempDir(), "text")
	write(t, text, []byte("#!/bin/sh\n"))
	refuse(text, "the guests' init "+text+": ")
	refuse(text+"2", "no such file")
	refuse("/bin/ls", "the guests' init /bin/ls needs shared libraries, which the guests don't have: build it with CGO_ENABLED=0")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := NewKit(ctx, t.TempDir(), text, spec.Guest{Kernel: kernel}); err == nil {
		t.Error("a kit was made though the context had ended")
	}
}
