package store

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

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
