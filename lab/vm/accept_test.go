package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/interop/peer"
	"github.com/vmdisk/vmdisk/lab/spec"
)

// accepted is a guest that QEMU has to take, and properties that its disk's device
// has then.
type accepted struct {
	variant
	want map[string]any
}

var acceptances = []accepted{
	{variant{"virtio-blk", device(virtioBlk, spec.Source{})}, nil},
	{variant{"virtio-blk queues", queued(3, device(virtioBlk, spec.Source{}))}, map[string]any{"num-queues": 3.0}},
	{variant{"virtio-scsi", queued(2, device(virtioSCSI, spec.Source{}))}, nil},
	{variant{"ide", device(ide, spec.Source{})}, nil},
	{variant{"ide q35", on("q35", device(ide, spec.Source{}))}, nil},
	{variant{"nvme", queued(5, device(nvme, spec.Source{}))}, map[string]any{"max_ioqpairs": 5.0}},
	{variant{"nvme q35", on("q35", device(nvme, spec.Source{}))}, nil},
	{variant{"microvm virtio-blk", on("microvm", device(virtioBlk, spec.Source{}))}, nil},
	{variant{"microvm virtio-scsi", on("microvm", device(virtioSCSI, spec.Source{}))}, nil},
	{variant{"microvm nvme", on("microvm", device(nvme, spec.Source{}))}, nil},
	{variant{"iothread", threaded(virtioBlk, spec.Source{}, 16384)}, map[string]any{"iothread": "/objects/" + idThread}},
	{variant{"iothread virtio-scsi q35", on("q35", threaded(virtioSCSI, spec.Source{}, 0))}, nil},
	{variant{"writethrough", func(c *Config) { c.Setup.Cache = "writethrough" }}, map[string]any{"write-cache": "off"}},
	{variant{"directsync io_uring", func(c *Config) { c.Setup.Cache, c.Setup.AIO = "directsync", "io_uring" }}, map[string]any{"write-cache": "off"}},
	{variant{"unsafe", func(c *Config) { c.Setup.Cache = "unsafe" }}, map[string]any{"write-cache": "on"}},
	{variant{"native", func(c *Config) { c.Setup.AIO = "native" }}, nil},
	{variant{"numa", func(c *Config) { c.Setup.NUMA = "0:0" }}, nil},
	{variant{"ext4 and scheduler", func(c *Config) { c.FileSystem, c.Setup.GuestScheduler = "ext4", "kyber" }}, nil},
}

// TestAccepted starts QEMU with command lines as they come out of Argv, without
// running the guest, and asks its monitor for the disk.
func TestAccepted(t *testing.T) {
	t.Parallel()
	needQEMU(t)
	for _, a := range acceptances {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			c := guest(t, kit(t, exitKit))
			disk := c.Disk
			a.change(&c)
			c.Disk = disk
			v := hold(t, c)
			checkBlock(t, v, c)
			for name, want := range a.want {
				if got := property(t, v, name); got != want {
					t.Errorf("%s is %v, want %v", name, got, want)
				}
			}
		})
	}
}

