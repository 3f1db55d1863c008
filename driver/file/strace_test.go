package file

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

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
	hostfs.RequireTool(t, "strace", "strace")
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
		{onFS(t, hostfs.XFS)(t), []string{zeroRange, punch, zeroRange, "fdatasync", zeroRange, punch, fua, "fdatasync"}},
		{onFS(t, hostfs.Tmpfs)(t), []string{zeroRange, punch, "fallocate 0", punch, punch, "fallocate 0", "fdatasync", punch, fua, "fdatasync"}},
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
var call = regexp.MustCompile(`^\d+ +(fallocate|ioctl|pwrite64|pwritev2|fdatasync|fsync)\((.*)`)

func trace(t *testing.T, path string) []string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "strace")
	cmd := exec.CommandContext(t.Context(), "strace", "-f", "-qq", "-o", out, "-P", path,
		"-e", "trace=fallocate,ioctl,pwrite64,pwritev2,fdatasync,fsync", os.Args[0], "-test.run=^TestSystemCalls$")
	cmd.Env = append(os.Environ(), "VMDISK_TRACED_DISK="+path)
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, msg)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var calls []string
	for line := range strings.Lines(string(text)) {
		m := call.FindStringSubmatch(line)
		if m == nil || strings.Contains(line, "BLKSSZGET") || strings.Contains(line, "BLKPBSZGET") || strings.Contains(line, "BLKGETSIZE64") {
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
