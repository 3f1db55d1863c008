package vm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/lab/agent"
)

// left fails the test if a process of the guest or one of its sockets is there.
func left(t *testing.T, c Config) {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range procs {
		words, err := os.ReadFile(file)
		if err == nil && strings.HasPrefix(string(words), QEMU) && strings.Contains(string(words), c.Dir+"/") {
			t.Errorf("%s runs on", filepath.Dir(file))
		}
	}
	for _, name := range []string{monitorName, agentName, consoleSocket} {
		if _, err := os.Lstat(filepath.Join(c.Dir, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBoot: a guest with the real program as its init says hello, has a clock, and
// powers off.
func TestBoot(t *testing.T) {
	t.Parallel()
	needQEMU(t)
	c := guest(t, kit(t, realKit))
	v, err := Boot(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer left(t, c)
	defer v.Close()
	conn := agent.NewConn(v.Agent())
	defer conn.Close()
	h, err := conn.Hello(t.Context())
	if err != nil {
		t.Fatalf("%v; console: %s", err, v.Console())
	}
	if h.PID != 1 || h.Kernel != c.Kit.Version || h.CPUs != 1 || h.Memory < 128<<20 || h.Memory > 256<<20 || h.UptimeNS <= 0 {
		t.Errorf("hello %+v", h)
	}
	k, err := conn.Clock(t.Context())
	if err != nil || k.ErrNS <= 0 || k.OffsetNS <= 0 {
		t.Errorf("clock %+v, %v: this host runs longer than its guest", k, err)
	}
	if got, err := conn.Prepare(t.Context(), agent.Prepare{Serial: DataSerial}); err != nil || got.Size != 4<<20 || got.Device != "vda" {
		t.Errorf("disk %+v, %v", got, err)
	}
	if _, ok := v.Exits(t.Context()); ok {
		t.Error("an emulated guest has exits")
	}
	if err := conn.PowerOff(t.Context()); err != nil {
		t.Error(err)
	}
	gone(t, v)
	if got := v.Ending(); got != "QEMU ended: the guest powered off" {
		t.Errorf("it ended as %q", got)
	}
	var names []string
	for _, e := range v.Events() {
		names = append(names, e.Name)
	}
	if !strings.Contains(strings.Join(names, " "), "VSERPORT_CHANGE") || !strings.Contains(strings.Join(names, " "), "SHUTDOWN") {
		t.Errorf("events %q", names)
	}
}

// TestCrash: a QEMU that is killed shows at once, and nothing of it is left.
func TestCrash(t *testing.T) {
	t.Parallel()
	needQEMU(t)
	c := guest(t, kit(t, exitKit))
	v := hold(t, c)
	if err := syscall.Kill(v.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	gone(t, v)
	left(t, c)
	if got := v.Ending(); got != "QEMU ended (signal: killed)" {
		t.Errorf("it ended as %q", got)
	}
	if err := v.QMP(t.Context(), "query-status", nil, nil); err == nil {
		t.Error("the monitor of a dead QEMU answered")
	}
}

// TestCloseOfHung: a QEMU that does not answer is killed.
func TestCloseOfHung(t *testing.T) {
	t.Parallel()
	needQEMU(t)
	c := guest(t, kit(t, exitKit))
	v := hold(t, c)
	if err := syscall.Kill(v.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	left(t, c)
}

// TestInitFails: a guest whose first program ends takes its kernel down, and the
// error has what the console says.
func TestInitFails(t *testing.T) {
	t.Parallel()
	needQEMU(t)
	c := guest(t, kit(t, exitKit))
	_, err := Boot(t.Context(), c)
	wantError(t, err, "guest a: QEMU ended: the guest reset itself; its console: ")
	wantError(t, err, "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000300")
	left(t, c)
}

// TestQEMURefuses: QEMU's own words, in one line.
func TestQEMURefuses(t *testing.T) {
	t.Parallel()
	needQEMU(t)
	k := kit(t, exitKit)
	for _, r := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Disk.Path += "2" }, "No such file or directory"},
		{func(c *Config) { c.Disk.Format = "qcow2" }, "Image is not in qcow2 format"},
		{func(c *Config) { c.Disk.Driver, c.Disk.Socket = "nbd", filepath.Join(c.Dir, "no") }, "Failed to connect"},
		{func(c *Config) { c.Guest.CPUs = 9999 }, "9999"},
	} {
		c := guest(t, k)
		r.change(&c)
		v, err := Boot(t.Context(), c)
		wantError(t, err, r.want)
		wantError(t, err, "guest a: QEMU ended (exit status 1): ")
		if v != nil {
			t.Error("a guest beside an error")
		}
		left(t, c)
	}
}

// TestBootStopped: a guest ends with the context it is booted with, or with its time.
func TestBootStopped(t *testing.T) {
	t.Parallel()
	needQEMU(t)
	k := kit(t, exitKit)
	ctx, cancel := context.WithCancel(t.Context())
	c := guest(t, k)
	time.AfterFunc(200*time.Millisecond, cancel)
	_, err := Boot(ctx, c)
	wantError(t, err, "guest a: ")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	left(t, c)

	c = guest(t, k)
	c.Timeout = 200 * time.Millisecond // no guest of this host boots in that time
	_, err = Boot(t.Context(), c)
	wantError(t, err, "it did not open the agent's port in 200ms")
	left(t, c)
}

// TestBootRefuses: what is wrong with the place of a guest.
func TestBootRefuses(t *testing.T) {
	t.Parallel()
	k := kit(t, exitKit)
	c := guest(t, k)
	c.Dir = filepath.Join(c.Dir, strings.Repeat("d", 100))
	_, err := Boot(t.Context(), c)
	wantError(t, err, "bytes, 107 are possible: use a shorter folder")

	c = guest(t, k)
	c.Dir += "/none"
	_, err = Boot(t.Context(), c)
	wantError(t, err, "no such file or directory")

	c = guest(t, k)
	c.Setup.NUMA = "77:0"
	_, err = Boot(t.Context(), c)
	wantError(t, err, "NUMA node 77")
	left(t, c)

	c = guest(t, k)
	c.Setup.Queues = -1
	_, err = Boot(t.Context(), c)
	wantError(t, err, "queues=-1")
}

func TestTelling(t *testing.T) {
	t.Parallel()
	for console, want := range map[string]string{
		"a\nb\n": "",
		"x":      "x",
		"boot\n  Kernel panic - not syncing: no init  \nCPU: 0": "Kernel panic - not syncing: no init",
		"vmdisk: no port\nPower down":                           "vmdisk: no port",
		"vmdisk: no port\nOops: 0002":                           "Oops: 0002",
	} {
		if got := telling(console); got != want {
			t.Errorf("%q tells %q, want %q", console, got, want)
		}
	}
	if got := lastLines("a\x1b[31mred\x07\r\nb\tc\n\n", 40); got != "a[31mred\nb\tc" {
		t.Errorf("%q", got)
	}
	if got := lastLines("1\n2\n3\n", 2); got != "2\n3" {
		t.Errorf("%q", got)
	}
}
