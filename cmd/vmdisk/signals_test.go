package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openPTY makes a pseudo-terminal, which has no size until somebody sets one.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// screen is what a terminal shows in the end of what was written to it.
func screen(written string) string {
	var lines []string
	for _, line := range strings.Split(strings.ReplaceAll(written, "\r\n", "\n"), "\n") {
		var cells []byte
		at := 0
		for rest := line; rest != ""; {
			switch {
			case strings.HasPrefix(rest, toEnd):
				cells, rest = cells[:min(at, len(cells))], rest[len(toEnd):]
			case rest[0] == '\r':
				at, rest = 0, rest[1:]
			default:
				if at < len(cells) {
					cells[at] = rest[0]
				} else {
					cells = append(cells, rest[0])
				}
				at, rest = at+1, rest[1:]
			}
		}
		lines = append(lines, string(cells))
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n")
}

// TestInterruptOnTerminal: a copy shows a bar on a terminal without a size; ^C takes the bar off, leaves one
// clean line, and ends the program by the signal, which a shell calls 130.
func TestInterruptOnTerminal(t *testing.T) {
	t.Parallel()
	for sig, status := range map[syscall.Signal]string{syscall.SIGINT: "130", syscall.SIGTERM: "143"} {
		master, slave := openPTY(t)
		dir := t.TempDir()
		cmd := exec.Command("vmdisk", "copy", "--dst-filter", "delay:write=50ms,zero=50ms", "--no-clone", "pattern:1G", filepath.Join(dir, "d"))
		cmd.Stderr, cmd.Stdout = slave, slave
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		slave.Close()
		var out bytes.Buffer
		buf := make([]byte, 4096)
		_ = master.SetDeadline(time.Now().Add(time.Minute))
		sent := false
		for {
			n, err := master.Read(buf)
			out.Write(buf[:n])
			if !sent && strings.Contains(out.String(), " left") {
				sent = true
				out.WriteString("^C") // a terminal echoes it before the signal
				if err := cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
			}
			if err != nil {
				if !errors.Is(err, syscall.EIO) && !errors.Is(err, io.EOF) {
					t.Errorf("%v: %v", sig, err)
				}
				break
			}
		}
		err := cmd.Wait()
		ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if err == nil || !ok || !ws.Signaled() || ws.Signal() != sig {
			t.Errorf("%v: the program ended by %v, and a shell would not say %s", sig, err, status)
		}
		if got := screen(out.String()); strings.Contains(got, "\n") || !strings.HasPrefix(got, "vmdisk: copy: interrupted") {
			t.Errorf("%v: the terminal shows\n%s", sig, got)
		}
	}
}

// TestSignalStatus: a shell sees 130 and 143.
func TestSignalStatus(t *testing.T) {
	t.Parallel()
	for sig, want := range map[string]string{"INT": "130\n", "TERM": "143\n"} {
		out, err := exec.Command("sh", "-c", `trap : INT; timeout --foreground --preserve-status -s `+sig+` 1 vmdisk copy --progress none --src-filter delay:read=1s --no-clone --queue-depth 1 pattern:1G null: 2>/dev/null; echo $?`).Output()
		if err != nil || string(out) != want {
			t.Errorf("SIG%s: %q (%v)", sig, out, err)
		}
	}
}
