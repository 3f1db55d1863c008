package peer

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
)

// packages maps each program to the Debian package that has it.
var packages = map[string]string{
	"chroot":             "coreutils",
	"cp":                 "coreutils",
	"debootstrap":        "debootstrap",
	"e2fsck":             "e2fsprogs",
	"fio":                "fio",
	"losetup":            "mount",
	"mke2fs":             "e2fsprogs",
	"mkfs.xfs":           "xfsprogs",
	"curl":               "curl",
	"mount":              "mount",
	"nbd-client":         "nbd-client",
	"nbdcopy":            "libnbd-bin",
	"nbdinfo":            "libnbd-bin",
	"nbdkit":             "nbdkit",
	"nbdsh":              "libnbd-bin python3-libnbd",
	"qemu-img":           "qemu-utils",
	"qemu-io":            "qemu-utils",
	"qemu-nbd":           "qemu-utils",
	"qemu-system-x86_64": "qemu-system-x86",
	"filefrag":           "e2fsprogs",
	"python3":            "python3",
	"virt-v2v":           "virt-v2v nbdkit-plugin-python",
}

// Need reports every program of names that is not installed, with the command
// that installs them all.
func Need(names ...string) error {
	var missing, install []string
	for _, name := range names {
		if _, err := exec.LookPath(name); err == nil {
			continue
		}
		missing = append(missing, name)
		for _, p := range strings.Fields(packages[name]) {
			if !slices.Contains(install, p) {
				install = append(install, p)
			}
		}
	}
	if missing == nil {
		return nil
	}
	return fmt.Errorf("not installed: %s; run: apt-get install %s", strings.Join(missing, " "), strings.Join(install, " "))
}
