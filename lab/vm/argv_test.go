package vm

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/lab/spec"
)

var update = flag.Bool("update", false, "write the golden files anew")

// plain is a guest with nothing special.
func plain() Config {
	return Config{
		Name: "a", Dir: "/run/a", FileSystem: "none", Accel: AccelTCG,
		Guest: spec.Guest{Memory: 256 << 20, CPUs: 1, Machine: "pc", Boot: "kernel"},
		Setup: spec.Defaults(),
		Disk:  spec.Source{Driver: "file", Path: "/data/a.img", Format: "raw"},
		Kit:   &Kit{Kernel: "/boot/vmlinuz", dir: "/kit", khz: 2100000},
	}
}

// variant is one change of plain.
type variant struct {
	name   string
	change func(*Config)
}

// groups are the golden files of TestArgv: axis by axis.
var groups = map[string][]variant{
	"device":   devices,
	"iothread": iothreads,
	"format":   formats,
	"cache":    caches,
	"numa":     placements,
	"guest":    guests,
	"source":   drivers,
	"vsock":    vsocks,
}

func device(name string, src spec.Source) func(*Config) {
	return func(c *Config) { c.Setup.Device, c.Disk = name, src }
}

var (
	rawFile   = spec.Source{Driver: "file", Path: "/data/a.img", Format: "raw"}
	vhostUser = spec.Source{Driver: "vhost-user", Socket: "/run/a/vu,1.sock"}
	vhostWWPN = spec.Source{Driver: "vhost-scsi", Path: "naa.5001405f5d0e1f2a"}
	vfio      = spec.Source{Driver: "vfio", Path: "0000:01:00.0"}
	nvmeHost  = spec.Source{Driver: "nvme", Path: "0000:01:00.0", Format: "raw"}
)

func queued(n int, change func(*Config)) func(*Config) {
	return func(c *Config) { change(c); c.Setup.Queues = n }
}

func on(machine string, change func(*Config)) func(*Config) {
	return func(c *Config) { change(c); c.Guest.Machine = machine }
}

var devices = []variant{
	{"virtio-blk", device(virtioBlk, rawFile)},
	{"virtio-blk queues=4", queued(4, device(virtioBlk, rawFile))},
	{"virtio-scsi", device(virtioSCSI, rawFile)},
	{"virtio-scsi queues=2", queued(2, device(virtioSCSI, rawFile))},
	{"ide", device(ide, rawFile)},
	{"ide on q35", on("q35", device(ide, rawFile))},
	{"ide on q35, kernel without ahci", func(c *Config) {
		on("q35", device(ide, rawFile))(c)
		c.Kit.Lacks = []string{"ahci"}
	}},
	{"nvme", device(nvme, rawFile)},
	{"nvme queues=8", queued(8, device(nvme, rawFile))},
	{"vhost-user-blk", device(vhostUserBlk, vhostUser)},
	{"vhost-user-blk queues=2", queued(2, device(vhostUserBlk, vhostUser))},
	{"vhost-scsi", device(vhostSCSI, vhostWWPN)},
	{"vhost-scsi queues=2", queued(2, device(vhostSCSI, vhostWWPN))},
	{"nvme-userspace", device(nvmeUserspace, nvmeHost)},
	{"vfio-pci", device(vfioPCI, vfio)},
	{"microvm virtio-blk", on("microvm", device(virtioBlk, rawFile))},
	{"microvm virtio-scsi", on("microvm", device(virtioSCSI, rawFile))},
	{"microvm nvme", on("microvm", device(nvme, rawFile))},
	{"microvm vhost-user-blk", on("microvm", device(vhostUserBlk, vhostUser))},
	{"microvm vhost-scsi", on("microvm", device(vhostSCSI, vhostWWPN))},
	{"microvm vfio-pci", on("microvm", device(vfioPCI, vfio))},
}

func threaded(name string, src spec.Source, poll int64) func(*Config) {
	return func(c *Config) {
		c.Setup.Device, c.Disk, c.Setup.IOThread, c.Setup.PollMaxNS = name, src, true, poll
	}
}

