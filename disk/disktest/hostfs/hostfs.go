// Package hostfs makes file systems and block devices of this host for tests:
// small sparse images behind loop devices, formatted and mounted. It needs root.
//
// Each fixture has a process of its own, a shell that waits for the test process
// to let go of a pipe and then unmounts, detaches and deletes. So nothing stays
// behind, whether the test passes, fails, panics or is killed. [Main] checks
// that.
package hostfs

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Kind is a kind of file system.
type Kind string

// The kinds that Mount makes.
const (
	Ext2  Kind = "ext2"
	Ext4  Kind = "ext4"
	XFS   Kind = "xfs"
	Btrfs Kind = "btrfs"
	Tmpfs Kind = "tmpfs"
	Ramfs Kind = "ramfs" // knows no fallocate at all, nor a limit of its size
)

// Kinds lists all of them.
var Kinds = []Kind{Ext2, Ext4, XFS, Btrfs, Tmpfs, Ramfs}

// Options describe a fixture; the zero value is a good default.
type Options struct {
	// Size of the device in bytes: sparse, 512 MiB by default (mkfs.xfs wants
	// 300 MiB, mkfs.btrfs 110 MiB).
	Size int64
	// Sector is the logical sector size of the loop device, 512 (default) or 4096.
	Sector int
	// Dir holds the image of the device (default: the directory for temporary files).
	Dir string
}

func (o Options) withDefaults() Options {
	if o.Size == 0 {
		o.Size = 512 << 20
	}
	if o.Sector == 0 {
		o.Sector = 512
	}
	return o
}

// RequireRoot skips the test where it does not run as root.
func RequireRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root for loop devices and mounts: run `make test` as root or through sudo")
	}
}

// RequireTool fails the test where a program is missing, naming the Debian
// package that has it.
func RequireTool(tb testing.TB, name, pkg string) {
	tb.Helper()
	if _, err := find(name); err != nil {
		tb.Fatalf("%s is missing: apt-get install %s", name, pkg)
	}
}

// find is exec.LookPath that also knows the administrator's directories, which
// sudo and some CI systems leave out of PATH.
func find(name string) (string, error) {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: not found", name)
}

// Mount makes a file system and returns the directory where it is mounted, until
// the test ends.
func Mount(tb testing.TB, kind Kind, o Options) string {
	tb.Helper()
	RequireRoot(tb)
	o = o.withDefaults()
	f := newFixture(tb, o.Dir)
	at := filepath.Join(f.dir, "mnt")
	if err := os.Mkdir(at, 0o755); err != nil {
		tb.Fatal(err)
	}
	if kind == Tmpfs || kind == Ramfs {
		run(tb, "mount", "-t", string(kind), "-o", fmt.Sprintf("size=%d", o.Size), "vmdisk-test", at)
		return at
	}
	dev := f.loop(tb, o)
	f.format(tb, kind, dev)
	run(tb, "mount", "-t", string(kind), dev, at)
	return at
}

// Loop makes a block device and returns its path, until the test ends.
func Loop(tb testing.TB, o Options) string {
	tb.Helper()
	RequireRoot(tb)
	return newFixture(tb, o.Dir).loop(tb, o.withDefaults())
}

func (f *fixture) format(tb testing.TB, kind Kind, dev string) {
	tb.Helper()
	var args []string
	pkg := "e2fsprogs"
	switch kind {
	case Ext2, Ext4:
		args = []string{"-q", "-F", "-b", "4096", "-m", "0", dev}
	case XFS:
		pkg, args = "xfsprogs", []string{"-q", "-f", dev}
	case Btrfs:
		pkg, args = "btrfs-progs", []string{"-q", "-f", dev}
	default:
		tb.Fatalf("hostfs: unknown kind of file system %q", kind)
	}
	name := "mkfs." + string(kind)
	RequireTool(tb, name, pkg)
	run(tb, name, args...)
}

