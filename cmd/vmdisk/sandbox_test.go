package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/internal/confine"
)

// probeSandbox tells, in a server that a test started, what it still can do. Every
// thread is asked: a restriction that holds for the calling one alone is none.
func probeSandbox() {
	file := os.Getenv("VMDISK_TEST_PROBE")
	if file == "" {
		return
	}
	for thread := range 8 {
		done := make(chan string)
		go func() {
			runtime.LockOSThread() // and ends with it: eight different ones
			done <- fmt.Sprintf("read: %v; create: %v; exec: %v; connect: %v", tryOpen(file, os.O_RDONLY), tryOpen(file+".new", os.O_CREATE|os.O_WRONLY),
				exec.Command("/bin/true").Run(), tryConnect())
		}()
		fmt.Fprintf(os.Stderr, "probe %d: %s\n", thread, <-done)
	}
}

func tryOpen(path string, flag int) error {
	f, err := os.OpenFile(path, flag, 0o600)
	if err == nil {
		f.Close()
	}
	return err
}

func tryConnect() error {
	c, err := net.Dial("tcp", "127.0.0.1:1")
	if err == nil {
		c.Close()
	}
	return err
}

// needLandlock: on a kernel without it there is nothing to see.
func needLandlock(t *testing.T) {
	t.Helper()
	if !confine.Available() {
		t.Skip("this kernel has no Landlock")
	}
}

// probing runs a command in dir and returns its standard error, the probe's answers first.
func probing(t *testing.T, dir, command string) (status int, stderr string) {
	t.Helper()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	return inShell(t, dir, "env VMDISK_TEST_PROBE="+secret+" "+command)
}

func denied(t *testing.T, stderr string, yes bool) {
	t.Helper()
	for _, line := range strings.SplitAfter(stderr, "\n") {
		if !strings.HasPrefix(line, "probe ") {
			continue
		}
		if got := strings.Count(line, "permission denied"); yes && got != 4 || !yes && got != 0 {
			t.Errorf("denied %v, but: %s", yes, line)
		}
	}
	if strings.Count(stderr, "probe ") != 8 {
		t.Errorf("the probe did not speak: %s", stderr)
	}
}

// TestServeSandbox: with every cache and aio mode a served disk is read, written,
// zeroed and flushed while the server can open nothing more; it removes its socket and
// its pid file in the end, and its command is not restricted.
func TestServeSandbox(t *testing.T) {
	t.Parallel()
	needLandlock(t)
	for _, mode := range []string{
		"--cache writeback", "--cache none", "--cache writethrough", "--cache directsync", "--cache unsafe",
		"--aio io_uring", "--aio threads", "--cache none --aio io_uring", "--filter cow:store=file", "--filter log:logfile=log --filter stats:statsfile=stats",
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for name, size := range map[string]int64{"disk.raw": 8 << 20, "src.raw": 8 << 20} {
				if err := os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte(name), int(size/16/int64(len(name)))), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Truncate(filepath.Join(dir, name), size); err != nil {
					t.Fatal(err)
				}
			}
			status, stderr := probing(t, dir, "vmdisk serve disk.raw "+mode+` --nbd unix:s --pid-file pid --run '
				vmdisk copy --progress none src.raw "$uri" >/dev/null && vmdisk compare --progress none src.raw "$uri" >/dev/null && echo made >new && test -s pid'`)
			if status != 0 {
				t.Fatalf("exit status %d: %s", status, stderr)
			}
			denied(t, stderr, true)
			for _, name := range []string{"s", "pid"} {
				if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
					t.Errorf("%s is left behind", name)
				}
			}
		})
	}
}

// TestServePrivateGone: the folder of --run's own socket is removed from within.
func TestServePrivateGone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if status, stderr := probing(t, dir, `env TMPDIR=`+dir+` vmdisk serve mem:1M --run 'vmdisk info "$uri" >/dev/null'`); status != 0 {
		t.Errorf("exit status %d: %s", status, stderr)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

// TestSandboxOff: it can be undone, and then nothing is denied.
func TestSandboxOff(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	status, stderr := probing(t, t.TempDir(), "vmdisk serve mem:1M --sandbox off --run true")
	if status != 0 {
		t.Errorf("exit status %d: %s", status, stderr)
	}
	denied(t, stderr, false)
}

// statusOf are some fields of all threads of a process, as /proc tells them.
func statusOf(t *testing.T, pid int, fields ...string) (lines []string) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("no threads of %d: %v", pid, err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue // it has ended
		}
		line := ""
		for l := range strings.Lines(string(text)) {
			for _, f := range fields {
				if strings.HasPrefix(l, f+":") {
					line += strings.Join(strings.Fields(l), " ") + "\n"
				}
			}
		}
		lines = append(lines, line)
	}
	return lines
}

// startServe starts a server and waits for its pid file.
func startServe(t *testing.T, dir string, arg ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("vmdisk", append([]string{"serve", "--pid-file", "pid"}, arg...)...)
	var stderr lockedBuffer
	cmd.Dir, cmd.Stderr = dir, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		if s := cmd.ProcessState.ExitCode(); s != 0 {
			t.Errorf("serve %v ended with status %d: %s", arg, s, stderr.String())
		}
	})
	await(t, "the pid file", func() bool {
		select {
		case <-ended:
			t.Fatalf("serve %v ended: %s", arg, stderr.String())
		default:
		}
		_, err := os.Stat(filepath.Join(dir, "pid"))
		return err == nil
	})
	return cmd
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// TestServeRights: no thread of a server has a capability or can gain one.
func TestServeRights(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := startServe(t, dir, "mem:1M", "--nbd", "unix:s")
	want := "CapInh: 0000000000000000\nCapPrm: 0000000000000000\nCapEff: 0000000000000000\nNoNewPrivs: 1\n"
	await(t, "the rights to go", func() bool { return statusOf(t, cmd.Process.Pid, "NoNewPrivs")[0] == "NoNewPrivs: 1\n" })
	await(t, "the rights of all threads to go", func() bool {
		for _, got := range statusOf(t, cmd.Process.Pid, "CapInh", "CapPrm", "CapEff", "NoNewPrivs") {
			if got != want {
				return false
			}
		}
		return true
	})
}

