package agent

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/diskurl"
)

func planOf(t *testing.T, text string, options ...string) *jobfile.Plan {
	t.Helper()
	plan, err := (&execution{disk: &testDisk{}, run: Run{JobFile: text, Options: options}}).plan()
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func nothing(int) []string { return nil }

// TestRewrite: fio gets what the built-in engine reads, and what wins comes last.
func TestRewrite(t *testing.T) {
	t.Parallel()
	const text = `; what a user wrote
[global]
filename=/dev/xvda
blocksize = 4k  # fio reads 4 bytes
write_lat_log=mine
[a b]
rw=randw
bs=8k
group_reporting
[c]
stonewall
readwrite=read:8k
directory=/home
`
	options := []string{"bs=64k", "iodepth=3", "directory=/etc"}
	got, err := rewrite(text, planOf(t, text, options...), options, []string{"filename=/dev/vda"}, func(phase int) []string {
		return []string{[]string{"size=1m", "size=2m"}[phase]}
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `[global]
[a b]
group_reporting
rw=randwrite
bs=64k
iodepth=3
filename=/dev/vda
size=1m
[c]
stonewall
rw=read:8192
bs=64k
iodepth=3
filename=/dev/vda
size=2m
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if _, err := rewrite(text, planOf(t, text), []string{"load=heavy"}, nil, nothing); err == nil || !strings.Contains(err.Error(), "no option load") {
		t.Errorf("load: %v", err)
	}
	if _, err := rewrite("bs=4k\n[a]\n", nil, nil, nil, nothing); err == nil {
		t.Error("an option before all sections was read")
	}
}

// TestRewrittenIsRead: fio itself reads what it is given as the built-in engine does.
func TestRewrittenIsRead(t *testing.T) {
	t.Parallel()
	const text = "[global]\nrw=read\nbs = 8k\n[j]\nrw=randw\nrwmixread=70\nnumjobs=2\n[k]\nrw=randread:4\nrate_iops=10,20\n"
	job, err := rewrite(text, planOf(t, text), []string{"runtime=7", "blocksize=16k"}, []string{"filename=/dev/null"}, nothing)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "job.fio")
	if err := os.WriteFile(file, []byte(job), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := exec.Command("fio", "--showcmd", file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s\n%s", err, got, job)
	}
	for _, want := range []string{"--name=j", "--rw=randwrite", "--name=k", "--rw=randread:4", "--runtime=7", "--bs=16k", "--rate_iops=10,20"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
}

// TestDiskForFio: fio is told of a cache mode, and refused what it cannot do.
func TestDiskForFio(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		disk testDisk
		want string
	}{
		{testDisk{mount: "/mnt/test", path: "/dev/vda"}, "directory=/mnt/test"},
		{testDisk{path: "/a:b", opener: Opener{Options: diskurl.Options{FileOptions: diskurl.FileOptions{Cache: "directsync"}}}}, `filename=/a\:b direct=1 sync=1`},
		{testDisk{path: "/a", opener: Opener{Options: diskurl.Options{FileOptions: diskurl.FileOptions{Cache: "none"}}}}, "filename=/a direct=1"},
		{testDisk{path: "/a", opener: Opener{Options: diskurl.Options{FileOptions: diskurl.FileOptions{Cache: "writethrough"}}}}, "filename=/a sync=1"},
		{testDisk{path: "/a", opener: Opener{Options: diskurl.Options{Filters: []string{"delay:read=1ms"}}}}, "fio knows no filters such as delay:read=1ms: use engine=vmdisk"},
		{testDisk{opener: Opener{URL: "mem:1M"}}, "fio is given a file or device of its own host, and mem:1M is none: use engine=vmdisk"},
	} {
		list, err := c.disk.forFio()
		got := strings.Join(list, " ")
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// TestFioGate: all jobs of the first phase wait for the start, and fio's report is
// taken apart by groups.
func TestFioGate(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	c := pair(t)
	prepared(t, c, Prepare{URL: "raw:" + file})
	r := started(t, c, Run{
		JobFile: "[global]\nsize=1m\nbs=4k\nthread\ngroup_reporting\n" +
			"[w]\nrw=write\nnumjobs=2\nrate_iops=200\n[r]\nrw=read\nrate_iops=200\n[later]\nstonewall\nrw=randread\nwrite_bw_log=mine\n",
		Engine: "fio", Gate: true, IntervalMS: 200,
	})
	if err := r.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || strings.Trim(string(got), "\x00") != "" {
		t.Fatalf("written before the start; %v", err)
	}
	start := Monotonic() + int64(50*time.Millisecond)
	if err := r.Go(start); err != nil {
		t.Fatal(err)
	}
	res, err := r.Wait(t.Context())
	if err != nil || res.Err != "" || len(res.Jobs) != 2 {
		t.Fatalf("%v, %+v", err, res)
	}
	if res.StartNS < start || res.EndNS < res.StartNS+int64(time.Second) {
		t.Errorf("asked to start at %d: %d to %d", start, res.StartNS, res.EndNS)
	}
	w, later := res.Jobs[0], res.Jobs[1]
	if w.Name != "w" || w.Jobs != 3 || w.Dirs[1].IOs != 512 || w.Dirs[0].IOs != 256 || later.Jobs != 1 || later.Dirs[0].IOs != 256 || later.Group != 1 {
		t.Errorf("jobs %+v", res.Jobs)
	}
	for _, j := range res.Jobs {
		var ios [jobfile.Dirs]int64
		for _, p := range j.Points {
			for d := range ios {
				ios[d] += int64(p.IOs[d])
			}
			if p.AtNS <= 0 || p.TookNS <= 0 {
				t.Errorf("%s: point %+v", j.Name, p)
			}
		}
		for d := range ios { // each point is rounded
			if want := int64(j.Dirs[d].IOs); max(ios[d]-want, want-ios[d]) > int64(len(j.Points)) {
				t.Errorf("%s: %d I/Os in points, %d in all", j.Name, ios[d], want)
			}
		}
	}
	if len(w.Points) < 3 || len(res.JSON) == 0 || !strings.Contains(res.Text, "Run status group 1") || strings.Contains(res.Text, `"jobs"`) {
		t.Errorf("%d points, %d bytes of JSON, text %s", len(w.Points), len(res.JSON), res.Text)
	}
}

// TestFioStops: at the gate and under way, fio ends in order.
func TestFioStops(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	c := pair(t)
	prepared(t, c, Prepare{URL: "raw:" + file})
	for _, open := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		r := started(t, c, Run{JobFile: forever, Engine: "fio", Gate: true})
		if err := r.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		if open {
			if err := r.Go(0); err != nil {
				t.Fatal(err)
			}
			eventually(t, "under way", func() bool { return r.Progress().Share > 0 })
		}
		cancel()
		if _, err := r.Wait(ctx); err == nil || !strings.Contains(err.Error(), "canceled") {
			t.Errorf("wait: %v", err)
		}
	}
	refused := started(t, c, Run{JobFile: writes + "ioengine=external:/none.so\n", Engine: "fio", Gate: true})
	if err := refused.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "external") {
		t.Errorf("an engine that is none: %v", err)
	}
}

// TestFioFails: what fio has to say comes back in one line.
func TestFioFails(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	c := pair(t)
	prepared(t, c, Prepare{URL: "raw:" + file})
	// An option that is only fio's own is not known here; one that only fails there is
	// an offset behind the end of a file that may not grow.
	r := started(t, c, Run{JobFile: "[r]\nrw=read\noffset=1g\nallow_file_create=0\n", Engine: "fio", Gate: true})
	err := r.Ready(t.Context())
	if err == nil {
		if err = r.Go(0); err == nil {
			var res *Result
			if res, err = r.Wait(t.Context()); err == nil {
				t.Fatalf("%+v", res)
			}
		}
	}
	if !strings.Contains(err.Error(), "fio") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
}

// TestGaps: a time without lines in fio's logs is a stall; a line after a late one is
// of the time in between.
func TestGaps(t *testing.T) {
	t.Parallel()
	f := &fioRun{x: &execution{run: Run{IntervalMS: 500}}}
	const origin = 1_800_000_000_000
	var lines [2][]logLine
	for _, ms := range []int64{500, 1000, 1700, 2200, 5200, 5700} {
		lines[0] = append(lines[0], logLine{origin + ms, 4000, 0})
		lines[1] = append(lines[1], logLine{origin + ms, 1000, 0})
	}
	points := f.points(reported{{Number: 3}}, fioLogs{3: lines}, origin*1e6)
	if len(points) != 6 || points[2].IOs[0] != 700 || points[4].IOs[0] != 500 || points[2].Bytes[0] != 2800<<10 {
		t.Fatalf("%+v", points)
	}
	stalls := gaps(points)
	if len(stalls) != 1 || stalls[0].TookNS != 2500e6 || stalls[0].AtNS != 2200e6 {
		t.Errorf("%+v", stalls)
	}
	j := JobResult{Points: points}
	j.Dirs[0].IOs, j.Dirs[0].Bytes = 6400, 6400*4096
	j.Dirs[1].IOs, j.Dirs[1].RuntimeNS = 7, 6e9
	j.settle()
	if j.Points[0].IOs[0] != 1000 || len(j.Points) != 7 || j.Points[6].IOs[1] != 7 {
		t.Errorf("%+v", j.Points)
	}
}

// TestReports: fio merges neighbours of a group that asks for it, and leaves out
// jobs without statistics.
func TestReports(t *testing.T) {
	t.Parallel()
	plan := planOf(t, "[global]\nrw=read\nsize=1m\n[a]\nnumjobs=2\n[b]\nnew_group\ngroup_reporting\nnumjobs=2\n[c]\ngroup_reporting\n[d]\nstats=0\nnew_group\n[e]\nnew_group\ngroup_reporting\n")
	var got []int
	for _, r := range reports(plan) {
		got = append(got, len(r))
	}
	if len(got) != 4 || got[0] != 1 || got[1] != 1 || got[2] != 3 || got[3] != 1 {
		t.Errorf("%v", got)
	}
}
