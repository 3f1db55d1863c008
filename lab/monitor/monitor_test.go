package monitor

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// TestMain: the test binary is also the busy process that the tests watch.
func TestMain(m *testing.M) {
	if d, err := time.ParseDuration(os.Getenv("MONITOR_TEST_BURN")); err == nil {
		busyChild(d)
		return
	}
	os.Exit(m.Run())
}

// busyChild waits for a line, computes for d of CPU time, says so, and waits for
// the end of its input.
func busyChild(d time.Duration) {
	in := bufio.NewReader(os.Stdin)
	in.ReadString('\n')
	for begin := cpuTime(); cpuTime()-begin < d; {
	}
	fmt.Println("done")
	in.ReadString('\n')
}

func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestBusyProcess: what is seen of a process that computes is what the kernel
// charges it with, whatever else the machine does.
func TestBusyProcess(t *testing.T) {
	t.Parallel()
	const burn = 600 * time.Millisecond
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "MONITOR_TEST_BURN="+burn.String())
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	m, err := Start(t.Context(), Options{Processes: []Process{{"client a", cmd.Process.Pid}, {"vmdisk", os.Getpid()}}, Interval: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in, "go")
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "done\n" {
		t.Errorf("the child said %q, %v", line, err)
	}
	h := m.Stop()
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	all := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	u := h.Processes[0]
	got := time.Duration(u.UserNS + u.SystemNS)
	if got < burn-30*time.Millisecond || got > all+30*time.Millisecond {
		t.Errorf("the child used %v of CPU after Start, %v in all; seen %v", burn, all, got)
	}
	if cpus := got.Seconds() / (float64(h.ElapsedNS) / 1e9); math.Abs(cpus-u.CPUs) > 1e-6 || u.CPUs > 1.1 {
		t.Errorf("%v CPUs, want %v", u.CPUs, cpus)
	}
	if u.Name != "client a" || u.MaxRSS == 0 || u.Voluntary+u.Involuntary == 0 {
		t.Errorf("%+v", u)
	}
	if h.Busy <= 0 || h.Busy > 1 || h.Switches <= 0 || h.CPUs < 1 {
		t.Errorf("%+v", h)
	}
	if again := m.Stop(); again.ElapsedNS != h.ElapsedNS {
		t.Error("a second Stop measures again")
	}
}

// TestPointsAddUp: the points cover the whole time without a gap, so their mean,
// weighted by length, is the figure of the whole.
func TestPointsAddUp(t *testing.T) {
	t.Parallel()
	m, err := Start(t.Context(), Options{Interval: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); time.Since(begin) < 700*time.Millisecond; {
	}
	h := m.Stop()
	if len(h.Points) < 2 {
		t.Fatalf("%d points", len(h.Points))
	}
	var sum float64
	last := int64(0)
	for _, p := range h.Points {
		if p.AtNS <= last {
			t.Fatalf("a point at %d ns after one at %d ns", p.AtNS, last)
		}
		sum += p.Busy * float64(p.AtNS-last)
		last = p.AtNS
	}
	if last != h.ElapsedNS {
		t.Errorf("the last point is at %d ns, the measurement took %d ns", last, h.ElapsedNS)
	}
	// The kernel counts in hundredths of a second, so a point may be off by some.
	if mean := sum / float64(last); math.Abs(mean-h.Busy) > 0.15 {
		t.Errorf("the points' mean is %v, the whole %v", mean, h.Busy)
	}
}

func TestCancelledStartStops(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	m, err := Start(ctx, Options{})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if h := m.Stop(); h.ElapsedNS <= 0 {
		t.Errorf("%+v", h)
	}
}

func TestStartErrors(t *testing.T) {
	t.Parallel()
	for want, o := range map[string]Options{
		"watch server b: process 4194305 does not run": {Processes: []Process{{"server b", 4194305}}},
		"watch device nosuch: the kernel has no block": {Devices: []string{"nosuch"}},
		"watch device /dev/nosuch: ":                   {Devices: []string{"/dev/nosuch"}},
	} {
		if m, err := Start(t.Context(), o); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", o, err, want)
			if err == nil {
				m.Stop()
			}
		}
	}
}