// TestServeUser: root becomes another user in all threads, with a disk that user could
// not open, and its command too.
func TestServeUser(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root becomes another user")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "disk.raw"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := startServe(t, dir, "disk.raw", "--nbd", "unix:s", "--user", "12345", "--group", "54321", "--socket-mode", "0600")
	await(t, "the user", func() bool {
		for _, got := range statusOf(t, cmd.Process.Pid, "Uid", "Gid", "Groups") {
			if got != "Uid: 12345 12345 12345 12345\nGid: 54321 54321 54321 54321\nGroups: 54321\n" {
				return false
			}
		}
		return true
	})
	if status, stderr := inShell(t, dir, "vmdisk copy --progress none mem:1M 'nbd+unix:///?socket=s'"); status != 0 {
		t.Errorf("exit status %d: %s", status, stderr)
	}
	status, stderr := inShell(t, dir, `vmdisk serve disk.raw --sandbox auto --force-share --read-only --user 12345 --run 'id -u >&2; test -S "${uri#*socket=}"'`)
	if status != 0 || stderr != "12345\n" {
		t.Errorf("the command: exit status %d: %s", status, stderr)
	}
}

// TestSandboxReconnect: a lost server behind a disk is found again from within, by
// TCP, by name, and by a unix socket.
func TestSandboxReconnect(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"127.0.0.1", "localhost", "unix"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "disk.raw"), bytes.Repeat([]byte("x"), 1<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			addr, url := "unix:"+filepath.Join(dir, "back"), "nbd+unix:///?socket="+filepath.Join(dir, "back")
			if kind != "unix" {
				addr = kind + ":" + freePort(t)
				url = "nbd://" + addr
			}
			back := func() *exec.Cmd {
				cmd := exec.Command("vmdisk", "serve", filepath.Join(dir, "disk.raw"), "--nbd", addr)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				await(t, "the back end", func() bool { return exec.Command("vmdisk", "info", url).Run() == nil })
				return cmd
			}
			first := back()
			startServe(t, dir, url, "--nbd", "unix:front")
			read := "vmdisk compare --progress none disk.raw --force-share 'nbd+unix:///?socket=front'"
			if status, stderr := inShell(t, dir, read); status != 0 {
				t.Errorf("before: exit status %d: %s", status, stderr)
			}
			_ = first.Process.Kill()
			_ = first.Wait()
			second := back()
			defer func() {
				_ = second.Process.Kill()
				_ = second.Wait()
			}()
			if status, stderr := inShell(t, dir, read); status != 0 {
				t.Errorf("after: exit status %d: %s", status, stderr)
			}
		})
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// TestSandboxOnRefused: who asks for the sandbox by name gets it, or no server.
func TestSandboxOnRefused(t *testing.T) {
	defer func(was func() bool) { landlocked = was }(landlocked)
	landlocked = func() bool { return false }
	if err := restrictTo(sandboxOn, confine.Needs{}, func(string) {}); err == nil || !strings.Contains(err.Error(), "no Landlock") {
		t.Errorf("--sandbox on without Landlock: %v", err)
	}
}

// TestDaemonSandbox: the daemon opens files that exist and servers, which tickets name;
// it makes no file and runs no program, and goes on to rotate its log.
func TestDaemonSandbox(t *testing.T) {
	t.Parallel()
	needLandlock(t)
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	conf := fmt.Sprintf(`[tls]
enable = false
[daemon]
drop_privileges = false
[remote]
host = 127.0.0.1
port = 0
[local]
enable = false
[control]
socket = %[1]s/control
[handler_logfile]
args = ("%[1]s/log/daemon.log",)
kwargs = {"maxBytes": 600, "backupCount": 2}
`, dir)
	for name, text := range map[string]string{"secret": "x", "conf.d/1.conf": conf, "log/none": ""} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755), os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	var stderr lockedBuffer
	cmd := exec.Command("vmdisk", "daemon", "--conf-dir", dir)
	cmd.Env, cmd.Stderr = append(os.Environ(), "VMDISK_TEST_PROBE="+secret), &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Signal(syscall.SIGTERM)
	add := "vmdisk ticket add secret --size 1 --control unix:" + dir + "/control"
	await(t, "the daemon", func() bool { status, _ := inShell(t, dir, add); return status == 0 })
	await(t, "the probes", func() bool { return strings.Count(stderr.String(), "probe ") >= 8 })
	for line := range strings.Lines(stderr.String()) {
		if !strings.Contains(line, "read: <nil>; create: open "+secret+".new: permission denied; exec: fork/exec /bin/true: permission denied; connect: dial tcp 127.0.0.1:1: connect: connection refused") {
			t.Errorf("%s", line)
		}
	}
	await(t, "the log's second file", func() bool {
		inShell(t, dir, add)
		_, err := os.Stat(dir + "/log/daemon.log.2")
		return err == nil
	})
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("the daemon: %v: %s", err, stderr.String())
	}
	if _, err := os.Lstat(dir + "/control"); err == nil {
		t.Error("the control socket is left behind")
	}
}
