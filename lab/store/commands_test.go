package store

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/vmdisk/vmdisk/lab/spec"
)

var update = flag.Bool("update", false, "write testdata")

// golden compares a text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; go test -update writes it anew. Got:\n%s", path, got)
	}
}

// TestServerCommands holds the command line of every server.
func TestServerCommands(t *testing.T) {
	t.Parallel()
	s := &Store{o: Options{Vmdisk: "/bin/vmdisk"}}
	file := image{path: "/d/a,1.raw", format: raw}
	loop := image{path: "/dev/loop3", block: true, format: raw}
	part := image{path: "/dev/disk/by-id/a,1", block: true, format: raw, limit: 1 << 30}
	partLUKS := image{path: "/dev/sdx", block: true, format: luks, keyFile: "/d/a.key", limit: 1<<30 + 2*mib}
	over := image{path: "/d/a.qcow2", format: qcow2, backing: "/d/golden.raw"}
	base := serving{socket: "/d/a.sock", cache: "none", aio: "native", pollMaxNS: -1}
	with := func(change func(o *serving)) serving {
		o := base
		change(&o)
		return o
	}
	sync := with(func(o *serving) { o.cache, o.aio = "writethrough", "threads" })
	unsafe := with(func(o *serving) { o.cache, o.aio, o.l2Cache = "unsafe", "threads", 4*mib })
	thread := with(func(o *serving) { o.iothread, o.pollMaxNS, o.queues = true, 32768, 4 })
	filters := with(func(o *serving) { o.aio, o.filters = "io_uring", []string{"delay:write=5ms", "stats"} })
	var b strings.Builder
	for _, c := range []command{
		s.vmdisk(file, filters), s.vmdisk(image{url: "mem:1G", format: raw}, base),
		qemuNBD(file, base), qemuNBD(loop, sync), qemuNBD(over, base), qemuNBD(over, unsafe),
		qemuNBD(image{path: "/d/a,1.luks", format: luks, keyFile: "/d/a,1.key"}, base),
		nbdkit(file, with(func(o *serving) { o.cache = "writeback" })), nbdkit(loop, sync), nbdkit(file, unsafe),
		storageDaemon(file, base, nbdExport(base)), storageDaemon(over, unsafe, nbdExport(unsafe)), storageDaemon(loop, sync, nbdExport(sync)),
		s.vmdisk(part, filters), qemuNBD(part, base), qemuNBD(partLUKS, base), nbdkit(part, sync), storageDaemon(part, base, nbdExport(base)),
		storageDaemon(loop, base, vhostUserExport(base)), storageDaemon(file, thread, vhostUserExport(thread)), storageDaemon(over, unsafe, vhostUserExport(unsafe)),
	} {
		fmt.Fprintln(&b, c)
	}
	target := target{socket: "/d/a.tgt", portal: "127.0.0.1:3261", name: "iqn.x:a", path: "/d/a.raw"}
	for _, c := range append([]command{target.daemon()}, target.setUp()...) {
		fmt.Fprintln(&b, strings.Join(c.env, " "), c)
	}
	golden(t, "servers", b.String())
}

// recorder is a runner that writes down what it is asked to run, and creates the
// device nodes that a command would.
type recorder struct {
	mu    sync.Mutex
	text  strings.Builder
	reply func(c command) (string, error)
}

func (r *recorder) run(_ context.Context, c command) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintln(&r.text, strings.TrimSpace(strings.Join(c.env, " ")+" "+c.String()))
	if r.reply != nil {
		return r.reply(c)
	}
	return "", nil
}

func TestLVMCommands(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	g := group{run: r.run, name: "vmdisk7_1", device: "/dev/loop3"}
	ctx := t.Context()
	for _, err := range []error{
		g.create(ctx), g.linear(ctx, "a", 100<<30), g.linear(ctx, "golden", 64*mib), g.snapshot(ctx, "golden", "a", 64*mib),
		g.pool(ctx, 200<<30), g.thin(ctx, "golden", 100<<30), g.thinSnapshot(ctx, "golden", "a"), g.remove(ctx),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	golden(t, "lvm", r.text.String())
}

// TestLVMSets runs all of a set but LVM itself: files in the place of volumes.
func TestLVMSets(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for kind, want := range map[string][]string{
		"lvm":          {"pvcreate", "vgcreate", "lvcreate a", "lvcreate b", "vgremove"},
		"lvm-snapshot": {"pvcreate", "vgcreate", "lvcreate golden", "lvcreate a", "lvcreate b", "vgremove"},
		"lvm-thin":     {"pvcreate", "vgcreate", "lvcreate pool", "lvcreate golden", "lvcreate a", "lvcreate b", "vgremove"},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, Options{})
			var got []string
			dir := ""
			r := &recorder{reply: func(c command) (string, error) {
				name := c.name
				if i := indexOf(c.args, "--name"); i >= 0 {
					name += " " + c.args[i+1]
					group, _, _ := strings.Cut(c.args[len(c.args)-1], "/")
					dir = filepath.Join("/dev", group)
					if err := os.MkdirAll(dir, 0o700); err != nil {
						return "", err
					}
					f, err := os.Create(filepath.Join(dir, c.args[i+1]))
					if err == nil {
						err = f.Close()
					}
					if err != nil {
						return "", err
					}
				}
				got = append(got, name)
				return "", nil
			}}
			s.run = r.run
			set, err := s.Prepare(t.Context(), setup(func(su *spec.Setup) { su.Backing = kind }), spec.ClientGuest, 2)
			if dir != "" {
				defer os.RemoveAll(dir)
			}
			if err != nil {
				t.Fatal(err)
			}
			for i, d := range set.Disks {
				if d.Source.Path != filepath.Join(dir, nodeName(i)) || d.Source.Driver != "host_device" || d.Source.Format != raw {
					t.Errorf("node %s: %+v", nodeName(i), d.Source)
				}
			}
			if err := set.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if strings.Join(got, ", ") != strings.Join(want, ", ") {
				t.Errorf("ran %q, want %q", got, want)
			}
		})
	}
}

