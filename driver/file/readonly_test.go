package file

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest/hostfs"
)

// A device that is set read-only opens for writing, and has to be asked.
func TestReadOnlyDevice(t *testing.T) {
	t.Parallel()
	hostfs.RequireRoot(t)
	dev := hostfs.Loop(t, hostfs.Options{Size: 1 << 20})
	setReadOnly(t, dev, 1)
	defer setReadOnly(t, dev, 0)
	d, err := OpenDisk(t.Context(), dev, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if !d.Info().ReadOnly {
		t.Error("a read-only device seems writable")
	}
	if err := d.WriteAt(t.Context(), make([]byte, 512), 0, 0); !errors.Is(err, disk.ErrReadOnly) {
		t.Error(err)
	}
}

func setReadOnly(t *testing.T, dev string, on int) {
	f, err := os.Open(dev)
	if err == nil {
		err = errors.Join(unix.IoctlSetPointerInt(int(f.Fd()), unix.BLKROSET, on), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A file that can be read but not written says so, and why.
func TestReadOnlyFile(t *testing.T) {
	t.Parallel()
	hostfs.RequireRoot(t)
	dir := hostfs.Mount(t, hostfs.Ext4, hostfs.Options{})
	plain, fixed := filepath.Join(dir, "plain"), filepath.Join(dir, "fixed")
	for _, path := range []string{plain, fixed} {
		if err := errors.Join(os.WriteFile(path, make([]byte, 4096), 0o444), os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o711)); err != nil {
			t.Fatal(err)
		}
	}
	setFlags(t, fixed, immutable)
	defer setFlags(t, fixed, 0)
	asNobody(func() { refused(t, plain, syscall.EACCES, "it can be read, not written") })
	refused(t, fixed, syscall.EPERM, "chattr -i")
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	refused(t, plain, syscall.EROFS, "it can be read, not written")
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
}

func refused(t *testing.T, path string, leaf error, text string) {
	t.Helper()
	d, err := OpenDisk(t.Context(), path, Options{})
	if err == nil {
		d.Close()
	}
	if !errors.Is(err, disk.ErrReadOnly) || !errors.Is(err, leaf) || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v", path, err)
	}
	if d, err = OpenDisk(t.Context(), path, Options{ReadOnly: true}); err != nil {
		t.Errorf("%s: %v", path, err)
		return
	}
	d.Close()
}

func setFlags(t *testing.T, path string, flags int) {
	f, err := os.Open(path)
	if err == nil {
		err = errors.Join(unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags), f.Close())
	}
	if err != nil {
		t.Error(err)
	}
}

// asNobody runs f on a thread of its own that has not root's rights to files.
func asNobody(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with this
		_ = unix.Setfsuid(65534)
		f()
	}()
	<-done
}
