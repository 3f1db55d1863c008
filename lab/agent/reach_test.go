package agent

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestVsockPort: a guest is told its host's port by its kernel's command line, or by
// a file of QEMU's.
func TestVsockPort(t *testing.T) {
	t.Parallel()
	const file = "sys/firmware/qemu_fw_cfg/by_name/" + VsockFile + "/raw"
	for _, c := range []struct {
		line, file string
		want       uint32
		bad        string
	}{
		{line: "console=ttyS0 quiet\n"},
		{line: "quiet vmdisk.vsock=1110548332 panic=-1\n", want: 1110548332},
		{line: "quiet\n", file: "4711", want: 4711},
		{line: "vmdisk.vsock=1\n", file: "2", want: 1},
		{line: "vmdisk.vsock=\n", bad: `vsock port "": want 1 to 4294967295`},
		{line: "vmdisk.vsock=0\n", bad: `vsock port "0"`},
		{line: "vmdisk.vsock=4294967296\n", bad: `vsock port "4294967296"`},
		{line: "\n", file: "a\x00", bad: `vsock port "a\x00"`},
	} {
		dir := t.TempDir()
		for name, text := range map[string]string{"proc/cmdline": c.line, file: c.file} {
			if text == "" {
				continue
			}
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got, err := guestFiles{proc: filepath.Join(dir, "proc"), sys: filepath.Join(dir, "sys")}.vsockPort()
		if got != c.want || (err != nil) != (c.bad != "") || err != nil && !strings.Contains(err.Error(), c.bad) {
			t.Errorf("%q and %q: %d, %v; want %d, %q", c.line, c.file, got, err, c.want, c.bad)
		}
	}
	if port, err := (guestFiles{proc: t.TempDir()}).vsockPort(); err == nil {
		t.Errorf("without /proc: port %d", port)
	}
}

// TestVsockStopped: who waits for a host that does not answer can be stopped, on
// kernels with vsock and without.
func TestVsockStopped(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := ServeVsock(ctx, 7, Options{}); err == nil || !strings.HasPrefix(err.Error(), "connect to the lab: ") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
	if ctx.Err() == nil {
		t.Error("it gave up before it was stopped")
	}
}