var iothreads = []variant{
	{"iothread=on", threaded(virtioBlk, rawFile, -1)},
	{"iothread=on poll-max-ns=0", threaded(virtioBlk, rawFile, 0)},
	{"iothread=on poll-max-ns=32768", threaded(virtioBlk, rawFile, 32768)},
	{"iothread=on virtio-scsi", threaded(virtioSCSI, rawFile, -1)},
	{"iothread=on nvme-userspace", threaded(nvmeUserspace, nvmeHost, 0)},
	{"iothread=on microvm with KVM", func(c *Config) {
		on("microvm", threaded(virtioSCSI, rawFile, -1))(c)
		c.Accel = AccelKVM
	}},
}

var formats = []variant{
	{"raw", func(*Config) {}},
	{"qcow2", func(c *Config) { c.Disk.Format = "qcow2" }},
	{"qcow2 l2-cache-size=1M", func(c *Config) { c.Disk.Format, c.Setup.L2Cache = "qcow2", 1<<20 }},
	{"qcow2 overlay", func(c *Config) {
		c.Disk.Format, c.Disk.Backing, c.Setup.AIO = "qcow2", "/data/golden.img", "io_uring"
	}},
	{"luks", func(c *Config) { c.Disk.Format, c.Disk.KeyFile = "luks", "/data/key,1" }},
}

var caches = func() []variant {
	var all []variant
	for _, cache := range []string{"writeback", "none", "writethrough", "directsync", "unsafe"} {
		for _, aio := range []string{"threads", "native", "io_uring"} {
			if aio == "native" && !cacheModes[cache].direct {
				continue // a refusal
			}
			all = append(all, variant{"cache=" + cache + " aio=" + aio, func(c *Config) { c.Setup.Cache, c.Setup.AIO = cache, aio }})
		}
	}
	return append(all,
		variant{"cache=writethrough virtio-scsi", func(c *Config) { c.Setup.Device, c.Setup.Cache = virtioSCSI, "writethrough" }},
		variant{"cache=writethrough aio=native nbd", func(c *Config) {
			c.Disk = spec.Source{Driver: "nbd", Socket: "/run/s", Format: "raw"}
			c.Setup.Cache, c.Setup.AIO = "writethrough", "native"
		}})
}()

var placements = []variant{
	{"numa=off", func(c *Config) { c.Setup.NUMA = "off" }},
	{"numa=0:0", func(c *Config) { c.Setup.NUMA = "0:0" }},
	{"numa=0:1", func(c *Config) { c.Setup.NUMA = "0:1" }},
	{"numa=1:0 vhost-user-blk", func(c *Config) {
		device(vhostUserBlk, vhostUser)(c)
		c.Setup.NUMA = "1:0"
	}},
}

var guests = []variant{
	{"machine=pc", func(*Config) {}},
	{"machine=q35", on("q35", func(*Config) {})},
	{"machine=microvm", on("microvm", func(*Config) {})},
	{"accel=kvm", func(c *Config) { c.Accel = AccelKVM }},
	{"memory and CPUs", func(c *Config) { c.Guest.Memory, c.Guest.CPUs = 2<<30, 4 }},
	{"rate of the TSC not known", func(c *Config) { c.Kit.khz = 0 }},
	{"paths with commas", func(c *Config) { c.Dir, c.Disk.Path = "/run/a,b", "/data/a,b=c.img" }},
	{"file system ext4", func(c *Config) { c.FileSystem = "ext4" }},
	{"file system not known", func(c *Config) { c.FileSystem = "" }},
	{"guest-scheduler=bfq", func(c *Config) { c.Setup.GuestScheduler = "bfq" }},
	{"kernel and image", func(c *Config) { c.Guest.Image, c.Guest.ImageFormat = "/data/root,1.qcow2", "qcow2" }},
	{"kernel and image on microvm", func(c *Config) {
		c.Guest.Machine, c.Guest.Image, c.Guest.ImageFormat = "microvm", "/data/root.raw", "raw"
	}},
	{"boot=image", func(c *Config) {
		c.Guest.Boot, c.Guest.Image, c.Guest.ImageFormat, c.Kit = "image", "/data/root.raw", "raw", nil
	}},
	{"boot=image ide on q35", func(c *Config) {
		on("q35", device(ide, rawFile))(c)
		c.Guest.Boot, c.Guest.Image, c.Guest.ImageFormat, c.Kit = "image", "/data/root.raw", "raw", nil
	}},
}

