package store

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/diskurl"
	"github.com/vmdisk/vmdisk/lab/spec"
)

// userDevice is a loop device of somebody else.
func userDevice(t *testing.T, size int64) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "user.img")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	name, err := attach(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := detach(name); err != nil {
			t.Error(err)
		}
	})
	return "/dev/" + name
}

func runTool(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := findProgram(name)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func onDevices(paths ...string) spec.Setup {
	return setup(func(su *spec.Setup) { su.Backing = "device:" + strings.Join(paths, ";") })
}

func TestDevice(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needProgram(t, "mke2fs", "blkid")
	s := newStore(t, Options{FileSystem: "ext4", Data: 4 * mib, Size: 64 * mib})
	a, b := userDevice(t, 70*mib), userDevice(t, 64*mib)
	su := onDevices(a, b)
	su.HostScheduler = "bfq"
	queue, err := queueFolder(filepath.Base(a))
	if err != nil {
		t.Fatal(err)
	}
	attr := filepath.Join(queue, "scheduler")
	before, err := os.ReadFile(attr)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // what the first run left must not keep out the second
		set := prepare(t, s, su, spec.ClientHost, 2)
		if now, err := os.ReadFile(attr); err != nil || !strings.Contains(string(now), "[bfq]") {
			t.Errorf("scheduler %q, %v", now, err)
		}
		checkIsolation(t, s, set)
		if err := set.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if now, err := os.ReadFile(attr); err != nil || string(now) != string(before) {
			t.Errorf("scheduler %q afterwards, %q before, %v", now, before, err)
		}
	}
	if why := s.Missing(t.Context(), onDevices(a, b), spec.ClientHost, 2, 0); len(why) > 0 {
		t.Errorf("devices are not blank again: %q", why)
	}
	runTool(t, "mke2fs", "-q", "-F", b)
	at := t.TempDir()
	for _, c := range []struct {
		path, want string
		prepare    func()
	}{
		{b, "holds ext", func() {}},
		{b, "is in use", func() { runTool(t, "mount", b, at) }},
		{userDevice(t, 32*mib), "has 32 MiB, the disk of a node 64 MiB", func() {}},
	} {
		c.prepare()
		why := s.Missing(t.Context(), onDevices(c.path), spec.ClientHost, 1, 0)
		_, err := s.Prepare(t.Context(), onDevices(c.path), spec.ClientHost, 1)
		if len(why) != 1 || !strings.Contains(why[0], c.want) || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q and %v, want %q", c.path, why, err, c.want)
		}
	}
	runTool(t, "umount", at)
}

