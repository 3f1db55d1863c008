package store

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/diskcopy"
	"github.com/vmdisk/vmdisk/diskurl"
	"github.com/vmdisk/vmdisk/lab/spec"
)

func allocated(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// TestGolden checks the file systems of golden disks, and that copies are as sparse
// as they are.
func TestGolden(t *testing.T) {
	t.Parallel()
	needProgram(t, "mke2fs", "e2fsck")
	s := newStore(t, Options{Size: 256 * mib, Data: 24 * mib, FileSystem: "ext4"})
	set := prepare(t, s, setup(func(su *spec.Setup) { su.Cache = "writeback" }), spec.ClientHost, 1)
	path := set.Disks[0].Source.Path
	runTool(t, "e2fsck", "-f", "-n", path)
	if golden, copied := allocated(t, goldenIn(s.o.Dir)), allocated(t, path); copied < 24*mib || copied > golden+mib {
		t.Errorf("the copy takes %d bytes, the golden disk %d", copied, golden)
	}
	// The data does not compress and is the same each time.
	other := newStore(t, Options{Size: 64 * mib, Data: 24 * mib})
	prepare(t, other, setup(nil), spec.ClientHost, 1)
	plain, err := os.ReadFile(goldenIn(other.o.Dir))
	if err != nil {
		t.Fatal(err)
	}
	dump := filepath.Join(t.TempDir(), "dump")
	runTool(t, "debugfs", "-R", "dump /"+dataFile+" "+dump, path)
	inside, err := os.ReadFile(dump)
	if err != nil || !bytes.Equal(inside, plain[:24*mib]) {
		t.Errorf("the data in the file system is not that of a disk without one (%d bytes, %v)", len(inside), err)
	}
	var seen [256]int
	for _, b := range inside {
		seen[b]++
	}
	for b, n := range seen {
		if want := 24 * mib / 256; n < want*9/10 || n > want*11/10 {
			t.Errorf("byte %d occurs %d times, want about %d", b, n, want)
		}
	}
}

func TestGoldenXFS(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needProgram(t, "mkfs.xfs", "xfs_repair")
	s := newStore(t, Options{Size: 300 * mib, Data: 8 * mib, FileSystem: "xfs"})
	set := prepare(t, s, parseSetup(t, "copy host-fs=xfs"), spec.ClientHost, 1)
	runTool(t, "xfs_repair", "-n", set.Disks[0].Source.Path)
	if set.Dir != filepath.Dir(set.Disks[0].Source.Path) || !bytes.HasPrefix([]byte(set.HostFS), []byte("xfs rw,")) {
		t.Errorf("folder %s with %q", set.Dir, set.HostFS)
	}
	if d := set.Disks[0].HostDevice; d != s.hostFS["xfs"].loop {
		t.Errorf("device below: %q", d)
	}
}

// TestFresh: backings that are new are zeros, allocated as their name says.
func TestFresh(t *testing.T) {
	t.Parallel()
	s := newStore(t, Options{Data: 8 * mib})
	for backing, least := range map[string]int64{"sparse": 0, "falloc": 64 * mib, "full": 64 * mib, "sparse pass=second": 64 * mib} {
		su := parseSetup(t, backing)
		su.Cache = "writeback"
		set := prepare(t, s, su, spec.ClientHost, 1)
		d := open(t, set.Disks[0])
		zeros, err := diskurl.Open(t.Context(), "null:64M", diskurl.Options{})
		if err != nil {
			t.Fatal(err)
		}
		r, err := diskcopy.Compare(t.Context(), zeros, d, diskcopy.CompareOptions{})
		if err != nil || !r.Equal {
			t.Errorf("%s: not zeros (%v, %+v)", backing, err, r)
		}
		closeDisk(t, d)
		closeDisk(t, zeros)
		got := allocated(t, set.Disks[0].Source.Path)
		if got < least || least == 0 && got > mib {
			t.Errorf("%s: %d bytes allocated", backing, got)
		}
	}
	// With a file system they hold it.
	fs := newStore(t, Options{Size: 64 * mib, FileSystem: "ext4"})
	for _, backing := range []string{"sparse", "falloc", "full"} {
		set := prepare(t, fs, setup(func(su *spec.Setup) { su.Backing, su.Cache = backing, "writeback" }), spec.ClientHost, 1)
		runTool(t, "e2fsck", "-f", "-n", set.Disks[0].Source.Path)
		if got := allocated(t, set.Disks[0].Source.Path); backing != "sparse" && got < 64*mib {
			t.Errorf("%s with ext4: %d bytes allocated", backing, got)
		}
	}
}

// TestReflinkShares: a clone takes no space of its own.
func TestReflinkShares(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needProgram(t, "mkfs.xfs")
	s := newStore(t, Options{Size: 64 * mib, Data: 48 * mib})
	prepare(t, s, parseSetup(t, "reflink host-fs=xfs"), spec.ClientHost, 1) // makes the golden disk
	before, err := freeSpace(s.hostFS["xfs"].dir)
	if err != nil {
		t.Fatal(err)
	}
	set := prepare(t, s, parseSetup(t, "reflink host-fs=xfs"), spec.ClientHost, 4)
	after, err := freeSpace(set.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if before-after > 4*mib {
		t.Errorf("4 clones of 48 MiB take %d bytes", before-after)
	}
	if why := s.Missing(t.Context(), parseSetup(t, "reflink host-fs=here"), spec.ClientHost, 1, 0); tryReflink(s.o.Dir) != nil && len(why) != 1 {
		t.Errorf("on a file system without reflinks: %q", why)
	}
}

// TestSpaceComesBack: what a set took on a host file system is free again below.
func TestSpaceComesBack(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needProgram(t, "mkfs.xfs", "mkfs.btrfs", "mke2fs", "fstrim")
	s := newStore(t, Options{Size: 64 * mib})
	for _, name := range []string{"xfs", "ext4", "btrfs"} {
		set := prepare(t, s, parseSetup(t, "full host-fs="+name), spec.ClientHost, 1)
		image := filepath.Join(s.o.Dir, name+".img")
		before := allocated(t, image)
		if err := set.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if after := allocated(t, image); after > before-60*mib {
			t.Errorf("%s: %d bytes with a disk of 64 MiB, %d without", name, before, after)
		}
	}
}

// TestGuestDisks: what QEMU is told leads it to the golden disk's content.
func TestGuestDisks(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needProgram(t, "qemu-img", "tgtd", "qemu-storage-daemon")
	s := newStore(t, Options{Size: 16 * mib, Data: 8 * mib})
	for text, want := range map[string]spec.Source{
		"copy":              {Driver: "file", Format: raw},
		"overlay":           {Driver: "file", Format: qcow2, Backing: goldenIn(s.o.Dir)},
		"loop":              {Driver: "host_device", Format: raw},
		"copy server=luks":  {Driver: "file", Format: luks},
		"copy server=iscsi": {Driver: "iscsi", Format: raw},
		"copy server=qsd iothread=on device=vhost-user-blk": {Driver: "vhost-user", Format: raw},
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			set := prepare(t, s, parseSetup(t, text), spec.ClientGuest, 2)
			src := set.Disks[0].Source
			got := src
			got.Path, got.Socket, got.URL, got.KeyFile = "", "", "", ""
			if got != want {
				t.Errorf("%+v, want %+v", src, want)
			}
			compare := []string{"compare", "-U", "-f", raw, goldenIn(s.o.Dir)}
			switch {
			case src.Driver == "vhost-user":
				if ok, err := listening(src.Socket); err != nil || !ok {
					t.Errorf("nobody listens: %v", err)
				}
				return
			case src.Driver == "iscsi":
				compare = append(compare, "-F", raw, src.URL)
			case src.Format == luks:
				st, err := os.Stat(src.KeyFile)
				if err != nil || st.Mode().Perm() != 0o600 {
					t.Errorf("key file: %v, %v", st, err)
				}
				compare = []string{"compare", "--object", "secret,id=key,format=raw,file=" + src.KeyFile, "--image-opts",
					"driver=raw,file.driver=file,file.filename=" + goldenIn(s.o.Dir),
					"driver=luks,key-secret=key,file.driver=file,file.filename=" + src.Path}
			default:
				compare = append(compare, "-F", src.Format, src.Path)
			}
			runTool(t, "qemu-img", compare...)
			if src.Format == qcow2 {
				runTool(t, "qemu-img", "check", src.Path)
			}
		})
	}
}

// TestOddPath has what QEMU's options, URLs and tables of the kernel escape.
func TestOddPath(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needProgram(t, "qemu-img", "qemu-nbd", "qemu-storage-daemon", "mkfs.xfs")
	parent := workDir(t)
	t.Cleanup(func() {
		if err := os.Remove(parent); err != nil {
			t.Error(err)
		}
	})
	s := newStore(t, Options{Dir: filepath.Join(parent, "a, b%20=c#d"), Size: 16 * mib, Data: mib})
	for _, text := range []string{
		"loop host-fs=xfs", "overlay server=qemu-nbd l2-cache-size=1M", "copy server=qsd-nbd", "copy server=luks", "copy server=vmdisk", "tmpfs",
	} {
		s.o.Vmdisk = vmdiskBinary(t)
		checkIsolation(t, s, prepare(t, s, parseSetup(t, text), spec.ClientHost, 2))
	}
}