var drivers = []variant{
	{"file", func(*Config) {}},
	{"host_device", func(c *Config) {
		c.Disk = spec.Source{Driver: "host_device", Path: "/dev/loop7", Format: "raw"}
	}},
	{"host_device of which a part is used", func(c *Config) {
		c.Disk = spec.Source{Driver: "host_device", Path: "/dev/loop7", Format: "raw", Size: 1 << 30}
	}},
	{"host_device of which a part is a LUKS image", func(c *Config) {
		c.Disk = spec.Source{Driver: "host_device", Path: "/dev/loop7", Format: "luks", KeyFile: "/k", Size: 1 << 30}
	}},
	{"nbd", func(c *Config) {
		c.Disk = spec.Source{Driver: "nbd", Socket: "/run/nbd.sock", Export: "disk ä", Format: "raw"}
	}},
	{"nbd qcow2", func(c *Config) {
		c.Disk = spec.Source{Driver: "nbd", Socket: "/run/nbd.sock", Format: "qcow2"}
	}},
	{"iscsi", func(c *Config) {
		c.Disk = spec.Source{Driver: "iscsi", URL: "iscsi://127.0.0.1/iqn.2003-01.org.example:a/0", Format: "raw"}
	}},
	{"iscsi IPv6 and port", func(c *Config) {
		c.Disk = spec.Source{Driver: "iscsi", URL: "iscsi://[::1]:3261/iqn.2003-01.org.example:a/7", Format: "raw"}
	}},
	{"nvme", func(c *Config) { c.Disk = nvmeHost }},
	{"vhost-user", device(vhostUserBlk, vhostUser)},
	{"vhost-scsi", device(vhostSCSI, vhostWWPN)},
	{"vfio", device(vfioPCI, vfio)},
}

func withVsock(change func(*Config)) func(*Config) {
	return func(c *Config) { change(c); c.vsock = vsock{cid: 4711, port: 1110548332} }
}

var vsocks = []variant{
	{"channel=serial", func(c *Config) { c.Guest.Channel = channelSerial }},
	{"vsock", withVsock(func(*Config) {})},
	{"vsock on microvm", withVsock(on("microvm", func(*Config) {}))},
	{"vsock, boot=image", withVsock(func(c *Config) {
		c.Guest.Boot, c.Guest.Image, c.Guest.ImageFormat, c.Kit = "image", "/data/root.raw", "raw", nil
	})},
}

// TestArgv compares QEMU's command line for every value of every axis with what it
// was found to be right: the plain guest's in full, the others' by what differs.
func TestArgv(t *testing.T) {
	t.Parallel()
	c := plain()
	base := mustArgv(t, c)
	golden(t, "plain", strings.Join(base, "\n")+"\n")
	for group, variants := range groups {
		t.Run(group, func(t *testing.T) {
			t.Parallel()
			var text strings.Builder
			for _, v := range variants {
				c := plain()
				v.change(&c)
				fmt.Fprintf(&text, "# %s\n%s\n", v.name, difference(base, mustArgv(t, c)))
			}
			golden(t, group, text.String())
		})
	}
}

// mustArgv is the command line, an option with its value on each line.
func mustArgv(t *testing.T, c Config) []string {
	t.Helper()
	words, err := Argv(c)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, w := range words {
		if strings.HasPrefix(w, "-") || len(lines) == 0 {
			lines = append(lines, w)
			continue
		}
		lines[len(lines)-1] += " " + w
	}
	return lines
}

// difference lists lines that went and came, with their numbers.
func difference(old, now []string) string {
	var out strings.Builder
	for i, line := range old {
		if !slices.Contains(now, line) {
			fmt.Fprintf(&out, "-%d %s\n", i+1, line)
		}
	}
	var kept []string
	for i, line := range now {
		if slices.Contains(old, line) {
			kept = append(kept, line)
			continue
		}
		fmt.Fprintf(&out, "+%d %s\n", i+1, line)
	}
	// What is not shown stands in the old order.
	want := slices.DeleteFunc(slices.Clone(old), func(line string) bool { return !slices.Contains(now, line) })
	if !slices.Equal(kept, want) {
		fmt.Fprintf(&out, "order %q\n", kept)
	}
	return out.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", "argv", name+".txt")
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: go test -update writes it", err)
	}
	if got != string(want) {
		t.Errorf("%s: after a look, go test -update writes it; got\n%s\nwant\n%s", file, got, want)
	}
}
