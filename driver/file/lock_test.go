package file

import (
	"bufio"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk/disktest/hostfs"
)

// qemuIO runs one command of qemu-io and returns its output and whether it could
// open the disk.
func qemuIO(t *testing.T, path string, args ...string) (string, bool) {
	t.Helper()
	args = append(args, "-f", "raw", "-c", "length", path)
	out, err := exec.CommandContext(t.Context(), "qemu-io", args...).CombinedOutput()
	return string(out), err == nil
}

// qemuHolds keeps the disk open in a qemu-io until the returned function is called.
func qemuHolds(t *testing.T, path string, args ...string) (release func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "qemu-io", append(args, "-f", "raw", path)...)
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, "read 0 512\n"); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("qemu-io did not open %s: %v", path, err)
		}
		if strings.Contains(line, "read 512/512") {
			break
		}
	}
	return func() {
		in.Close()
		io.Copy(io.Discard, lines)
		if err := cmd.Wait(); err != nil {
			t.Errorf("qemu-io: %v", err)
		}
	}
}

// TestQEMUConflicts: the real qemu-io cannot open what we have open, nor we what
// it has, where one of the two writes and the other minds. A reader of ours
// minds; qemu-io reading a raw disk does not.
func TestQEMUConflicts(t *testing.T) {
	t.Parallel()
	hostfs.RequireTool(t, "qemu-io", "qemu-utils")
	users := []struct {
		name  string
		ours  Options
		qemus []string
	}{
		{"writer", Options{}, nil},
		{"reader", Options{ReadOnly: true}, []string{"-r"}},
		{"sharing reader", Options{ReadOnly: true, ForceShare: true}, []string{"-r", "-U"}},
	}
	allowed := func(ours, qemus string) bool { return qemus != "writer" || ours == "sharing reader" }
	for _, first := range users {
		for _, second := range users {
			t.Run(first.name+" then "+second.name, func(t *testing.T) {
				t.Parallel()
				path := newFile(t, t.TempDir(), 1<<20)

				want := allowed(first.name, second.name)
				f := openFile(t, path, first.ours)
				out, ok := qemuIO(t, path, second.qemus...)
				if ok != want || !ok && !strings.Contains(out, "lock") {
					t.Errorf("we hold it, qemu-io opens it: %v, want %v\n%s", ok, want, out)
				}
				f.Close()

				want = allowed(second.name, first.name)
				release := qemuHolds(t, path, first.qemus...)
				f, err := Open(bg, path, second.ours)
				if err == nil {
					f.Close()
				}
				if (err == nil) != want || err != nil && !errors.Is(err, ErrInUse) {
					t.Errorf("qemu-io holds it, we open it: %v, want %v", err, want)
				}
				release()

				if out, ok := qemuIO(t, path); !ok { // all locks are gone
					t.Errorf("qemu-io cannot open a disk that nobody uses: %s", out)
				}
			})
		}
	}
}

func TestBlockDeviceIsExclusive(t *testing.T) {
	t.Parallel()
	dev := hostfs.Loop(t, hostfs.Options{Size: 1 << 20})
	f := openFile(t, dev, Options{})
	if fd, err := unix.Open(dev, unix.O_RDWR|unix.O_EXCL, 0); err != unix.EBUSY {
		unix.Close(fd)
		t.Errorf("a second exclusive opening: %v, want EBUSY", err)
	}
	f.Close()
	fd, err := unix.Open(dev, unix.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if f, err := Open(bg, dev, Options{}); !errors.Is(err, ErrInUse) || !errors.Is(err, unix.EBUSY) {
		f.Close()
		t.Errorf("a device that is in use: %v", err)
	}
	openFile(t, dev, Options{ReadOnly: true}).Close()
	openFile(t, dev, Options{ForceShare: true}).Close()
}
