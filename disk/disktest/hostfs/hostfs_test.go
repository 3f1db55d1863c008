package hostfs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if os.Getenv("HOSTFS_TEST_DIE") != "" {
		os.Exit(m.Run()) // the child of TestKilled leaves things behind on purpose
	}
	os.Exit(Main(m))
}

func TestMount(t *testing.T) {
	t.Parallel()
	magic := map[Kind]int64{Ext2: unix.EXT2_SUPER_MAGIC, Ext4: unix.EXT4_SUPER_MAGIC, XFS: unix.XFS_SUPER_MAGIC,
		Btrfs: unix.BTRFS_SUPER_MAGIC, Tmpfs: unix.TMPFS_MAGIC, Ramfs: unix.RAMFS_MAGIC}
	for _, kind := range Kinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			dir := Mount(t, kind, Options{})
			if err := os.WriteFile(filepath.Join(dir, "file"), []byte("hello"), 0o600); err != nil {
				t.Fatal(err)
			}
			var st unix.Statfs_t
			if err := unix.Statfs(dir, &st); err != nil || st.Type != magic[kind] {
				t.Errorf("file system of type %#x (%v), want %#x", st.Type, err, magic[kind])
			}
		})
	}
}

func TestLoop(t *testing.T) {
	t.Parallel()
	ram := Mount(t, Ramfs, Options{})
	for i, sector := range []int{512, 4096, 512} {
		o := Options{Size: 1 << 20, Sector: sector}
		if i == 2 {
			o.Dir = ram
		}
		dev := Loop(t, o)
		f, err := os.Open(dev)
		if err != nil {
			t.Fatal(err)
		}
		got, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET)
		f.Close()
		if err != nil || got != sector {
			t.Errorf("%s has sectors of %d bytes (%v), want %d", dev, got, err, sector)
		}
	}
}

// TestKilled starts this test again in a process that is killed with a file
// system mounted.
func TestKilled(t *testing.T) {
	t.Parallel()
	if os.Getenv("HOSTFS_TEST_DIE") != "" {
		Mount(t, Ext4, Options{Size: 16 << 20})
		unix.Kill(os.Getpid(), unix.SIGKILL)
	}
	RequireRoot(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), "HOSTFS_TEST_DIE=1")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the child was to be killed: %v\n%s", err, out)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		left, err := Leftovers(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind by a killed process: %q", left)
		}
	}
}

func TestLeftoversAreSeen(t *testing.T) {
	t.Parallel()
	const pid = 1 << 30 // nobody's
	dir := filepath.Join(os.TempDir(), prefix+strconv.Itoa(pid)+"-x")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	left, err := Leftovers(pid)
	os.Remove(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("found %q, %v, want one directory", left, err)
	}
}
