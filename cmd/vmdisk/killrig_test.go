package main

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// start runs a server of ours until the test ends.
func (r *killRig) start(args ...string) {
	r.t.Helper()
	c := exec.Command("vmdisk", args...)
	c.Dir, c.Stderr = r.dir, os.Stderr
	if err := c.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
}

// await waits until a file is there.
func (r *killRig) await(path string) {
	r.t.Helper()
	for range 1200 {
		if _, err := os.Stat(path); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	r.t.Fatalf("no %s", path)
}

// serve makes an NBD export of a file.
func (r *killRig) serve(file string) string {
	r.t.Helper()
	// The temporary folder's name may be too long for a socket.
	dir, err := os.MkdirTemp("", "kill")
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket, pid := filepath.Join(dir, "s"), filepath.Join(dir, "pid")
	r.start("serve", file, "--nbd", "unix:"+socket, "--pid-file", pid)
	r.await(pid)
	return "nbd+unix:///?socket=" + url.QueryEscape(socket)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for a loop device")
	}
}

func (r *killRig) run(name string, args ...string) string {
	r.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		r.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// loop makes a block device of a file.
func (r *killRig) loop(file string) string {
	r.t.Helper()
	needRoot(r.t)
	dev := r.run("losetup", "--find", "--show", "--direct-io=off", file)
	r.t.Cleanup(func() { r.run("losetup", "--detach", dev) })
	return dev
}

// mount makes a file system in a file.
func (r *killRig) mount(kind string) string {
	r.t.Helper()
	needRoot(r.t)
	file, dir := filepath.Join(r.dir, "fs"), filepath.Join(r.dir, "mnt")
	r.write(file, nil)
	if err := os.Truncate(file, 400<<20); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	r.run("mkfs."+kind, "-q", file)
	dev := r.loop(file)
	r.run("mount", dev, dir)
	r.t.Cleanup(func() { r.run("umount", dir) })
	return dir
}

// ticket makes an image of the transfer daemon of a file.
func (r *killRig) ticket(file string) string {
	r.t.Helper()
	dir, err := os.MkdirTemp("", "kill")
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.MkdirAll(filepath.Join(dir, "etc", "conf.d"), 0o755); err != nil {
		r.t.Fatal(err)
	}
	r.write(filepath.Join(dir, "etc", "conf.d", "50-test.conf"), fmt.Appendf(nil, `[daemon]
drop_privileges = false
[tls]
enable = false
[remote]
host = 127.0.0.1
port = 0
[local]
socket = %[1]s/local.sock
[control]
socket = %[1]s/control.sock
[handler_logfile]
args = ("%[1]s/daemon.log",)
`, dir))
	r.start("daemon", "--conf-dir", filepath.Join(dir, "etc"))
	log := ""
	for range 1200 {
		p, _ := os.ReadFile(filepath.Join(dir, "daemon.log"))
		if log = string(p); strings.Contains(log, "Ready for requests") {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	_, port, found := strings.Cut(log, "remote.service listening on 127.0.0.1:")
	if !found {
		r.t.Fatalf("no daemon: %s", log)
	}
	port, _, _ = strings.Cut(port, "\n")
	id := r.run("vmdisk", "ticket", "add", file, "--control", "unix:"+filepath.Join(dir, "control.sock"))
	return fmt.Sprintf("http://127.0.0.1:%s/images/%s", strings.TrimSpace(port), id)
}