// TestLoopDevice: writes to a loop device are seen, in number and bytes.
func TestLoopDevice(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a loop device")
	}
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--show", "-f", file).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v: %s", err, out)
	}
	dev := strings.TrimSpace(string(out))
	defer exec.Command("losetup", "-d", dev).Run()
	m, err := Start(t.Context(), Options{Devices: []string{dev}, Interval: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	out, err = exec.Command("dd", "if=/dev/zero", "of="+dev, "bs=64k", "count=64", "oflag=direct").CombinedOutput()
	h := m.Stop()
	if err != nil {
		t.Fatalf("dd: %v: %s", err, out)
	}
	d := h.Devices[0]
	seconds := float64(h.ElapsedNS) / 1e9
	if n := d.WriteIOPS * seconds; math.Abs(n-64) > 1 {
		t.Errorf("%.1f writes, want 64", n)
	}
	if n := d.WriteBW * seconds; math.Abs(n-4<<20) > 4096 {
		t.Errorf("%.0f bytes written, want 4 MiB", n)
	}
	if d.Name != filepath.Base(dev) || d.Utilization < 0 || d.Utilization > 1 {
		t.Errorf("%+v", d)
	}
}

// fakeHost writes a proc and a sys file system to be read.
func fakeHost(t *testing.T) (proc, sys string) {
	t.Helper()
	proc, sys = t.TempDir(), t.TempDir()
	write(t, proc, map[string]string{
		"stat":            "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 100 0 100 800 0 0 0 0 0 0\nctxt 1000\nbtime 1\n",
		"loadavg":         "1.00 0.50 0.25 1/100 4242\n",
		"diskstats":       "   7       0 loop0 10 0 80 5 20 0 160 7 0 100 12 0 0 0 0\n",
		"pressure/cpu":    "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
		"pressure/io":     "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
		"pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
		"cpuinfo":         "processor\t: 0\nvendor_id\t: X\nmodel name\t: Lab CPU\nphysical id\t: 0\ncore id\t: 0\nflags\t\t: fpu hypervisor\n\nprocessor\t: 1\nvendor_id\t: X\nmodel name\t: Lab CPU\nphysical id\t: 0\ncore id\t: 0\nflags\t\t: fpu hypervisor\n",
	})
	write(t, sys, map[string]string{
		"kernel/debug/kvm/100-3/exits":                     "1000\n",
		"devices/system/cpu/vulnerabilities/meltdown":      "Not affected",
		"devices/system/cpu/vulnerabilities/retbleed":      "Mitigation: untrained return thunk",
		"devices/system/cpu/vulnerabilities/vmscape":       "Vulnerable",
		"devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
		"devices/system/cpu/cpu1/cpufreq/scaling_governor": "powersave\n",
		"class/dmi/id/sys_vendor":                          "Maker\n",
		"class/dmi/id/product_name":                        "Model 1\n",
		"devices/virtual/block/loop0/queue/scheduler":      "none [mq-deadline] bfq\n",
		"devices/virtual/block/loop0/queue/rotational":     "1\n",
		"devices/virtual/block/loop0/loop/backing_file":    "/tmp/disk\n",
		"devices/virtual/block/loop0/part/partition":       "1\n",
		"devices/system/node/node0/cpumap":                 "1\n",
		"devices/system/node/node1/cpumap":                 "2\n",
		"devices/system/node/possible":                     "0-1\n",
	})
	return proc, sys
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCounters: every figure comes from the counter it should, checked with
// counters whose steps are known.
func TestCounters(t *testing.T) {
	t.Parallel()
	proc, sys := fakeHost(t)
	s, err := newSampler(Options{Devices: []string{"loop0"}, proc: proc, sys: sys})
	if err != nil {
		t.Fatal(err)
	}
	write(t, proc, map[string]string{
		// Of 1000 ticks 300 user, 100 system, 200 idle, 100 iowait, 100 irq, 200 steal.
		"stat":            "cpu  400 0 200 1000 100 100 0 200 0 0\ncpu0 1 0 1 1 0 0 0 0 0 0\ncpu1 1 0 1 1 0 0 0 0 0 0\nctxt 3000\nbtime 1\n",
		"loadavg":         "7.12 3.37 2.19 9/100 4242\n",
		"diskstats":       "   7       0 loop0 110 0 880 5 220 0 1760 7 0 600 12 0 0 0 0\n",
		"pressure/cpu":    "some avg10=0.00 avg60=0.00 avg300=0.00 total=100000\n",
		"pressure/io":     "some avg10=0.00 avg60=0.00 avg300=0.00 total=200000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=300000\n",
		"pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=400000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=500000\n",
	})
	write(t, sys, map[string]string{"kernel/debug/kvm/100-3/exits": "6000\n", "kernel/debug/kvm/101-3/exits": "5000\n"})
	s.sample()
	// As if it had taken exactly one second.
	s.last.at = s.first.at + 1e9
	h := s.host()
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 1e-9 {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}
	near("busy", h.Busy, 0.5)
	near("iowait", h.IOWait, 0.1)
	near("steal", h.Steal, 0.2)
	near("load", h.Load[0]*1e4+h.Load[1]*1e2+h.Load[2], 71200+337+2.19)
	near("switches", h.Switches, 2000)
	near("exits", h.Exits, 10000)
	near("utilization", h.Devices[0].Utilization, 0.5)
	near("reads", h.Devices[0].ReadIOPS, 100)
	near("writes", h.Devices[0].WriteIOPS, 200)
	near("read bandwidth", h.Devices[0].ReadBW, 800*512)
	near("write bandwidth", h.Devices[0].WriteBW, 1600*512)
	if p := h.Pressure; p == nil || *p != (Pressure{0.1, 0.2, 0.3, 0.4, 0.5}) {
		t.Errorf("pressure %+v", p)
	}
	if h.CPUs != 2 || len(h.Points) != 1 {
		t.Errorf("%+v", h)
	}
}

// TestWithout: a kernel without PSI and debugfs is told apart from one where
// nothing waits.
func TestWithout(t *testing.T) {
	t.Parallel()
	proc, sys := fakeHost(t)
	if err := os.RemoveAll(filepath.Join(proc, "pressure")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(sys, "kernel")); err != nil {
		t.Fatal(err)
	}
	s, err := newSampler(Options{proc: proc, sys: sys})
	if err != nil {
		t.Fatal(err)
	}
	s.sample()
	if h := s.host(); h.Pressure != nil || h.Exits != -1 {
		t.Errorf("%+v", h)
	}
}

// TestEndedProcess: a process keeps the figures of its last sample when it is gone,
// and its number, used again, is not taken for it.
func TestEndedProcess(t *testing.T) {
	t.Parallel()
	proc, _ := fakeHost(t)
	stat := func(user, start int) string {
		return fmt.Sprintf("7 (x) S 1 1 1 0 -1 0 0 0 0 0 %d 5 0 0 20 0 1 0 %d 0 0", user, start) + strings.Repeat(" 0", 28) + "\n"
	}
	write(t, proc, map[string]string{"7/stat": stat(10, 50), "7/task/7/status": "Name:\tx\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t1\n"})
	fs, err := procfs.NewFS(proc)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newProcess(fs, Process{"qemu a", 7})
	if err != nil {
		t.Fatal(err)
	}
	write(t, proc, map[string]string{"7/stat": stat(110, 50), "7/task/7/status": "Name:\tx\nvoluntary_ctxt_switches:\t25\nnonvoluntary_ctxt_switches:\t4\n",
		"7/task/8/status": "Name:\tx\nvoluntary_ctxt_switches:\t30\nnonvoluntary_ctxt_switches:\t0\n"})
	p.look(fs, 2e9)
	write(t, proc, map[string]string{"7/stat": stat(900, 77)})
	p.look(fs, 4e9)
	if err := os.RemoveAll(filepath.Join(proc, "7")); err != nil {
		t.Fatal(err)
	}
	p.look(fs, 6e9)
	if u := p.usage(2e9); u.UserNS != 1e9 || u.CPUs != 0.5 || u.Voluntary != 50 || u.Involuntary != 3 {
		t.Errorf("%+v", u)
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	facts := map[string]string{}
	for _, f := range Describe(t.Context(), "v1.2.3", dir, filepath.Join(dir, "nosuch")) {
		facts[f.Name] = f.Value
	}
	for _, name := range []string{"CPUs", "memory", "kernel", "vmdisk", "virtualization", "file system of " + dir} {
		if facts[name] == "" {
			t.Errorf("nothing of %s in %v", name, facts)
		}
	}
	if !strings.Contains(facts["file system of "+dir], " on ") {
		t.Errorf("%q", facts["file system of "+dir])
	}
}

func TestDescribeFakeHost(t *testing.T) {
	t.Parallel()
	proc, sys := fakeHost(t)
	if err := os.MkdirAll(filepath.Join(sys, "dev/block"), 0o777); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"7:0": "loop0", "7:1": "loop0/part"} {
		if err := os.Symlink(filepath.Join("../../devices/virtual/block", target), filepath.Join(sys, "dev/block", link)); err != nil {
			t.Fatal(err)
		}
	}
	d := describer{proc: proc, sys: sys}
	d.cpu()
	d.device(7 << 8)
	d.device(7<<8 | 1) // the partition is on the same disk: said once
	d.add("mitigations", d.mitigations())
	d.add("governor", d.governor())
	d.add("virtualization", d.virtualization())
	want := []Fact{
		{"CPU", "Lab CPU"}, {"CPUs", "2 (cores: 1)"}, {"NUMA nodes", "2"},
		{"device loop0", "scheduler mq-deadline, rotational, over /tmp/disk"},
		{"mitigations", "on for retbleed; vulnerable to vmscape"},
		{"governor", "performance, powersave"},
		{"virtualization", "this host is itself a virtual machine (Maker Model 1)"},
	}
	if fmt.Sprint(d.facts) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", d.facts, want)
	}
}
