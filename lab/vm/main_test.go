package vm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/interop/peer"
	"github.com/vmdisk/vmdisk/lab/spec"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		if err := os.RemoveAll(built.dir); err != nil {
			code = 1
		}
	}
	os.Exit(code)
}

// built is where programs and kits of the tests lie.
var built struct {
	once sync.Once
	dir  string
	err  error
}

func buildDir(t *testing.T) string {
	t.Helper()
	built.once.Do(func() { built.dir, built.err = os.MkdirTemp("", "vmdisk-vm-test-") })
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.dir
}

var (
	buildVmdisk = sync.OnceValues(func() (string, error) { return peer.Build(context.Background(), "./cmd/vmdisk", built.dir) })
	buildExit   = sync.OnceValues(func() (string, error) { return peer.Build(context.Background(), "./lab/vm/testdata/exit", built.dir) })
	buildPanic  = sync.OnceValues(func() (string, error) { return peer.Build(context.Background(), "./lab/vm/testdata/panic", built.dir) })
	buildVsock  = sync.OnceValues(func() (string, error) { return peer.Build(context.Background(), "./lab/vm/testdata/vsock", built.dir) })
	realKit     = sync.OnceValues(func() (*Kit, error) { return kitWith(buildVmdisk, "kit") })
	// exitKit has a small init that gives up: for guests that need not get far.
	exitKit = sync.OnceValues(func() (*Kit, error) { return kitWith(buildExit, "exit-kit") })
	// vsockKit has an init that tries the sockets of a guest's channel.
	vsockKit = sync.OnceValues(func() (*Kit, error) { return kitWith(buildVsock, "vsock-kit") })
	// panicKit has an init that takes its kernel down.
	panicKit = sync.OnceValues(func() (*Kit, error) { return kitWith(buildPanic, "panic-kit") })
)

func kitWith(program func() (string, error), name string) (*Kit, error) {
	binary, err := program()
	if err != nil {
		return nil, err
	}
	return NewKit(context.Background(), filepath.Join(built.dir, name), binary, spec.Guest{Kernel: "auto"})
}

func kit(t *testing.T, make func() (*Kit, error)) *Kit {
	t.Helper()
	buildDir(t)
	k, err := make()
	if err != nil {
		t.Fatalf("%v; peers are installed by scripts/peers.sh", err)
	}
	return k
}

// guest is a plain guest with a folder, a kit and a disk of its own.
func guest(t *testing.T, k *Kit) Config {
	t.Helper()
	c := plain()
	// Not t.TempDir: a unix socket's path is short.
	dir, err := os.MkdirTemp("", "vm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		left, _ := filepath.Glob(filepath.Join(dir, "*.sock"))
		if len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	c.Dir, c.Kit = dir, k
	c.Disk.Path = filepath.Join(dir, "disk")
	if err := os.WriteFile(c.Disk.Path, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

func needQEMU(t *testing.T, more ...string) {
	t.Helper()
	if err := peer.Need(append([]string{QEMU}, more...)...); err != nil {
		t.Fatal(err)
	}
}

// gone fails the test if the process does not end soon.
func gone(t *testing.T, v *VM) {
	t.Helper()
	select {
	case <-v.Exited():
	case <-time.After(time.Minute):
		t.Error("QEMU has not ended")
	}
	if err := errors.Join(v.Close(), v.Close()); err != nil {
		t.Errorf("close: %v", err)
	}
}
