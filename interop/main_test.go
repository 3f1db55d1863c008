package interop

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/interop/guest"
	"github.com/vmdisk/vmdisk/interop/peer"
)

// Made once for all tests.
var (
	scratch string // removed at the end
	vmdisk  = sync.OnceValues(func() (string, error) {
		if given := os.Getenv("VMDISK_BIN"); given != "" { // test another build
			return given, nil
		}
		return peer.Build(context.Background(), "./cmd/vmdisk", scratch)
	})
	kit = sync.OnceValues(func() (*guest.Kit, error) {
		return guest.NewKit(context.Background(), scratch, "mke2fs", "e2fsck", "nbd-client", "chroot")
	})
)

func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	var err error
	// A short path: sockets lie below it.
	if scratch, err = os.MkdirTemp("/tmp", "interop"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	return m.Run()
}

// bin is the path of the vmdisk under test.
func bin(t *testing.T) string {
	t.Helper()
	path, err := vmdisk()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func guestKit(t *testing.T) *guest.Kit {
	t.Helper()
	k, err := kit()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// need fails the test if a peer is not installed.
func need(t *testing.T, programs ...string) {
	t.Helper()
	if err := peer.Need(programs...); err != nil {
		t.Fatal(err)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root (loop devices, mounts, the kernel image in /boot); make test runs as root")
	}
}

// serve starts `vmdisk serve` with the arguments; it is killed with the test.
func serve(t *testing.T, args ...string) *peer.Server {
	t.Helper()
	return cleanup(t)(peer.Vmdisk(bin(t), scratch, args...))
}

func nbdkit(t *testing.T, args ...string) *peer.Server {
	t.Helper()
	need(t, "nbdkit")
	return cleanup(t)(peer.Nbdkit(scratch, args...))
}

func qemuNBD(t *testing.T, args ...string) *peer.Server {
	t.Helper()
	need(t, "qemu-nbd")
	return cleanup(t)(peer.QemuNBD(scratch, args...))
}

func cleanup(t *testing.T) func(*peer.Server, error) *peer.Server {
	return func(s *peer.Server, err error) *peer.Server {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Kill() })
		return s
	}
}

// stop ends a server as an operator would, which must succeed.
func stop(t *testing.T, s *peer.Server) {
	t.Helper()
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
}

// run runs a program that must succeed, and returns its output.
func run(t *testing.T, argv ...string) string {
	t.Helper()
	need(t, argv[0])
	r, err := peer.Run(t.Context(), argv...)
	if err != nil {
		t.Fatal(err)
	}
	return r.Stdout
}

// fail runs a program that must end with the exit status, and returns its stderr.
func fail(t *testing.T, status int, argv ...string) string {
	t.Helper()
	need(t, argv[0])
	r, err := peer.Run(t.Context(), argv...)
	if err == nil || r.Code != status {
		t.Fatalf("%s ended with %d, want %d: %s", strings.Join(argv, " "), r.Code, status, r.Stderr)
	}
	return r.Stderr
}

// ours runs vmdisk with the arguments.
func ours(t *testing.T, args ...string) string {
	t.Helper()
	return run(t, append([]string{bin(t)}, args...)...)
}

// tempDir is a folder whose path is short enough for sockets.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(scratch, "t")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// eventually repeats try until it succeeds, for at most a minute.
func eventually(t *testing.T, what string, try func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !try(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// detach frees a loop device. (Not within the test's context, which has ended
// when a cleanup runs.)
func detach(device string) error {
	_, err := peer.Run(context.Background(), "losetup", "--detach", device)
	return err
}
