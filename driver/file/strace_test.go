package file

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest/hostfs"
)

// TestSystemCalls lets strace tell which calls are made, and which are not made
// again once refused. The child is this test in a process of its own.
func TestSystemCalls(t *testing.T) {
	t.Parallel()
	if path := os.Getenv("VMDISK_TRACED_DISK"); path != "" {
		traced(t, path)
		return
	}
	hostfs.RequireRoot(t)
	const (
		zeroRange = `fallocate FALLOC_FL_KEEP_SIZE|FALLOC_FL_ZERO_RANGE`
		punch     = `fallocate FALLOC_FL_KEEP_SIZE|FALLOC_FL_PUNCH_HOLE`
		write     = `pwrite64`
		fua       = `pwritev2 RWF_DSYNC`
	)
	// Each of the five operations of traced, in order.
	for _, c := range []struct {
		path string
		want []string
	}{
		{onFS(t, hostfs.XFS, hostfs.Options{})(t), []string{zeroRange, punch, zeroRange, "fdatasync", zeroRange, punch, fua, "fdatasync"}},
		{onFS(t, hostfs.Tmpfs, hostfs.Options{})(t), []string{zeroRange, punch, "fallocate 0", punch, punch, "fallocate 0", "fdatasync", punch, fua, "fdatasync"}},
		{onLoop(hostfs.Options{})(t), []string{zeroRange, punch, zeroRange, "fdatasync", zeroRange, "ioctl BLKDISCARD", fua, "fdatasync"}},
	} {
		if got := trace(t, c.path); strings.Join(got, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("%s: system calls\n%s\nwant\n%s", c.path, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
	}
}

// traced is what the child does.
func traced(t *testing.T, path string) {
	f := openFile(t, path, Options{})
	p := random(4096, 1)
	for _, err := range []error{
		f.Zero(bg, 0, 1<<20, 0),
		f.Zero(bg, 0, 1<<20, disk.MayTrim),
		f.Zero(bg, 0, 1<<20, disk.FUA),
		ignore(f.Zero(bg, 0, 1<<20, disk.FastOnly)),
		f.Trim(bg, 0, 1<<20, 0),
		f.WriteAt(bg, p, 0, disk.FUA),
		f.Flush(bg),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func ignore(error) error { return nil }

// call finds, in a line of strace, the system call and the flags that matter.
var call = regexp.MustCompile(`^(fallocate|ioctl|pwrite64|pwritev2|fdatasync|fsync)\((.*)`)

func trace(t *testing.T, path string) []string {
	t.Helper()
	lines, _ := hostfs.Strace(t, []string{"VMDISK_TRACED_DISK=" + path},
		[]string{"-P", path, "-e", "trace=fallocate,ioctl,pwrite64,pwritev2,fdatasync,fsync"}, os.Args[0], "-test.run=^TestSystemCalls$")
	var calls []string
	for _, line := range lines {
		m := call.FindStringSubmatch(line)
		if m == nil || strings.Contains(line, "BLKSSZGET") || strings.Contains(line, "BLKPBSZGET") || strings.Contains(line, "BLKGETSIZE64") || strings.Contains(line, "BLKROGET") {
			continue
		}
		calls = append(calls, strings.TrimSpace(m[1]+" "+flagsOf(m[1], m[2])))
	}
	return calls
}

// flagsOf picks the argument that says what a call does.
func flagsOf(name, args string) string {
	list := strings.Split(strings.SplitN(args, ")", 2)[0], ", ")
	switch name {
	case "fallocate", "ioctl":
		return list[1]
	case "pwritev2":
		return list[len(list)-1]
	}
	return ""
}

// underFaults runs the named test again in a process whose system calls strace
// makes fail.
func underFaults(t *testing.T, inject ...string) {
	t.Helper()
	hostfs.RequireTool(t, "strace", "strace")
	args := []string{"-f", "-qq", "-o", os.DevNull}
	for _, i := range inject {
		args = append(args, "-e", "inject="+i)
	}
	cmd := exec.CommandContext(t.Context(), "strace", append(args, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")...)
	cmd.Env = append(os.Environ(), "VMDISK_UNDER_FAULTS=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	}
}

// isChild reports whether this is the process under strace, which counts calls by
// thread: the test then stays on one.
func isChild() bool {
	if os.Getenv("VMDISK_UNDER_FAULTS") == "" {
		return false
	}
	runtime.LockOSThread()
	return true
}

// TestWithoutIOUring: as in a container whose seccomp filter forbids io_uring.
func TestWithoutIOUring(t *testing.T) {
	t.Parallel()
	if !isChild() {
		underFaults(t, "io_uring_setup:error=EPERM")
		return
	}
	path := newFile(t, t.TempDir(), 1<<20)
	if f, err := Open(bg, path, Options{AIO: IOUring}); !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "seccomp") {
		f.Close()
		t.Errorf("AIO mode io_uring: %v", err)
	}
	f := openFile(t, path, Options{})
	if _, err := f.NewQueue(4); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("AIO mode auto: %v", err)
	}
	q, err := disk.New(f, path).NewQueue(4)
	if err != nil {
		t.Fatal(err)
	}
	p := random(4096, 1)
	if errs := finish(t, q, disk.Op{Kind: disk.Write, Len: 4096, Vec: [][]byte{p}}); errs[0] != nil {
		t.Error(errs[0])
	}
	if err := q.Close(); err != nil {
		t.Error(err)
	}
}

// TestRefusalIsRemembered: EOPNOTSUPP once, and the call is not made again; the
// injected failures are of the first call alone.
func TestRefusalIsRemembered(t *testing.T) {
	t.Parallel()
	if !isChild() {
		underFaults(t, "fallocate:error=EOPNOTSUPP:when=1")
		return
	}
	f := openFile(t, newFile(t, t.TempDir(), 1<<20), Options{})
	for range 3 {
		if err := f.Zero(bg, 0, 1<<20, disk.FastOnly); !errors.Is(err, disk.ErrNotFast) {
			t.Errorf("fast zero: %v", err)
		}
		if err := f.Zero(bg, 0, 1<<20, 0); err != nil {
			t.Error(err)
		}
	}
	if got := f.Served(); got[PunchAllocate] != 3 || len(got) != 1 {
		t.Errorf("served by %v", got)
	}
}

// TestInvalidIsNotRemembered: EINVAL once, and the call is made again.
func TestInvalidIsNotRemembered(t *testing.T) {
	t.Parallel()
	if !isChild() {
		underFaults(t, "fallocate:error=EINVAL:when=1")
		return
	}
	f := openFile(t, newFile(t, t.TempDir(), 1<<20), Options{})
	for range 3 {
		if err := f.Zero(bg, 0, 1<<20, 0); err != nil {
			t.Error(err)
		}
	}
	if got := f.Served(); got[PunchAllocate] != 1 || got[ZeroRange] != 2 {
		t.Errorf("served by %v", got)
	}
}

// TestInterrupted: EINTR is no error anywhere.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	if !isChild() {
		underFaults(t, "fallocate,fdatasync:error=EINTR:when=1..2")
		return
	}
	f := openFile(t, newFile(t, t.TempDir(), 1<<20), Options{})
	if err := errors.Join(f.Zero(bg, 0, 1<<20, disk.FUA), f.Flush(bg), f.Trim(bg, 0, 1<<20, 0)); err != nil {
		t.Error(err)
	}
}

// TestFailedFlushSticks: the kernel reports a lost write once; the Disk goes on
// reporting it.
func TestFailedFlushSticks(t *testing.T) {
	t.Parallel()
	if !isChild() {
		underFaults(t, "fdatasync:error=EIO:when=1")
		return
	}
	d := disk.New(openFile(t, newFile(t, t.TempDir(), 1<<20), Options{}), "disk")
	for range 2 {
		if err := d.Flush(bg); !errors.Is(err, unix.EIO) {
			t.Errorf("flush: %v", err)
		}
	}
}

// TestQueueWithoutRegistration: the kernel registers neither file nor buffers, as
// where RLIMIT_MEMLOCK is low; the queue works all the same.
func TestQueueWithoutRegistration(t *testing.T) {
	t.Parallel()
	if !isChild() {
		underFaults(t, "io_uring_register:error=ENOMEM:when=2..3") // the first asks for the operations
		return
	}
	f := openFile(t, newFile(t, t.TempDir(), 1<<20), Options{})
	q := newQueue(t, f, 4).(*ringQueue)
	mem := random(8192, 1)
	if err := q.Register([][]byte{mem}); err != nil {
		t.Fatal(err)
	}
	if q.fixed || q.target.Fixed {
		t.Fatal("the fault was not injected")
	}
	errs := finish(t, q, disk.Op{Kind: disk.Write, Len: 4096, Vec: [][]byte{mem[:4096]}, Buf: 1, Flags: disk.FUA, Tag: 1})
	errs2 := finish(t, q, disk.Op{Kind: disk.Read, Len: 4096, Vec: [][]byte{mem[4096:]}, Buf: 1, Tag: 1})
	if errs[1] != nil || errs2[1] != nil || !bytes.Equal(mem[:4096], mem[4096:]) {
		t.Errorf("%v, %v, or other bytes", errs, errs2)
	}
}