// TestAcceptedFormats: image formats over a file.
func TestAcceptedFormats(t *testing.T) {
	t.Parallel()
	needQEMU(t, "qemu-img")
	qcow2 := func(c *Config, args ...string) {
		c.Disk.Path += ".qcow2"
		c.Disk.Format = "qcow2"
		tool(t, append([]string{"qemu-img", "create", "-q", "-f", "qcow2"}, append(args, c.Disk.Path, "4M")...)...)
	}
	for _, v := range []variant{
		{"qcow2", func(c *Config) { qcow2(c); c.Setup.L2Cache = 1 << 20 }},
		{"overlay", func(c *Config) {
			base := c.Disk.Path
			qcow2(c, "-b", base, "-F", "raw")
			c.Disk.Backing, c.Setup.AIO = base, "native"
		}},
		{"image that names a backing file which the lab does not", func(c *Config) {
			base := c.Disk.Path
			qcow2(c, "-b", base, "-F", "raw")
			if err := os.Remove(base); err != nil {
				t.Error(err)
			}
		}},
		{"luks", func(c *Config) {
			c.Disk.Format, c.Disk.KeyFile = "luks", filepath.Join(c.Dir, "key,1")
			if err := os.WriteFile(c.Disk.KeyFile, []byte("secret"), 0o600); err != nil {
				t.Error(err)
			}
			tool(t, "qemu-img", "create", "-q", "-f", "luks", "--object", "secret,id=k,file="+quote(c.Disk.KeyFile),
				"-o", "key-secret=k,iter-time=10", c.Disk.Path, "4M")
		}},
		{"guest image", func(c *Config) {
			disk := c.Disk.Path
			qcow2(c)
			c.Guest.Image, c.Guest.ImageFormat = c.Disk.Path, "qcow2"
			c.Disk.Path, c.Disk.Format = disk, "raw"
		}},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			c := guest(t, kit(t, exitKit))
			v.change(&c)
			checkBlock(t, hold(t, c), c)
		})
	}
}

// TestAcceptedPart: of a larger file or device the guest gets what is its disk.
func TestAcceptedPart(t *testing.T) {
	t.Parallel()
	needQEMU(t, "qemu-img")
	for _, v := range []variant{
		{"raw", func(c *Config) { c.Disk.Size = 3 << 20 }},
		{"luks", func(c *Config) {
			c.Disk.Format, c.Disk.KeyFile = "luks", filepath.Join(c.Dir, "key")
			write(t, c.Disk.KeyFile, []byte("secret"))
			tool(t, "qemu-img", "create", "-q", "-f", "luks", "--object", "secret,id=k,file="+c.Disk.KeyFile, "-o", "key-secret=k,iter-time=10", c.Disk.Path, "3M")
			st, err := os.Stat(c.Disk.Path)
			if err != nil {
				t.Error(err) // this is the outer test: Fatal would end another goroutine than its own
				return
			}
			c.Disk.Size = st.Size()
			if err := os.Truncate(c.Disk.Path, st.Size()+5<<20); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			c := guest(t, kit(t, exitKit))
			v.change(&c)
			vm := hold(t, c)
			checkBlock(t, vm, c)
			var nodes []struct {
				Name  string `json:"node-name"`
				Image struct {
					Size int64 `json:"virtual-size"`
				} `json:"image"`
			}
			ask(t, vm, "query-named-block-nodes", nil, &nodes)
			sizes := map[string]int64{}
			for _, n := range nodes {
				sizes[n.Name] = n.Image.Size
			}
			if sizes[diskNode] != 3<<20 || sizes[wholeNode] <= sizes[diskNode] {
				t.Errorf("sizes %v", sizes)
			}
		})
	}
}

// TestAcceptedServers: disks that another process has.
func TestAcceptedServers(t *testing.T) {
	t.Parallel()
	needQEMU(t, "qemu-storage-daemon")
	for _, v := range []struct {
		variant
		export string
	}{
		{variant{"nbd", func(c *Config) {
			c.Disk = spec.Source{Driver: "nbd", Socket: c.Disk.Socket, Export: "disk a", Format: "raw"}
		}}, "type=nbd,id=e,name=disk a"},
		{variant{"nbd writethrough", func(c *Config) {
			c.Disk = spec.Source{Driver: "nbd", Socket: c.Disk.Socket, Export: "disk a", Format: "raw"}
			c.Setup.Cache = "writethrough"
		}}, "type=nbd,id=e,name=disk a"},
		{variant{"vhost-user-blk", func(c *Config) {
			device(vhostUserBlk, spec.Source{Driver: "vhost-user", Socket: c.Disk.Socket})(c)
		}}, "type=vhost-user-blk,id=e,num-queues=2"},
		{variant{"vhost-user-blk q35 numa", func(c *Config) {
			on("q35", queued(2, device(vhostUserBlk, spec.Source{Driver: "vhost-user", Socket: c.Disk.Socket})))(c)
			c.Setup.NUMA = "0:0"
		}}, "type=vhost-user-blk,id=e,num-queues=2"},
		{variant{"vhost-user-blk microvm", func(c *Config) {
			on("microvm", device(vhostUserBlk, spec.Source{Driver: "vhost-user", Socket: c.Disk.Socket}))(c)
		}}, "type=vhost-user-blk,id=e,num-queues=1"},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			c := guest(t, kit(t, exitKit))
			c.Disk.Socket = filepath.Join(c.Dir, "server")
			storageDaemon(t, c.Disk.Path, c.Disk.Socket, v.export)
			v.change(&c)
			checkBlock(t, hold(t, c), c)
		})
	}
}

