package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/vmdisk/vmdisk/lab/outcome"
	"github.com/vmdisk/vmdisk/lab/spec"
	"github.com/vmdisk/vmdisk/report"
)

// binary builds the program, which nodes and guests run.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "vmdisk-lab-test-")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "vmdisk")
	cmd := exec.Command("go", "build", "-o", file, "../cmd/vmdisk")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build vmdisk: %w\n%s", err, out)
	}
	return file, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if file, err := binary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(file))
	}
	os.Exit(code)
}

// experiment writes a YAML file and returns it as an experiment with options to
// run it.
func experiment(t *testing.T, text string) (Experiment, Options) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "x.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := Find(file)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Out: filepath.Join(dir, "out"), Set: map[string]string{}}
	if o.Vmdisk, err = binary(); err != nil {
		t.Fatal(err)
	}
	return e, o
}

// pair is an experiment of two cells in two processes of this host.
const pair = `
name: pair
client: host
nodes: 2
repeats: 2
disk: {size: 16M}
workloads:
  - name: w
    job: |
      [w]
      rw=randwrite
      bs=4k
      size=4m
      ioengine=libaio
      time_based
      runtime=1
      rate_iops=200
      group_reporting
set: {backing: sparse, cache: writeback}
axes:
  iodepth: [1, 4]
`

// TestHostClients: an experiment from its file to its report.
func TestHostClients(t *testing.T) {
	t.Parallel()
	e, o := experiment(t, pair)
	doc, err := Run(t.Context(), e, o)
	if err != nil {
		t.Fatal(err)
	}
	r, err := outcome.Load(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Cells) != 2 || r.Partial {
		t.Fatalf("%d cells, partial %v", len(r.Cells), r.Partial)
	}
	for i := range r.Cells {
		checkCell(t, &r.Cells[i])
	}
	var text strings.Builder
	if err := report.Text(&text, doc); err != nil || !strings.Contains(text.String(), "host load average:") {
		t.Errorf("%v\n%s", err, text.String())
	}
	for _, name := range []string{"results.json", "results.csv", "report.html", "raw/a", "raw/b", "raw/host"} {
		if fi, err := os.Stat(filepath.Join(o.Out, name)); err != nil || fi.Size() < 20 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(filepath.Join(o.Out, "work")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder for disks is still there: %v", err)
	}
	// The same from the folder alone, and against itself.
	if _, err := Report(o.Out); err != nil {
		t.Error(err)
	}
	if _, list, err := Compare(o.Out, o.Out); err != nil || len(list) == 0 || outcome.Worse(list) {
		t.Errorf("compared with itself: %d differences, %v", len(list), err)
	}
}

func checkCell(t *testing.T, c *outcome.Cell) {
	t.Helper()
	if got := len(c.Counted()); got != 2 {
		t.Errorf("%s: %d runs count", c.ID, got)
	}
	for _, run := range c.Runs {
		if len(run.Nodes) != 2 || run.WindowNS <= 0 || run.Host.ElapsedNS <= 0 {
			t.Errorf("%s: %d nodes, a window of %d ns", c.ID, len(run.Nodes), run.WindowNS)
		}
		for _, n := range run.Nodes {
			if n.Result.Jobs[0].Dirs[1].IOs == 0 || n.Window[1].IOPS <= 0 {
				t.Errorf("%s: node %s did %d writes, %f a second in the window", c.ID, n.Name, n.Result.Jobs[0].Dirs[1].IOs, n.Window[1].IOPS)
			}
		}
	}
}

// TestResume: what was finished before a stop is kept, and only the rest runs.
func TestResume(t *testing.T) {
	t.Parallel()
	e, o := experiment(t, pair)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seen := 0
	o.Event = func(Event) {
		if seen++; seen == 3 {
			cancel() // two runs are done
		}
	}
	_, err := Run(ctx, e, o)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "stopped after 2 of 4 runs, which are kept") {
		t.Fatalf("a stopped experiment: %v", err)
	}
	if _, err := os.Stat(filepath.Join(o.Out, "work")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder for disks is still there: %v", err)
	}
	if r, err := outcome.Load(o.Out); err != nil || !r.Partial {
		t.Errorf("what is there is not marked as partial: %v", err)
	}
	var again []Event
	o.Event = func(e Event) { again = append(again, e) }
	if _, err := Run(t.Context(), e, o); err != nil {
		t.Fatal(err)
	}
	if len(again) != 2 || again[0].Steps != 2 {
		t.Errorf("resumed with %+v", again)
	}
	// Repeats may be added to what is finished.
	again = nil
	o.Set["repeats"] = "3"
	if _, err := Run(t.Context(), e, o); err != nil {
		t.Fatal(err)
	}
	r, err := outcome.Load(o.Out)
	if err != nil || len(again) != 2 || r.Partial || r.Repeats != 3 || len(r.Cells[0].Counted()) != 3 {
		t.Errorf("one repeat more of two cells ran %d, repeats %d, %v", len(again), r.Repeats, err)
	}
	// Other settings do not mix with it.
	o.Set["disk"] = "32M"
	if _, err := Run(t.Context(), e, o); err == nil || !strings.Contains(err.Error(), "other settings") {
		t.Errorf("another experiment in the same folder: %v", err)
	}
}

