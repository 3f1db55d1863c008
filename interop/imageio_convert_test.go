package interop

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/interop/engine"
	"github.com/vmdisk/vmdisk/interop/peer"
)

// TestVirtV2V converts a guest by the whole of virt-v2v, from a disk image to the
// engine's machine. libguestfs boots a virtual machine for it, which takes a
// minute or more where there is no KVM, hence on request alone: VMDISK_V2V=1.
func TestVirtV2V(t *testing.T) {
	if os.Getenv("VMDISK_V2V") == "" {
		t.Skip("takes minutes; VMDISK_V2V=1 runs it")
	}
	needRoot(t)
	need(t, "virt-v2v", "nbdkit", "mke2fs", "dpkg-query")
	s := newSite(t)
	image := filepath.Join(s.dir, "guest.img")
	makeGuest(t, image)
	sdk, err := filepath.Abs("testdata/sdk")
	if err != nil {
		t.Fatal(err)
	}
	run(t, "env", "PYTHONPATH="+sdk, "PYTHONDONTWRITEBYTECODE=1", "LIBGUESTFS_BACKEND=direct", "LIBGUESTFS_BACKEND_SETTINGS=force_tcg",
		"virt-v2v", "-i", "disk", image, "-o", "rhv-upload", "-oc", s.origin+"/ovirt-engine/api", "-op", s.password, "-os", engine.StorageDomain,
		"-on", "guest", "-of", "raw", "-oa", "sparse",
		"-oo", "rhv-cafile="+s.host.CA(), "-oo", "rhv-cluster="+engine.Cluster, "-oo", "rhv-direct=true")
	disks := s.disks(t)
	if len(disks) != 1 {
		t.Fatalf("disks: %v", disks)
	}
	s.check(t, filepath.Base(disks[0]), "[images] [127.0.0.1] WRITE ticket=")
	run(t, "e2fsck", "-fn", disks[0])
	if out := run(t, "debugfs", "-R", "cat /etc/initramfs-tools/modules", disks[0]); !strings.Contains(out, "virtio_blk") {
		t.Errorf("the uploaded guest was not converted: %s", out)
	}
}

// guestFiles make a guest out of nothing that virt-v2v takes for a Debian; its
// few programs are this machine's.
var guestFiles = map[string]string{
	"etc/debian_version":          "12.1\n",
	"etc/hostname":                "guest\n",
	"etc/os-release":              "ID=debian\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n",
	"etc/fstab":                   "/dev/sda / ext4 defaults 0 1\n",
	"etc/passwd":                  "root:x:0:0::/root:/bin/sh\n",
	"etc/default/grub":            "GRUB_CMDLINE_LINUX=\"\"\n",
	"etc/modprobe.d/x.conf":       "options loop max_loop=8\n",
	"etc/initramfs-tools/modules": "# none\n",
	"boot/grub/grub.cfg":          "linux /boot/vmlinuz-6.1.0-1-amd64\n",
	"boot/config-6.1.0-1-amd64":   "CONFIG_VIRTIO_BLK=m\n",
	"usr/sbin/update-initramfs":   "#!/bin/sh\necho made >/boot/initrd.img-6.1.0-1-amd64\n",
	"usr/sbin/grub-mkconfig":      "#!/bin/sh\n",
	"usr/sbin/update-grub":        "#!/bin/sh\n",
	"var/lib/dpkg/arch":           "amd64\n",
	"var/lib/dpkg/status": "Package: linux-image-6.1.0-1-amd64\nStatus: install ok installed\nPriority: optional\nSection: kernel\n" +
		"Maintainer: nobody <nobody@example.org>\nArchitecture: amd64\nVersion: 6.1.1-1\nDescription: a kernel\n\n",
}

const guestModules = "lib/modules/6.1.0-1-amd64/kernel/drivers"

// makeGuest makes an image of a guest: a file system on the whole disk.
func makeGuest(t *testing.T, image string) {
	t.Helper()
	root := filepath.Join(filepath.Dir(image), "root")
	put := func(path string, text []byte) {
		t.Helper()
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, text := range guestFiles {
		put(path, []byte(text))
	}
	kernels, err := filepath.Glob("/boot/vmlinuz-*")
	if err != nil || len(kernels) == 0 {
		t.Fatalf("no kernel in /boot: %v", err)
	}
	kernel, err := os.ReadFile(kernels[0])
	if err != nil {
		t.Fatal(err)
	}
	put("boot/vmlinuz-6.1.0-1-amd64", kernel[:20000]) // what tells its architecture
	put("boot/initrd.img-6.1.0-1-amd64", emptyGzip(t))
	list := "/.\n/boot\n/boot/vmlinuz-6.1.0-1-amd64\n/boot/config-6.1.0-1-amd64\n/lib\n/lib/modules\n/lib/modules/6.1.0-1-amd64\n"
	for _, m := range []string{"virtio_blk", "virtio_net", "virtio_balloon", "virtio-rng"} {
		path := guestModules + "/" + m + ".ko"
		put(path, findModule(t))
		list += "/" + path + "\n"
	}
	put("var/lib/dpkg/info/linux-image-6.1.0-1-amd64.list", []byte(list))
	for _, program := range []string{"sh", "cat", "rm", "dpkg", "dpkg-query"} {
		putProgram(t, put, program)
	}
	if err := os.Symlink("usr/bin", filepath.Join(root, "bin")); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"proc", "sys", "dev", "tmp", "run", "root", "sbin", "var/tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run(t, "mke2fs", "-q", "-t", "ext4", "-d", root, image, "96M")
}

func emptyGzip(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := gzip.NewWriter(&b).Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// findModule is some kernel module: virt-v2v learns the architecture from it.
func findModule(t *testing.T) []byte {
	t.Helper()
	found, err := filepath.Glob("/lib/modules/*/kernel/drivers/block/virtio_blk.ko")
	if err != nil || len(found) == 0 {
		t.Fatalf("no module virtio_blk: %v", err)
	}
	text, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return text
}

var library = regexp.MustCompile(`(/\S+) \(0x`)

// putProgram puts a program of this machine, with its libraries, into /usr/bin.
func putProgram(t *testing.T, put func(path string, text []byte), name string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	put("usr/bin/"+name, text)
	r, err := peer.Run(t.Context(), "ldd", path)
	if err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(strings.NewReader(r.Stdout)); lines.Scan(); {
		m := library.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		text, err := os.ReadFile(m[1])
		if err != nil {
			t.Fatal(fmt.Errorf("library of %s: %w", name, err))
		}
		put(m[1], text)
	}
}