// storageDaemon exports a file at a unix socket until the test ends.
func storageDaemon(t *testing.T, file, socket, export string) {
	t.Helper()
	argv := []string{"qemu-storage-daemon", "--blockdev", "driver=file,node-name=d,filename=" + file}
	if export[:8] == "type=nbd" {
		argv = append(argv, "--nbd-server", "addr.type=unix,addr.path="+socket)
	} else {
		export += ",addr.type=unix,addr.path=" + socket
	}
	p, err := peer.Start("qemu-storage-daemon", append(argv, "--export", export+",node-name=d,writable=on"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Kill(); _ = p.Wait() })
	for begun := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			return
		}
		if time.Since(begun) > time.Minute {
			t.Fatalf("qemu-storage-daemon made no socket: %s", p.Stderr())
		}
	}
}

func tool(t *testing.T, argv ...string) {
	t.Helper()
	for tries := 1; ; tries++ {
		out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput()
		// qemu-img times its own key derivation for LUKS, and gives up where a busy machine
		// lets it measure nothing.
		if err != nil && tries < 20 && bytes.Contains(out, []byte("Unable to get accurate CPU usage")) {
			continue
		}
		if err != nil {
			t.Errorf("%q: %v: %s", argv, err, out)
		}
		return
	}
}

// hold starts QEMU and leaves the guest where it is before its first instruction.
func hold(t *testing.T, c Config) *VM {
	t.Helper()
	words, err := c.ready()
	if err != nil {
		t.Fatal(err)
	}
	v := newVM(c.Dir)
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := v.start(ctx, c, words); err != nil {
		t.Fatalf("%v\n%q", v.explained(err), words)
	}
	return v
}

// checkBlock asks for the device and, where QEMU's block layer has it, for the
// cache mode below it.
func checkBlock(t *testing.T, v *VM, c Config) {
	t.Helper()
	type child struct{ Name string }
	var list []child
	ask(t, v, "qom-list", map[string]string{"path": "/machine/peripheral"}, &list)
	if !slices.Contains(list, child{idData}) {
		t.Fatalf("no device %s among %+v", idData, list)
	}
	if blockless(c.Setup.Device) {
		return
	}
	var blocks []struct {
		QDev     string `json:"qdev"`
		Inserted struct {
			Node  string `json:"node-name"`
			Cache struct{ Direct, Writeback bool }
			RO    bool `json:"ro"`
		} `json:"inserted"`
	}
	ask(t, v, "query-block", nil, &blocks)
	mode := cacheModes[c.Setup.Cache]
	for _, b := range blocks {
		if b.Inserted.Node != diskNode {
			continue
		}
		if b.Inserted.RO || b.Inserted.Cache.Direct != mode.direct || b.Inserted.Cache.Writeback != mode.writeCache {
			t.Errorf("the disk is %+v, want the cache mode %+v", b, mode)
		}
		return
	}
	t.Errorf("no device has the node %s: %+v", diskNode, blocks)
}

func property(t *testing.T, v *VM, name string) any {
	t.Helper()
	var got any
	ask(t, v, "qom-get", map[string]string{"path": "/machine/peripheral/" + idData, "property": name}, &got)
	return got
}

func ask(t *testing.T, v *VM, command string, args, reply any) {
	t.Helper()
	var raw json.RawMessage
	if err := v.QMP(t.Context(), command, args, &raw); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, reply); err != nil {
		t.Fatalf("%s: %v: %s", command, err, raw)
	}
}
