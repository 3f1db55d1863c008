package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/bench/result"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/mem"
	"github.com/vmdisk/vmdisk/driver/null"
)

func planOf(t testing.TB, text string) *jobfile.Plan {
	t.Helper()
	p := jobfile.Parser{}
	if err := p.Bytes("job", []byte(text)); err != nil {
		t.Fatal(err)
	}
	pl, err := p.Resolve(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	return pl
}

func memDisk(t testing.TB, size int64) func(context.Context, OpenRequest) (*disk.Disk, error) {
	t.Helper()
	d, err := mem.Open(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return func(context.Context, OpenRequest) (*disk.Disk, error) { return d, nil }
}

func runOn(t testing.TB, open func(context.Context, OpenRequest) (*disk.Disk, error), text string) *result.Run {
	t.Helper()
	r, err := Run(t.Context(), Config{Plan: planOf(t, text), OneDisk: true, Open: open, Close: func(*disk.Disk) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Counts that a job fixes come out exactly.
func TestCounts(t *testing.T) {
	t.Parallel()
	const mb = 1 << 20
	for _, tt := range []struct {
		job   string
		ios   [3]uint64
		bytes [3]uint64
		syncs uint64
	}{
		{"rw=read\nbs=64k\nsize=4m", [3]uint64{64}, [3]uint64{4 * mb}, 0},
		{"rw=randread\nbs=4k\nsize=4m\niodepth=16\nioengine=libaio", [3]uint64{1024}, [3]uint64{4 * mb}, 0},
		{"rw=randread\nbs=4k\nsize=4m\nrandom_generator=lfsr", [3]uint64{1024}, [3]uint64{4 * mb}, 0},
		{"rw=write\nbs=4k\nsize=1m\nfsync=8\nend_fsync=1", [3]uint64{0, 256}, [3]uint64{0, mb}, 31},
		{"rw=randwrite\nbs=4k\nsize=1m\nloops=3", [3]uint64{0, 768}, [3]uint64{0, 3 * mb}, 0},
		{"rw=randread\nbs=4k\nsize=8m\nio_size=2m", [3]uint64{512}, [3]uint64{2 * mb}, 0},
		{"rw=randread\nbs=4k\nsize=1m\nio_size=2m", [3]uint64{512}, [3]uint64{2 * mb}, 0},
		{"rw=read\nbs=4k\nsize=8m\nnumber_ios=100", [3]uint64{100}, [3]uint64{100 * 4096}, 0},
		{"rw=trim\nbs=64k\nsize=1m", [3]uint64{0, 0, 16}, [3]uint64{0, 0, mb}, 0},
		{"rw=trimwrite\nbs=64k\nsize=1m", [3]uint64{0, 16, 16}, [3]uint64{0, mb, mb}, 0},
		{"rw=randtrimwrite\nbs=16k\nsize=1m\niodepth=8\nioengine=libaio", [3]uint64{0, 64, 64}, [3]uint64{0, mb, mb}, 0},
		{"rw=read\nbs=64k\nsize=25%", [3]uint64{64}, [3]uint64{4 * mb}, 0},
		{"rw=read:64k\nbs=64k\nsize=4m", [3]uint64{32}, [3]uint64{2 * mb}, 0},
		{"rw=read:60k\nbs=4k\nsize=1m", [3]uint64{16}, [3]uint64{64 << 10}, 0},
		{"rw=write:4k\nbs=4k\nsize=1m", [3]uint64{0, 128}, [3]uint64{0, mb / 2}, 0},
		{"rw=write\nbs=4k\nsize=1m\nverify=crc32c", [3]uint64{256, 256}, [3]uint64{mb, mb}, 0},
		{"rw=randwrite\nbsrange=4k-16k\nsize=1m\nverify=md5\niodepth=8\nioengine=libaio", [3]uint64{0, 0}, [3]uint64{mb, mb}, 0},
		{"rw=randwrite\nbs=4k\nnorandommap\nsize=1m\nio_size=4m\nverify=crc32c\niodepth=8\nioengine=libaio", [3]uint64{1024, 1024}, [3]uint64{4 * mb, 4 * mb}, 0},
		{"rw=randwrite\nbs=4k\nsize=1m\nverify=crc32c\nverify_backlog=16\niodepth=4\nioengine=libaio", [3]uint64{256, 256}, [3]uint64{mb, mb}, 0},
	} {
		t.Run(strings.ReplaceAll(tt.job, "\n", " "), func(t *testing.T) {
			t.Parallel()
			r := runOn(t, memDisk(t, 16*mb), "[j]\n"+tt.job)
			j := r.Jobs[0]
			if j.Err != nil {
				t.Fatal(j.Err)
			}
			for d := range j.Dirs {
				if tt.ios[d] != 0 && j.Dirs[d].IOs != tt.ios[d] || j.Dirs[d].Bytes != tt.bytes[d] {
					t.Errorf("%s: %d I/Os, %d bytes; want %d, %d", jobfile.DirNames[d], j.Dirs[d].IOs, j.Dirs[d].Bytes, tt.ios[d], tt.bytes[d])
				}
				if n := j.Dirs[d].Clat.N(); n != j.Dirs[d].IOs {
					t.Errorf("%s: %d latencies for %d I/Os", jobfile.DirNames[d], n, j.Dirs[d].IOs)
				}
			}
			if j.Syncs != tt.syncs {
				t.Errorf("%d syncs, want %d", j.Syncs, tt.syncs)
			}
		})
	}
}

func TestVerifyFindsDamage(t *testing.T) {
	t.Parallel()
	open := memDisk(t, 1<<20)
	r := runOn(t, open, "[w]\nrw=write\nbs=4k\nsize=1m\nverify=crc32c\ndo_verify=0")
	if err := r.Failed(); err != nil {
		t.Fatal(err)
	}
	d, _ := open(t.Context(), OpenRequest{})
	if err := d.WriteAt(t.Context(), []byte{0xff}, 40960+200, 0); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"read", "randread"} {
		r = runOn(t, open, "[r]\nrw="+mode+"\nbs=4k\nsize=1m\nverify=crc32c\nverify_fatal=1")
		err := r.Failed()
		if err == nil || !strings.Contains(err.Error(), "crc32c checksum at offset 40960") || r.Jobs[0].Errno != int(syscall.EILSEQ) {
			t.Errorf("%s: %v", mode, err)
		}
	}
	r = runOn(t, open, "[v]\nrw=write\nbs=4k\nsize=1m\nverify=crc32c\nverify_only")
	if err := r.Failed(); err == nil || r.Jobs[0].Dirs[jobfile.Write].IOs != 0 {
		t.Errorf("verify_only: %v, %d writes", err, r.Jobs[0].Dirs[jobfile.Write].IOs)
	}
	r = runOn(t, open, "[c]\nrw=read\nbs=4k\nsize=1m\nverify=crc32c\ncontinue_on_error=verify")
	if err := r.Failed(); err != nil || r.Jobs[0].Errors != 1 || r.Jobs[0].Dirs[jobfile.Read].IOs != 255 {
		t.Errorf("continue_on_error: %v, %d errors", err, r.Jobs[0].Errors)
	}
}

// faulty fails reads at one offset and may delay or hang operations.
type faulty struct {
	disk.Driver
	bad   int64
	delay time.Duration
	hang  time.Duration
	at    int64
}

func (f *faulty) ReadAt(ctx context.Context, p []byte, off int64) error {
	if off == f.bad {
		return syscall.EIO
	}
	if f.delay > 0 {
		time.Sleep(f.delay)
	}
	if f.hang > 0 && off == f.at {
		time.Sleep(f.hang)
	}
	return nil
}

func (f *faulty) Info() disk.Info { return disk.Info{Size: 1 << 30} }

func (f *faulty) Close() error { return nil }

func faultyDisk(f *faulty) func(context.Context, OpenRequest) (*disk.Disk, error) {
	return func(context.Context, OpenRequest) (*disk.Disk, error) { return disk.New(f, "faulty"), nil }
}

// A job that fails keeps what it measured; the others end as they would.
func TestErrorInMidRun(t *testing.T) {
	t.Parallel()
	r := runOn(t, faultyDisk(&faulty{bad: 1 << 20}), "[global]\nbs=4k\nrw=read\niodepth=4\nioengine=libaio\n[a]\nsize=2m\n[b]\noffset=8m\nsize=2m\n")
	a, b := r.Jobs[0], r.Jobs[1]
	if !errors.Is(a.Err, syscall.EIO) || a.Errno != int(syscall.EIO) || !strings.Contains(a.Err.Error(), "job a") || a.Dirs[0].IOs < 200 || !a.Partial() {
		t.Errorf("a: %v, errno %d, %d I/Os", a.Err, a.Errno, a.Dirs[0].IOs)
	}
	if b.Err != nil || b.Dirs[0].IOs != 512 {
		t.Errorf("b: %v, %d I/Os", b.Err, b.Dirs[0].IOs)
	}
	r = runOn(t, faultyDisk(&faulty{bad: 1 << 20}), "[a]\nbs=4k\nrw=read\nsize=2m\nignore_error=EIO")
	if j := r.Jobs[0]; j.Err != nil || j.Errors != 1 || j.Dirs[0].IOs != 511 {
		t.Errorf("ignore_error: %v, %d errors, %d I/Os", j.Err, j.Errors, j.Dirs[0].IOs)
	}
}

func TestStallIsSeen(t *testing.T) {
	t.Parallel()
	r := runOn(t, faultyDisk(&faulty{bad: -1, hang: 1200 * time.Millisecond, at: 4096}), "[a]\nbs=4k\nrw=read\nsize=64k")
	j := r.Jobs[0]
	if len(j.Stalls) != 1 || j.Stalls[0].Took < 1100*time.Millisecond || j.Stalls[0].Took > 3*time.Second {
		t.Errorf("stalls: %v", j.Stalls)
	}
}

// An interrupted run keeps and marks its results.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	r, err := Run(ctx, Config{Plan: planOf(t, "[a]\nrw=read\nbs=4k\nsize=1g\nruntime=30\ntime_based\n[b]\nstonewall\nrw=read\nsize=1g"), OneDisk: true, Open: faultyDisk(&faulty{bad: -1, delay: time.Millisecond})})
	if err != nil {
		t.Fatal(err)
	}
	if j := r.Jobs[0]; !j.Interrupted || j.Err != nil || j.Dirs[0].IOs == 0 {
		t.Errorf("a: interrupted %v, %v, %d I/Os", j.Interrupted, j.Err, j.Dirs[0].IOs)
	}
	if j := r.Jobs[1]; !j.Interrupted || j.Dirs[0].IOs != 0 {
		t.Errorf("b: interrupted %v, %d I/Os", j.Interrupted, j.Dirs[0].IOs)
	}
}

// A rated job is never faster than its rate; how much slower is the machine's affair.
func TestRates(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		opts string
		dir  int
		iops float64
	}{
		{"rw=randread\nrate_iops=400", 0, 400},
		{"rw=randread\nrate=2m\niodepth=8\nioengine=libaio", 0, 512},
		{"rw=randrw\nrate_iops=300,100", 0, 300},
		{"rw=randrw\nrate_iops=300,100", 1, 100},
		{"rw=randread\nrate_iops=400\nrate_process=poisson", 0, 600},
	} {
		t.Run(tt.opts, func(t *testing.T) {
			t.Parallel()
			r := runOn(t, memDisk(t, 64<<20), "[j]\nbs=4k\nnorandommap\nnumber_ios=300\n"+tt.opts)
			d := &r.Jobs[0].Dirs[tt.dir]
			if got := d.IOPSMean(); got > tt.iops*1.03 || got < tt.iops/5 {
				t.Errorf("%.1f IOPS, want %.0f", got, tt.iops)
			}
			if d.Intended == nil || d.Intended.N() != d.IOs {
				t.Errorf("no latency from the intended time")
			}
		})
	}
}

// A rated job that is ahead lets everything in flight complete first, as in fio, and
// then catches up in a burst; under io_submit_mode=offload it issues when it is time.
func TestSubmitMode(t *testing.T) {
	t.Parallel()
	for mode, alone := range map[string]uint64{"inline": 2, "offload": 1} {
		r := runOn(t, faultyDisk(&faulty{bad: -1, delay: 100 * time.Millisecond}), "[j]\nbs=4k\nrw=read\nioengine=libaio\niodepth=4\nrate_iops=100\nnumber_ios=8\nio_submit_mode="+mode)
		if got := r.Jobs[0].Depth[0]; got != alone {
			t.Errorf("%s: %d of 8 I/Os began with nothing in flight, want %d", mode, got, alone)
		}
	}
}

// A rated job on a disk that hangs for a while: the plain latency sees one slow
// I/O, the latency from the intended time all that came late.
func TestIntendedLatency(t *testing.T) {
	t.Parallel()
	r := runOn(t, faultyDisk(&faulty{bad: -1, hang: 500 * time.Millisecond, at: 40960}), "[j]\nbs=4k\nrw=read\nrate_iops=200\nnumber_ios=200")
	d := &r.Jobs[0].Dirs[0]
	if plain, meant := d.Clat.Percentile(90), d.Intended.Percentile(80); plain > 50e6 || meant < 50e6 {
		t.Errorf("90 %% of plain latencies below %v, 80 %% of intended below %v", time.Duration(plain), time.Duration(meant))
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	start := time.Now()
	r := runOn(t, memDisk(t, 1<<20), "[global]\nrw=randread\nbs=4k\n[a]\nruntime=400ms\ntime_based\nramp_time=200ms\n[b]\nsize=1m\nstartdelay=300ms\n[c]\nwait_for=a\nsize=1m\n[d]\nstonewall\nthinktime=20ms\nsize=40k")
	if took := time.Since(start); took < 750*time.Millisecond {
		t.Errorf("the run took %v", took)
	}
	a, b, c, d := r.Jobs[0], r.Jobs[1], r.Jobs[2], r.Jobs[3]
	if rt := a.Dirs[0].Runtime; rt < 380*time.Millisecond || rt > 5*time.Second {
		t.Errorf("a measured %v, want 400 ms without the ramp", rt)
	}
	if b.Begin < 290*time.Millisecond || c.Begin < 550*time.Millisecond || d.Begin < c.Begin {
		t.Errorf("begins: b %v, c %v, d %v", b.Begin, c.Begin, d.Begin)
	}
	if rt := d.Elapsed; rt < 180*time.Millisecond {
		t.Errorf("10 I/Os with thinktime=20ms took %v", rt)
	}
}

func TestFlowKeepsProportion(t *testing.T) {
	t.Parallel()
	r := runOn(t, faultyDisk(&faulty{bad: -1, delay: 100 * time.Microsecond}), "[global]\nrw=randread\nbs=4k\nnorandommap\nruntime=700ms\ntime_based\n[a]\nflow=3\n[b]\nflow=1\n")
	ratio := float64(r.Jobs[0].Dirs[0].IOs) / float64(r.Jobs[1].Dirs[0].IOs)
	if ratio < 2.7 || ratio > 3.3 {
		t.Errorf("flow 3:1 came out as %.2f", ratio)
	}
}

func TestLatencyTarget(t *testing.T) {
	t.Parallel()
	r := runOn(t, memDisk(t, 1<<20), "[a]\nrw=randread\nbs=4k\nnorandommap\niodepth=16\nioengine=libaio\nruntime=10\ntime_based\nlatency_target=1s\nlatency_window=50ms")
	if got := r.Jobs[0].LatencyDepth; got != 16 {
		t.Errorf("depth %d meets a target of 1 s, want 16", got)
	}
}

func TestMinimumRate(t *testing.T) {
	t.Parallel()
	r := runOn(t, faultyDisk(&faulty{bad: -1, delay: 5 * time.Millisecond}), "[a]\nrw=read\nbs=4k\nsize=1g\nrate_iops=100k\nrate_iops_min=50k\nrate_cycle=300\nruntime=20\ntime_based")
	if err := r.Jobs[0].Err; err == nil || !strings.Contains(err.Error(), "below rate_iops_min=51200") {
		t.Errorf("a job of 200 IOPS under rate_iops_min=50k: %v", err)
	}
}

func TestSteadyStateEndsJob(t *testing.T) {
	t.Parallel()
	r := runOn(t, faultyDisk(&faulty{bad: -1, delay: time.Millisecond}), "[a]\nrw=randread\nbs=4k\nnorandommap\nruntime=60\ntime_based\nss=iops:95%\nss_dur=3s")
	j := r.Jobs[0]
	if j.Steady == nil || !j.Steady.Attained || len(j.Steady.IOPS) != 3 || j.Elapsed > 40*time.Second {
		t.Errorf("steady state: %+v after %v", j.Steady, j.Elapsed)
	}
}

func TestExitAll(t *testing.T) {
	t.Parallel()
	r := runOn(t, memDisk(t, 1<<20), "[global]\nrw=randread\nbs=4k\nruntime=60\ntime_based\n[long]\n[short]\nruntime=100ms\nexitall\n")
	if long := r.Jobs[0]; long.Elapsed > 30*time.Second || long.Err != nil {
		t.Errorf("exitall left a job running for %v (%v)", long.Elapsed, long.Err)
	}
}

func TestGroupsAndFiles(t *testing.T) {
	t.Parallel()
	opened := map[string]int{}
	cfg := Config{Plan: planOf(t, "[a]\nfilename=x:y\nrw=read\nbs=4k\nsize=128k\nnumjobs=2\ngroup_reporting\n"), Open: func(_ context.Context, q OpenRequest) (*disk.Disk, error) {
		opened[q.Name]++
		return mem.Open(1 << 20)
	}}
	r, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(opened) != "map[x:1 y:1]" {
		t.Errorf("opened %v", opened)
	}
	g := r.Groups()
	if len(g) != 1 || g[0].Merged != 2 || g[0].Dirs[0].Bytes != 256<<10 {
		t.Errorf("%d groups, %d bytes", len(g), g[0].Dirs[0].Bytes)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for job, want := range map[string]string{
		"rw=read\nsize=2m":         "more than the disk's",
		"rw=read\noffset=1m":       "not inside the disk",
		"rw=read\nbs=2m":           "less than one block",
		"rw=read\nmax_latency=1us": "",
		"rw=randread\niodepth=60000\nbs=512k\nioengine=libaio": "memory",
	} {
		r, err := Run(t.Context(), Config{Plan: planOf(t, "[j]\n"+job), OneDisk: true, Open: memDisk(t, 1<<20)})
		if want == "" {
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q (%v)", job, err, want, r)
		}
	}
}

// What a run allocates does not grow with its I/Os.
func TestNoAllocationPerIO(t *testing.T) {
	allocated := func(ios int) uint64 {
		var a, b runtime.MemStats
		runtime.ReadMemStats(&a)
		runOn(t, func(context.Context, OpenRequest) (*disk.Disk, error) { return null.Open(1 << 40) },
			fmt.Sprintf("[n]\nrw=randrw\nbs=4k\nnorandommap\nioengine=libaio\niodepth=16\nfsync=1000\nrate_iops=100m\nnumber_ios=%d", ios))
		runtime.ReadMemStats(&b)
		return b.Mallocs - a.Mallocs
	}
	allocated(1000)
	few, many := allocated(10000), allocated(210000)
	// Samples and host readings come with time, not with I/Os.
	if many > few+2000 {
		t.Errorf("200000 more I/Os made %d more allocations", many-few)
	}
}

func BenchmarkNull(b *testing.B) {
	for _, depth := range []int{1, 32} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			b.ReportAllocs()
			r, err := Run(b.Context(), Config{OneDisk: true, Plan: planOf(b, fmt.Sprintf("[n]\nrw=randread\nbs=4k\nnorandommap\nioengine=libaio\niodepth=%d\nnumber_ios=%d\nio_size=%d", depth, b.N, int64(b.N)*4096)),
				Open: func(context.Context, OpenRequest) (*disk.Disk, error) { return null.Open(100 << 30) }})
			if err != nil || r.Jobs[0].Dirs[0].IOs != uint64(b.N) {
				b.Fatal(err, r.Jobs[0].Dirs[0].IOs)
			}
		})
	}
}

// TestShorterThanRamp: a job that ends before its ramp does reports what it did.
func TestShorterThanRamp(t *testing.T) {
	t.Parallel()
	r := runOn(t, memDisk(t, 1<<20), "[a]\nrw=randread\nbs=4k\nsize=64k\nramp_time=60s\nthinktime=2ms")
	d := r.Jobs[0].Dirs[0]
	if d.IOs != 16 || d.Runtime < 20*time.Millisecond || d.Clat.N() != 16 {
		t.Errorf("%d reads in %v, %d latencies", d.IOs, d.Runtime, d.Clat.N())
	}
}
