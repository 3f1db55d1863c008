package store

import (
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/lab/spec"
)

// TestBackings makes each backing for two nodes and checks that both begin as the
// golden disk, and that one node's writes reach neither the other nor the golden
// disk.
func TestBackings(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needProgram(t, "qemu-img", "qemu-nbd", "qemu-storage-daemon", "nbdkit", "mkfs.xfs", "mkfs.btrfs", "mke2fs")
	bin := vmdiskBinary(t)
	s := newStore(t, Options{Size: 24 * mib, Data: 4 * mib, Vmdisk: bin})
	for _, set := range []string{
		"copy", "copy host-fs=xfs", "copy host-fs=btrfs", "copy host-fs=ext4", "copy preallocation=falloc", "copy preallocation=full",
		"copy server=vmdisk", "copy server=qemu-nbd", "copy server=nbdkit cache=writeback", "copy server=qsd-nbd",
		"copy server=nbdkit cache=writethrough", "copy server=nbdkit cache=unsafe", "copy server=qsd-nbd cache=directsync iothread=on",
		"copy format=qcow2 server=qemu-nbd", "copy format=qcow2 server=qsd-nbd cluster-size=2M",
		"copy format=qcow2 server=qemu-nbd extended-l2=on cluster-size=128k", "copy format=qcow2 server=qemu-nbd preallocation=metadata",
		"copy format=qcow2 server=qemu-nbd preallocation=full l2-cache-size=1M", "copy pass=second",
		"reflink host-fs=xfs", "reflink host-fs=btrfs", "reflink host-fs=xfs format=qcow2 server=qemu-nbd",
		"overlay server=qemu-nbd", "overlay server=qemu-nbd pass=second", "overlay server=qsd-nbd l2-cache-size=1M host-fs=xfs",
		"overlay extended-l2=on preallocation=metadata server=qemu-nbd",
		"loop", "loop host-fs=xfs", "loop host-scheduler=mq-deadline", "loop server=vmdisk aio=io_uring", "loop server=luks",
		"tmpfs", "tmpfs server=vmdisk", "tmpfs format=qcow2 server=qemu-nbd", "tmpfs preallocation=full",
	} {
		t.Run(strings.ReplaceAll(set, " ", ","), func(t *testing.T) {
			su := parseSetup(t, set)
			got := prepare(t, s, su, spec.ClientHost, 2)
			checkIsolation(t, s, got)
			servers := su.Server != "none"
			for _, d := range got.Disks {
				if servers != (len(d.Processes) == 1) {
					t.Errorf("processes %v", d.Processes)
				}
			}
		})
	}
}

// parseSetup reads "BACKING AXIS=VALUE…".
func parseSetup(t *testing.T, text string) spec.Setup {
	t.Helper()
	su := setup(nil)
	words := strings.Fields(text)
	su.Backing = words[0]
	set := map[string]*string{"host-fs": &su.HostFS, "format": &su.Format, "preallocation": &su.Preallocation, "pass": &su.Pass,
		"server": &su.Server, "cache": &su.Cache, "aio": &su.AIO, "host-scheduler": &su.HostScheduler, "device": &su.Device}
	numbers := map[string]*int64{"cluster-size": &su.ClusterSize, "l2-cache-size": &su.L2Cache}
	for _, w := range words[1:] {
		name, value, _ := strings.Cut(w, "=")
		switch {
		case set[name] != nil:
			*set[name] = value
		case numbers[name] != nil:
			*numbers[name] = map[string]int64{"2M": 2 * mib, "1M": mib, "128k": 128 << 10}[value]
		case name == "extended-l2":
			su.ExtendedL2 = true
		case name == "iothread":
			su.IOThread = true
		default:
			t.Fatalf("unknown axis %q", name)
		}
	}
	return su
}
