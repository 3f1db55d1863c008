package vm

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestConsoleBounded: a guest that prints without end fills neither memory nor a file.
func TestConsoleBounded(t *testing.T) {
	t.Parallel()
	host, guest := net.Pipe()
	c := newConsole()
	c.keep(host)
	line := []byte(strings.Repeat("x", 1<<10-1) + "\n")
	for range 16 << 10 {
		if _, err := guest.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprintln(guest, "the last line")
	guest.Close()
	c.drained(lastWords)
	if got := c.tail.String(); len(got) > 64<<10 {
		t.Errorf("%d bytes are kept of 16 MiB", len(got))
	}
	if got := c.String(); !strings.HasSuffix(got, "the last line") || strings.Count(got, "\n") >= consoleLines {
		t.Errorf("the end is %q", got[max(0, len(got)-100):])
	}
	c.close()
	newConsole().close() // of a QEMU that never connected
}

// TestSandboxed: QEMU filters its own system calls, in all threads, with no way back;
// and the console is no file of the host.
func TestSandboxed(t *testing.T) {
	t.Parallel()
	needQEMU(t)
	c := guest(t, kit(t, exitKit))
	v := hold(t, c)
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", v.PID()))
	if err != nil || len(tasks) < 2 {
		t.Fatalf("threads %v: %v", tasks, err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err == nil && (!bytes.Contains(text, []byte("NoNewPrivs:\t1\n")) || !bytes.Contains(text, []byte("Seccomp:\t2\n"))) {
			t.Errorf("%s: %s", task, text)
		}
	}
	files, err := os.ReadDir(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.Contains(f.Name(), "console") && f.Type().IsRegular() {
			t.Errorf("the console is the file %s", f.Name())
		}
	}
}

// TestMissingSandbox: a QEMU without seccomp is found out before anything starts.
func TestMissingSandbox(t *testing.T) {
	dir := t.TempDir()
	for answer, want := range map[string]int{"exit 0": 0, "echo '-sandbox support is not enabled in this QEMU binary' >&2; exit 1": 1, "kill -9 $$": 0} {
		if err := os.WriteFile(filepath.Join(dir, QEMU), []byte("#!/bin/sh\n"+answer+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", dir+":/usr/bin:/bin")
		if got, _ := lacksSandbox(t.Context()); len(got) != want {
			t.Errorf("%s: %v", answer, got)
		}
	}
}