// TestKilledClient: a node that dies costs its run, and nothing else.
func TestKilledClient(t *testing.T) {
	t.Parallel()
	e, o := experiment(t, pair)
	o.Set["repeats"], o.Set["runtime"] = "1", "3"
	// A name of its own tells its clients from those of the tests beside it.
	own := filepath.Join(t.TempDir(), "vmdisk")
	if err := os.Symlink(o.Vmdisk, own); err != nil {
		t.Fatal(err)
	}
	o.Vmdisk = own
	killed := false
	o.Progress = func(Progress) {
		if !killed {
			killed = killOne(t, own)
		}
	}
	if _, err := Run(t.Context(), e, o); err != nil {
		t.Fatal(err)
	}
	r, err := outcome.Load(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	discarded := 0
	for _, c := range r.Cells {
		for _, run := range c.Runs {
			if run.Discarded != "" {
				discarded++
				if !strings.HasPrefix(run.Discarded, "node ") {
					t.Errorf("discarded because: %s", run.Discarded)
				}
			}
		}
	}
	if !killed || discarded != 1 {
		t.Errorf("killed %v, %d runs discarded", killed, discarded)
	}
	// The lost run is tried again.
	count := 0
	o.Progress, o.Event = nil, func(Event) { count++ }
	if _, err := Run(t.Context(), e, o); err != nil || count != 1 {
		t.Errorf("%d runs, %v", count, err)
	}
}

// killOne kills a client that runs the program at vmdisk.
func killOne(t *testing.T, vmdisk string) bool {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Error(err)
		return false
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		text, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		words := strings.Split(string(text), "\x00")
		if len(words) < 5 || words[0] != vmdisk || words[2] != "agent" {
			continue
		}
		return syscall.Kill(pid, syscall.SIGKILL) == nil
	}
	return false
}

// TestGuestCell: a guest on a file system, with the engine in it.
func TestGuestCell(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a guest")
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("guests are x86-64")
	}
	t.Parallel()
	e, o := experiment(t, `
name: guest
nodes: 2
guest: {accel: tcg}
disk: {size: 128M, file-system: ext4}
workloads:
  - name: w
    job: |
      [w]
      rw=randwrite
      bs=4k
      size=1m
      end_fsync=1
axes: {backing: [copy]}
`)
	if _, err := Run(t.Context(), e, o); err != nil {
		t.Fatal(err)
	}
	r, err := outcome.Load(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	run := r.Cells[0].Runs[0]
	if run.Discarded != "" || r.Environment.Accel != "tcg" || len(run.Nodes) != 2 {
		t.Fatalf("accelerator %s, discarded: %s\n%s", r.Environment.Accel, run.Discarded, run.Console)
	}
	for _, n := range run.Nodes {
		if w := n.Result.Jobs[0].Dirs[1]; w.IOs != 256 || n.Result.CPUBusy <= 0 {
			t.Errorf("node %s: %d writes, CPU %f", n.Name, w.IOs, n.Result.CPUBusy)
		}
	}
	var names []string
	for _, p := range run.Host.Processes {
		names = append(names, p.Name)
	}
	if got := strings.Join(names, ","); !strings.Contains(got, "qemu a") || !strings.Contains(got, "qemu b") {
		t.Errorf("watched: %s", got)
	}
}

// TestPlans: the built-in experiments are planned, and what cannot run says why.
func TestPlans(t *testing.T) {
	t.Parallel()
	for _, name := range spec.Builtin() {
		e, err := Find(name)
		if err != nil {
			t.Fatal(err)
		}
		o := Options{Out: filepath.Join(t.TempDir(), "out"), DryRun: true, Vmdisk: "/bin/true", Set: map[string]string{"client": "host"}}
		if name != "falcon-backing" {
			delete(o.Set, "client")
			o.Set["accel"] = "tcg" // asks no KVM
		} else {
			o.Set["server"] = "qemu-nbd"
		}
		doc, err := Run(t.Context(), e, o)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var text strings.Builder
		if err := report.Text(&text, doc); err != nil || !strings.Contains(text.String(), " in all; ") {
			t.Errorf("%s: %v\n%s", name, err, text.String())
		}
		if _, err := os.Stat(o.Out); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: a plan left %s behind", name, o.Out)
		}
	}
}

// TestNothingCanRun: one line says why, before anything begins.
func TestNothingCanRun(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ set, want string }{
		{"disk=1P", "free"},
		{"backing=device", "no cell"},
		{"nodes=0", "nodes"},
		{"backing=refling", "reflink"},
		{"iodept=3", "iodepth"},
	} {
		e, o := experiment(t, pair)
		name, value, _ := strings.Cut(c.set, "=")
		o.Set[name] = value
		if name == "disk" {
			o.Set["backing"], o.Set["size"] = "full", "1g"
		}
		_, err := Run(t.Context(), e, o)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", c.set, err, c.want)
		}
		if _, err := os.Stat(o.Out); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %s was made", c.set, o.Out)
		}
	}
}