func indexOf(list []string, what string) int {
	for i, v := range list {
		if v == what {
			return i
		}
	}
	return -1
}

func TestZFSCommands(t *testing.T) {
	t.Parallel()
	r, root := &recorder{}, t.TempDir()
	z := zpool{run: r.run, name: "vmdisk7_1", file: "/d/zfs.img", sys: root, dev: filepath.Join(root, "dev")}
	ctx := t.Context()
	for _, err := range []error{
		z.create(ctx), z.volume(ctx, "golden", 100<<30, volBlock), z.snapshot(ctx, "golden"), z.clone(ctx, "golden", "a"), z.destroy(ctx),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	golden(t, "zfs", r.text.String())
}

// TestZvolDevice finds a volume's device by its name, and without udev by zvol_id.
func TestZvolDevice(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := &recorder{reply: func(c command) (string, error) {
		return map[string]string{"zd0": "tank/other\n", "zd16": "vmdisk7_1/a\n"}[filepath.Base(c.args[0])], nil
	}}
	z := zpool{run: r.run, name: "vmdisk7_1", sys: root, dev: filepath.Join(root, "dev")}
	for _, n := range []string{"block/zd0", "block/zd16", "dev/zvol/vmdisk7_1/b"} {
		if err := os.MkdirAll(filepath.Join(root, n), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"a": "dev/zd16", "b": "dev/zvol/vmdisk7_1/b"} {
		if got, err := z.device(t.Context(), name); err != nil || got != filepath.Join(root, want) {
			t.Errorf("volume %s: %s, %v", name, got, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := z.device(ctx, "c"); err == nil {
		t.Error("a volume without a device was found")
	}
}

// TestUndoPool destroys a pool on our file only.
func TestUndoPool(t *testing.T) {
	t.Parallel()
	s := newStore(t, Options{})
	file := filepath.Join(s.o.Dir, "set1/zfs.img")
	e := entry{Kind: kindPool, Name: "vmdisk7_1", Path: file}
	for _, c := range []struct {
		list    string
		err     error
		destroy bool
		bad     string
	}{
		{list: "vmdisk7_1\t1G\n\t" + file + "\t1G\n", destroy: true},
		{list: "vmdisk7_1\t1G\n\t/dev/sdb\t1G\n", bad: "not ours"},
		{err: &commandError{stderr: "cannot open 'vmdisk7_1': no such pool"}},
		{err: &commandError{err: os.ErrPermission, stderr: "permission denied"}, bad: "permission denied"},
	} {
		destroyed := false
		s.run = func(_ context.Context, cmd command) (string, error) {
			destroyed = destroyed || cmd.args[0] == "destroy"
			return c.list, c.err
		}
		err := s.undo(t.Context(), e)
		if destroyed != c.destroy || (c.bad == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.bad) {
			t.Errorf("%+v: destroyed %t, %v", c, destroyed, err)
		}
	}
}

// TestLIO makes and removes a target in a folder in the place of configfs, which
// removes a folder with the attributes in it.
func TestLIO(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	l := lio{root: root, name: "vmdisk7_1a", wwpn: "naa.5000007000000100", rmdir: func(path string) error {
		entries, err := os.ReadDir(path)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.Type().IsRegular() {
				os.Remove(filepath.Join(path, e.Name()))
			}
		}
		os.Remove(filepath.Join(path, "lun")) // made by the kernel with the group
		return os.Remove(path)
	}}
	if err := l.create("/dev/loop3"); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"core/iblock_0/vmdisk7_1a/control": "udev_path=/dev/loop3", "core/iblock_0/vmdisk7_1a/enable": "1",
		"vhost/naa.5000007000000100/tpgt_1/nexus": "naa.5000007000000100",
	} {
		if got, err := os.ReadFile(filepath.Join(root, path)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	link := filepath.Join(root, "vhost/naa.5000007000000100/tpgt_1/lun/lun_0/vmdisk7_1a")
	if to, err := os.Readlink(link); err != nil || to != filepath.Join(root, "core/iblock_0/vmdisk7_1a") {
		t.Errorf("%s: %q, %v", link, to, err)
	}
	for range 2 { // the second time nothing is there
		if err := l.remove(); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(filepath.Join(root, "core")); err != nil || len(left) > 0 || exists(filepath.Join(root, "vhost")) {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestFiltersFor(t *testing.T) {
	t.Parallel()
	const text = "stats b@delay:write=40ms,zero=5ms nozero:zeromode=emulate"
	for node, want := range map[string]string{
		"a": "stats nozero:zeromode=emulate",
		"b": "stats delay:write=40ms,zero=5ms nozero:zeromode=emulate",
	} {
		got, err := filtersFor(text, node)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("node %s: %q, %v", node, got, err)
		}
	}
	if _, err := filtersFor("a@delay:write", "a"); err == nil {
		t.Error("a filter that can't be parsed was taken")
	}
}
