package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/lab/spec"
)

// tinyDir is a work folder on a RAM disk of a few MiB.
func tinyDir(t *testing.T, size string) string {
	t.Helper()
	at := filepath.Dir(workDir(t))
	if err := unix.Mount("vmdisk-test", at, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, what := range leftIn(t, filepath.Join(at, "lab")) {
			t.Errorf("left behind: %s", what)
		}
		if err := unix.Unmount(at, 0); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(at, "lab")
}

// TestFullDisk: a disk that fills up, whichever part meets that, is one line, and
// nothing is left.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needProgram(t, "qemu-img", "mke2fs")
	for _, c := range []struct {
		setup, fileSystem string
		size, data        int64
	}{
		{"copy", "none", 64 * mib, 16 * mib},             // the golden disk
		{"copy", "none", 64 * mib, 5 * mib},              // the second copy
		{"full", "none", 64 * mib, 0},                    // our preallocation
		{"falloc", "none", 64 * mib, 0},                  //
		{"sparse pass=second", "none", 64 * mib, 0},      // our writes
		{"copy format=qcow2", "none", 64 * mib, 6 * mib}, // qemu-img
		{"copy", "ext4", 64 * mib, 12 * mib},             // mke2fs, or the data for it
	} {
		t.Run(c.setup+" "+c.fileSystem, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, Options{Dir: tinyDir(t, "12m"), Size: c.size, Data: c.data, FileSystem: c.fileSystem})
			su := parseSetup(t, c.setup)
			su.Cache = "writeback"
			if why := s.Missing(t.Context(), su, spec.ClientGuest, 2, -1); len(why) != 1 || !strings.Contains(why[0], "free and the disks need up to") {
				t.Errorf("missing: %q", why)
			}
			_, err := s.Prepare(t.Context(), su, spec.ClientGuest, 2)
			if err == nil {
				t.Fatal("it fitted")
			}
			if text := err.Error(); !errors.Is(err, unix.ENOSPC) || strings.Contains(text, "\n") || !strings.Contains(strings.ToLower(text), "no space left on device") {
				t.Errorf("error %q, want one line that says no space", err)
			}
			for _, what := range leftIn(t, s.o.Dir) {
				if name := filepath.Base(what); name != "lock" && name != "ledger.json" && name != "golden.raw" {
					t.Errorf("left: %s", what)
				}
			}
		})
	}
}

// TestNoRoomForLedger: a disk without a byte left.
func TestNoRoomForLedger(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := tinyDir(t, "64k")
	s := newStore(t, Options{Dir: dir})
	filler := filepath.Join(filepath.Dir(dir), "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk did not fill up: %v", err)
	}
	_, err := s.Prepare(t.Context(), setup(nil), spec.ClientHost, 1)
	if !errors.Is(err, unix.ENOSPC) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Error(err)
	}
}

func TestPrepareStops(t *testing.T) {
	t.Parallel()
	s := newStore(t, Options{Data: 8 * mib})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Prepare(ctx, setup(nil), spec.ClientHost, 2); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	for _, nodes := range []int{0, 27} {
		if _, err := s.Prepare(t.Context(), setup(nil), spec.ClientHost, nodes); err == nil {
			t.Errorf("%d nodes were made", nodes)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prepare(t.Context(), setup(nil), spec.ClientHost, 1); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("after Close: %v", err)
	}
}

// TestServerDies: that a server has ended by itself is told, with its last words.
func TestServerDies(t *testing.T) {
	t.Parallel()
	needProgram(t, "qemu-nbd")
	s := newStore(t, Options{})
	set, err := s.Prepare(t.Context(), parseSetup(t, "copy server=qemu-nbd cache=writeback"), spec.ClientHost, 2)
	if err != nil {
		t.Fatal(err)
	}
	victim := set.c.running[set.c.made[len(set.c.made)-1].ID]
	if err := syscall.Kill(set.Disks[1].Processes[0].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-victim.Done()
	if err := set.Close(t.Context()); err == nil || !strings.Contains(err.Error(), "server b") || !strings.Contains(err.Error(), "killed") {
		t.Errorf("error %v", err)
	}
	if err := set.Close(t.Context()); err != nil {
		t.Errorf("closed again: %v", err)
	}
	if left := leftIn(t, filepath.Join(s.o.Dir, "set1")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestServerFails: one that does not start says why.
func TestServerFails(t *testing.T) {
	t.Parallel()
	s := newStore(t, Options{Vmdisk: "/bin/false"})
	_, err := s.Prepare(t.Context(), parseSetup(t, "copy server=vmdisk"), spec.ClientHost, 1)
	if err == nil || !strings.Contains(err.Error(), "server a (/bin/false): exit status 1") {
		t.Errorf("error %v", err)
	}
	needProgram(t, "qemu-nbd")
	_, err = s.Prepare(t.Context(), parseSetup(t, "copy server=qemu-nbd cache=fast"), spec.ClientHost, 1)
	if err == nil || !strings.Contains(err.Error(), "cache mode") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v", err)
	}
}