// TestLargerDevice: of a device that is larger than the disk only the disk is used, by
// every server, or it is refused.
func TestLargerDevice(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needProgram(t, "blkid", "qemu-nbd", "qemu-img", "nbdkit", "qemu-storage-daemon")
	const size = 16 * mib
	s := newStore(t, Options{FileSystem: "none", Data: 4 * mib, Size: size, Vmdisk: vmdiskBinary(t)})
	dev := userDevice(t, 40*mib)
	marks := markBehind(t, dev, size+luksRoom)
	for _, server := range []string{"none", "vmdisk", "qemu-nbd", "nbdkit", "qsd-nbd", "luks"} {
		for _, pass := range []string{"first", "second"} {
			if pass == "second" && server != "none" && server != luks {
				continue // they have no part in it
			}
			su := onDevices(dev)
			su.Server, su.Pass, su.Cache = server, pass, "writeback"
			set := prepare(t, s, su, spec.ClientHost, 1)
			d := set.Disks[0]
			x, err := diskurl.Open(t.Context(), d.URL, diskurl.Options{FileOptions: diskurl.FileOptions{Cache: d.Cache, AIO: d.AIO}, Filters: d.Filters})
			if err != nil {
				t.Fatalf("server=%s: %v", server, err)
			}
			if x.Size() != size {
				t.Errorf("server=%s: the disk has %d bytes, want %d", server, x.Size(), size)
			}
			if err := x.WriteAt(t.Context(), make([]byte, 4096), size-4096, 0); err != nil {
				t.Errorf("server=%s: its last block: %v", server, err)
			}
			if err := x.Close(); err != nil {
				t.Error(err)
			}
			marks(server)
			if err := set.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, server := range []string{"none", "luks"} { // as QEMU opens them for a guest
		su := onDevices(dev)
		su.Server = server
		set := prepare(t, s, su, spec.ClientGuest, 1)
		if got := set.Disks[0].Source.Size; got < size || got > size+luksRoom || server == "none" && got != size {
			t.Errorf("server=%s: a guest gets %d bytes of the device", server, got)
		}
		if err := set.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, refused := range []struct {
		set  func(*spec.Setup)
		want string
	}{
		{func(su *spec.Setup) { su.Server = "iscsi" }, "server=iscsi uses all of it"},
		{func(su *spec.Setup) { su.Device = "vhost-scsi" }, "device=vhost-scsi uses all of it"},
	} {
		su := onDevices(dev)
		refused.set(&su)
		why := strings.Join(s.Missing(t.Context(), su, spec.ClientGuest, 1, 0), " | ")
		_, err := s.Prepare(t.Context(), su, spec.ClientGuest, 1)
		want := refused.want + ", the disk of a node has 16 MiB: give a partition or volume of that size, or --set disk=41943040"
		if !strings.Contains(why, want) || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q and %v, want %q", why, err, want)
		}
	}
}

// TestDeviceHeld: a device that is held for a moment, as by a process that is being
// forked, is waited for; one that stays held is refused.
func TestDeviceHeld(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needProgram(t, "blkid")
	dev := userDevice(t, 64*mib)
	s := newStore(t, Options{})
	hold := func() *os.File {
		f, err := os.OpenFile(dev, os.O_RDWR|unix.O_EXCL, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := hold()
	if why := s.Missing(t.Context(), onDevices(dev), spec.ClientHost, 1, 0); len(why) != 1 || !strings.Contains(why[0], "is in use") {
		t.Errorf("a device that is held: %q", why)
	}
	soon := func(f *os.File) { time.AfterFunc(50*time.Millisecond, func() { _ = f.Close() }) }
	soon(f)
	set := prepare(t, s, onDevices(dev), spec.ClientHost, 1)
	soon(hold())
	if err := set.Close(t.Context()); err != nil {
		t.Errorf("a device that is held for a moment: %v", err)
	}
}

// markBehind writes to a device from an offset on, all but its last MiB (which is
// blanked afterwards), and returns a check that it is unharmed.
func markBehind(t *testing.T, dev string, from int64) func(what string) {
	t.Helper()
	open := func() *os.File {
		f, err := os.OpenFile(dev, os.O_RDWR|unix.O_DIRECT, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	// Aligned, as O_DIRECT wants it: past the page cache, which servers have passed too.
	block := func() []byte {
		p, err := unix.Mmap(-1, 0, mib, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Munmap(p) })
		return p
	}
	want, got := block(), block()
	for i := range want {
		want[i] = byte(i*7 + i>>8)
	}
	each := func(do func(f *os.File, off int64) error) {
		f := open()
		defer f.Close()
		end, err := f.Seek(0, 2)
		for off := from; off+mib <= end-mib && err == nil; off += mib {
			err = do(f, off)
		}
		if err != nil {
			t.Error(err)
		}
	}
	each(func(f *os.File, off int64) error { _, err := f.WriteAt(want, off); return err })
	return func(what string) {
		t.Helper()
		each(func(f *os.File, off int64) error {
			_, err := f.ReadAt(got, off)
			if err == nil && !bytes.Equal(got, want) {
				return fmt.Errorf("%s: the device was written to beyond the disk, at %d", what, off)
			}
			return err
		})
	}
}

// TestDeviceRecovery: what a killed run left on a device is blanked, unless its
// owner has used it since.
func TestDeviceRecovery(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needProgram(t, "mke2fs", "blkid")
	dev := userDevice(t, 64*mib)
	for _, c := range []struct {
		ours bool
		left string
	}{{true, ""}, {false, "ext"}} {
		runTool(t, "mke2fs", "-q", "-F", dev)
		uuid := strings.TrimSpace(runTool(t, "blkid", "-p", "-s", "UUID", "-o", "value", dev))
		if !c.ours {
			runTool(t, "mke2fs", "-q", "-F", dev)
		}
		s := recoverFrom(t, entry{ID: 1, Kind: kindDevice, Path: dev, Name: uuid})
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		kind, err := runCommand(context.Background(), command{name: "blkid", args: []string{"-p", "-s", "TYPE", "-o", "value", dev}})
		if err != nil && !isNothing(err) || !strings.HasPrefix(kind, c.left) || c.left == "" && kind != "" {
			t.Errorf("ours %t: it holds %q, %v", c.ours, kind, err)
		}
	}
}
