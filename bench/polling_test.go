package bench_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/bench"
	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/bench/result"
	"github.com/vmdisk/vmdisk/disk/disktest/hostfs"
)

const pollEnv = "VMDISK_BENCH_POLLING"

// pollJob writes a file anew, once to each block: of unwritten blocks every file
// system takes polled writes, whether or not its device has queues for polling.
func pollJob(name string, more ...string) []string {
	return append([]string{"--name=j", "--filename=" + name, "--size=1m", "--bs=4k", "--rw=randwrite", "--direct=1", "--hipri"}, more...)
}

// traced runs the test again under strace, where it does the job, and returns what
// strace saw.
func traced(t *testing.T, calls string) string {
	t.Helper()
	lines, _ := hostfs.Strace(t, []string{pollEnv + "=1"}, []string{"-e", "trace=" + calls}, os.Args[0], "-test.run=^"+t.Name()+"$")
	return strings.Join(lines, "\n")
}

// hipri of io_uring sets the ring up for polling, and the job's figures are whole.
func TestHipriByRing(t *testing.T) {
	t.Parallel()
	if os.Getenv(pollEnv) != "" {
		r := run(t, pollJob(filepath.Join(t.TempDir(), "f"), "--ioengine=io_uring", "--iodepth=8", "--fsync=50")...)
		if d := r.Jobs[0].Dirs[jobfile.Write]; d.IOs != 256 || len(r.Notes) > 0 {
			t.Errorf("%d writes, notes %q", d.IOs, r.Notes)
		}
		return
	}
	if text := traced(t, "io_uring_setup"); strings.Count(text, "IORING_SETUP_IOPOLL") != 1 {
		t.Errorf("want one polled ring:\n%s", text)
	}
}

// hipri of pvsync2 is a flag of each call, or of a share of them.
func TestHipriByCalls(t *testing.T) {
	t.Parallel()
	if os.Getenv(pollEnv) != "" {
		name := filepath.Join(t.TempDir(), "f")
		for _, more := range []string{"--rw=randwrite", "--rw=randread", "--hipri_percentage=30", "--hipri_percentage=0"} {
			if r := run(t, pollJob(name, "--ioengine=pvsync2", more)...); len(r.Notes) > 0 {
				t.Errorf("notes %q", r.Notes)
			}
		}
		return
	}
	text := traced(t, "preadv2,pwritev2,io_uring_setup")
	count := func(pattern string) int { return len(regexp.MustCompile(pattern).FindAllString(text, -1)) }
	if n := count(`preadv2\(.*, RWF_HIPRI\)`); n != 256 {
		t.Errorf("%d reads were polled, want 256", n)
	}
	// 256 draws of 30 %: outside these bounds once in 10^10 runs.
	if n := count(`pwritev2\(.*, RWF_HIPRI\)`) - 256; n < 30 || n > 130 || n+count(`pwritev2\(.*, 0\)`) != 256 {
		t.Errorf("%d of 256 writes were polled, want about 77", n)
	}
	if strings.Contains(text, "IOPOLL") {
		t.Error("a ring polls")
	}
}

// A file that cannot be polled is told of once, however many jobs use it, and
// the I/O is done; fio fails, and so does a strict run.
func TestHipriIsRefused(t *testing.T) {
	t.Parallel()
	hostfs.RequireRoot(t)
	name := filepath.Join(hostfs.Mount(t, hostfs.Tmpfs, hostfs.Options{Size: 16 << 20}), "f")
	args := pollJob(name, "--ioengine=io_uring", "--numjobs=3")
	fd, err := unix.Open(name, unix.O_CREAT|unix.O_RDWR|unix.O_DIRECT, 0o600)
	if err != nil {
		t.Skipf("this kernel's tmpfs has no O_DIRECT: %v", err)
	}
	unix.Close(fd)
	r := run(t, args...)
	if len(r.Notes) != 1 || !r.Notes[0].Found || !strings.Contains(r.Notes[0].Text, "hipri has no effect on "+name) {
		t.Errorf("notes %q, want one of the file", r.Notes)
	}
	for _, j := range r.Jobs {
		if j.Dirs[jobfile.Write].IOs != 256 {
			t.Errorf("%d writes, want 256", j.Dirs[jobfile.Write].IOs)
		}
	}
	strictFails(t, args)
}

// strictFails wants a strict run to fail as fio does.
func strictFails(t *testing.T, args []string) {
	t.Helper()
	r, err := bench.Run(t.Context(), &bench.Request{Args: args, Open: openFile, Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Failed(); !errors.Is(err, unix.EOPNOTSUPP) || !strings.Contains(err.Error(), "hipri=1") || r.Jobs[0].Errno != int(unix.EOPNOTSUPP) {
		t.Errorf("strictly: %v, errno %d", err, r.Jobs[0].Errno)
	}
	if out, err := exec.Command("fio", append(fioOrder(args), "--minimal")...).CombinedOutput(); err == nil || !strings.Contains(string(out), "Operation not supported") {
		t.Errorf("fio takes it: %v\n%s", err, out)
	}
}

// fioOrder puts an engine's own options behind the engine, as fio wants it.
func fioOrder(args []string) []string {
	var out []string
	for _, a := range args {
		if a != "--hipri" {
			out = append(out, a)
		}
	}
	return append(out, "--hipri")
}

// Where the kernel refuses only once it is read, the job goes on, with an ordinary
// ring, and each I/O counts once. The device of a loop has no queues for polling.
func TestHipriIsRefusedInMidRun(t *testing.T) {
	t.Parallel()
	hostfs.RequireRoot(t)
	dir := hostfs.Mount(t, hostfs.XFS, hostfs.Options{})
	name := filepath.Join(dir, "f")
	run(t, "--name=lay", "--filename="+name, "--size=1m", "--bs=64k", "--rw=write", "--direct=1", "--end_fsync=1")
	args := []string{"--name=j", "--filename=" + name, "--size=1m", "--bs=4k", "--rw=randrw", "--direct=1", "--hipri", "--ioengine=io_uring", "--iodepth=8"}
	r := run(t, args...)
	if n := r.Jobs[0].Dirs[jobfile.Read].IOs + r.Jobs[0].Dirs[jobfile.Write].IOs; n != 256 {
		t.Errorf("%d I/Os, want 256", n)
	}
	if len(r.Notes) == 0 {
		t.Skip("this kernel polls a device without queues for it, until its interrupt comes")
	}
	if text := notesOf(r); len(r.Notes) != 1 || !strings.Contains(text, "refuses polled") {
		t.Errorf("notes %q, want one refusal", text)
	}
	strictFails(t, args)
}

func notesOf(r *result.Run) string {
	var lines []string
	for _, n := range r.Notes {
		lines = append(lines, n.Text)
	}
	return strings.Join(lines, "\n")
}