func (f *fixture) loop(tb testing.TB, o Options) string {
	tb.Helper()
	image := filepath.Join(f.dir, "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Truncate(image, o.Size); err != nil {
		tb.Fatal(err)
	}
	return run(tb, "losetup", "--find", "--show", "--sector-size", strconv.Itoa(o.Sector), image)
}

func run(tb testing.TB, name string, args ...string) string {
	tb.Helper()
	path, err := find(name)
	if err != nil {
		tb.Fatal(err)
	}
	out, err := exec.CommandContext(tb.Context(), path, args...).CombinedOutput()
	if err != nil {
		tb.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// fixture is a directory and the process that cleans it up.
type fixture struct{ dir string }

// prefix of the directories; the process id follows.
const prefix = "vmdisk-hostfs-"

// cleaner waits until its standard input ends, which the end of the test process
// brings about in any case. $1 is the fixture's directory. What is busy for 10 s is
// unmounted lazily, and then reported: a file that was left open stays so, but those of
// a closed io_uring are released by a kernel thread, which takes seconds on a busy host.
const cleaner = `
cat >/dev/null
status=0
umounted() { ! grep -qF " $1/mnt " /proc/self/mounts; }
tries=0
while [ $tries -lt 100 ]; do
	tries=$((tries + 1))
	umounted "$1" && break
	umount "$1/mnt" 2>/dev/null || sleep 0.1
done
if ! umounted "$1"; then
	echo "$1/mnt is still in use" >&2; status=1
	umount -l "$1/mnt"
fi
for b in /sys/block/loop*/loop/backing_file; do
	[ "$(cat "$b" 2>/dev/null)" = "$1/image" ] || continue
	dev=/dev/$(basename "$(dirname "$(dirname "$b")")")
	losetup -d "$dev" || status=1
done
rm -rf "$1" || status=1
exit $status
`

func newFixture(tb testing.TB, parent string) *fixture {
	tb.Helper()
	dir, err := os.MkdirTemp(parent, fmt.Sprintf("%s%d-", prefix, os.Getpid()))
	if err != nil {
		tb.Fatal(err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		tb.Fatal(err)
	}
	startCleaner(tb, dir)
	return &fixture{dir: dir}
}

func startCleaner(tb testing.TB, dir string) {
	tb.Helper()
	cmd := exec.Command("/bin/sh", "-c", cleaner, "sh", dir)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	cmd.Dir = "/"
	// A session of its own: an interrupt at the terminal must not end it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	hold, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		_ = os.RemoveAll(dir)
		tb.Fatal(err)
	}
	tb.Cleanup(func() { finish(tb, cmd, hold, &stderr) })
}

func finish(tb testing.TB, cmd *exec.Cmd, hold io.Closer, stderr *strings.Builder) {
	hold.Close()
	if err := cmd.Wait(); err != nil {
		tb.Errorf("cleaning up: %v\n%s", err, stderr)
	}
}

// Main runs the tests of a package and fails if a mount, a loop device or a
// directory of theirs is left:
//
//	func TestMain(m *testing.M) { os.Exit(hostfs.Main(m)) }
func Main(m *testing.M) int {
	code := m.Run()
	left, err := Leftovers(os.Getpid())
	if err != nil {
		fmt.Fprintln(os.Stderr, "hostfs:", err)
		return 1
	}
	for _, what := range left {
		fmt.Fprintln(os.Stderr, "hostfs: left behind:", what)
		code = 1
	}
	return code
}

// Leftovers lists the mounts, loop devices and directories that the fixtures of
// process pid have left.
func Leftovers(pid int) ([]string, error) {
	mark := fmt.Sprintf("/%s%d-", prefix, pid)
	var left []string
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, mark) {
			left = append(left, "mount "+strings.TrimSpace(line))
		}
	}
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	for _, name := range backing {
		// A device that is gone meanwhile is not left behind.
		if b, err := os.ReadFile(name); err == nil && strings.Contains(string(b), mark) {
			left = append(left, "loop device "+strings.TrimSpace(string(b)))
		}
	}
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), mark[1:]+"*"))
	return append(left, dirs...), err
}
