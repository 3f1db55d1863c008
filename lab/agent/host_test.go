package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain makes this program the agent that StartHost starts.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == "lab" && os.Args[2] == "agent" && os.Args[3] == "--socket" {
		if err := ServeSocket(context.Background(), os.Args[4], Options{Version: "test"}); err != nil && !errors.Is(err, ErrPowerOff) {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// client starts a node that is a process of this host.
func client(t *testing.T) *HostClient {
	t.Helper()
	dir, err := os.MkdirTemp("", "client") // t.TempDir's are too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	h, err := StartHost(t.Context(), "/proc/self/exe", dir, "a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// eventually waits for what will happen, however slow the machine is.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after a minute: not %s", what)
		}
	}
}

// started starts a run that ends only when it is made to.
func started(t *testing.T, c *Conn, r Run) *Running {
	t.Helper()
	x, err := c.Start(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

const forever = writes + "time_based\nruntime=600\n"

// TestHostRun: a process of this host does what a guest does.
func TestHostRun(t *testing.T) {
	t.Parallel()
	h := client(t)
	hello, err := h.Conn().Hello(t.Context())
	if err != nil || hello.PID != h.PID() || hello.PID == os.Getpid() {
		t.Fatalf("hello %+v of %d, %v", hello, h.PID(), err)
	}
	prepared(t, h.Conn(), Prepare{URL: "mem:8M", Filters: []string{"delay:write=100us"}})
	res, err := started(t, h.Conn(), Run{JobFile: writes}).Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// The mean: fio counts an I/O's latency from the end of its submission, in which
	// the process may lose the CPU for longer than the delay.
	if d := res.Jobs[0].Dirs[1]; res.Err != "" || d.IOs != 256 || d.Clat.Mean < 100e3 {
		t.Errorf("%q, %d I/Os with a mean of %v ns", res.Err, d.IOs, d.Clat.Mean)
	}
	if res.CPUBusy <= 0 || res.UserNS+res.SystemNS <= 0 {
		t.Errorf("no CPU time: %+v", res)
	}
	if err := h.Conn().PowerOff(t.Context()); err != nil {
		t.Error(err)
	}
	<-h.Exited()
}

// TestHostKilled: a node that dies ends every call with a reason.
func TestHostKilled(t *testing.T) {
	t.Parallel()
	h := client(t)
	prepared(t, h.Conn(), Prepare{URL: "mem:8M"})
	x := started(t, h.Conn(), Run{JobFile: forever, Gate: true})
	if err := x.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(h.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Wait(t.Context()); err == nil || !strings.Contains(err.Error(), "channel to the node") {
		t.Errorf("wait: %v", err)
	}
	<-h.Exited()
	if _, err := h.Conn().Clock(t.Context()); err == nil || !strings.Contains(err.Error(), "channel to the node") {
		t.Errorf("clock: %v", err)
	}
}

// TestHostSilent: a node that is not let run is found silent, for how long it was.
func TestHostSilent(t *testing.T) {
	t.Parallel()
	h := client(t)
	c := h.Conn()
	if _, err := c.Hello(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(h.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	from := Monotonic()
	eventually(t, "silent", func() bool { return c.Quiet() > silence+100*time.Millisecond })
	to := Monotonic()
	if err := syscall.Kill(h.PID(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	// A loaded machine makes gaps of its own.
	eventually(t, "found", func() bool {
		for _, s := range c.Silences() {
			if s.AtNS <= from+int64(time.Second) && s.AtNS+s.TookNS >= to {
				return true
			}
		}
		return false
	})
	if _, err := c.Clock(t.Context()); err != nil {
		t.Errorf("after the silence: %v", err)
	}
}

// TestHostPausedClose: a node that does nothing at all is ended too.
func TestHostPausedClose(t *testing.T) {
	t.Parallel()
	h := client(t)
	if err := syscall.Kill(h.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(h.PID(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is still there: %v", h.PID(), err)
	}
}

// TestHostRefused: programs that are no agent, and folders no socket fits in.
func TestHostRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, c := range []struct{ program, dir, want string }{
		{"/bin/false", filepath.Join(dir, "a"), "it ended at once"},
		{filepath.Join(dir, "none"), filepath.Join(dir, "b"), "no such file"},
		{"/bin/true", filepath.Join(dir, strings.Repeat("x", 100)), "use a shorter folder"},
	} {
		if err := os.Mkdir(c.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		h, err := StartHost(t.Context(), c.program, c.dir, "b")
		if err == nil {
			_ = h.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "client b: ") {
			t.Errorf("%s: %v, want %q", c.program, err, c.want)
		}
	}
}

// children of a process.
func children(pid int) []int {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var all []int
	for _, f := range files {
		text, _ := os.ReadFile(f)
		for _, word := range strings.Fields(string(text)) {
			if n, err := strconv.Atoi(word); err == nil {
				all = append(all, n)
			}
		}
	}
	return all
}

// runs: the process is there, and not merely waits to be reaped.
func runs(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// TestFioEndsWithItsNode: a client that is killed leaves no fio behind.
func TestFioEndsWithItsNode(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("fio"); err != nil {
		t.Fatal("fio is not installed: run scripts/peers.sh")
	}
	h := client(t)
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	prepared(t, h.Conn(), Prepare{URL: "raw:" + disk})
	x := started(t, h.Conn(), Run{JobFile: forever, Engine: "fio", Gate: true})
	if err := x.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := x.Go(Monotonic()); err != nil {
		t.Fatal(err)
	}
	var fio []int
	eventually(t, "running its jobs", func() bool {
		fio = children(h.PID())
		return x.Progress().Share > 0 && len(fio) == 1 && len(children(fio[0])) == 0
	})
	if err := syscall.Kill(h.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, pid := range fio {
		eventually(t, "ended", func() bool { return !runs(pid) })
	}
	if _, err := x.Wait(t.Context()); err == nil {
		t.Error("a killed node had a result")
	}
}
