package jobfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// plan resolves text with an empty environment.
func plan(t *testing.T, text string, set ...string) (*Plan, error) {
	t.Helper()
	p := Parser{Getenv: func(n string) (string, bool) { return "8k", n == "BS" }}
	if err := p.Bytes("job.fio", []byte(text)); err != nil {
		return nil, err
	}
	var over []Setting
	for _, s := range set {
		n, v, _ := strings.Cut(s, "=")
		over = append(over, Setting{Name: n, Value: v, HasValue: true, Pos: Pos{File: "--set"}})
	}
	return p.Resolve(over, false)
}

func one(t *testing.T, lines string) *Job {
	t.Helper()
	p, err := plan(t, "[j]\n"+lines+"\n")
	if err != nil {
		t.Fatalf("%s: %v", lines, err)
	}
	return p.Jobs[0]
}

func TestValues(t *testing.T) {
	t.Parallel()
	tests := []struct {
		lines string
		got   func(*Job) any
		want  any
	}{
		{"bs=4k", func(j *Job) any { return j.BS }, [Dirs]int64{4096, 4096, 4096}},
		{"bs=8k,32k", func(j *Job) any { return j.BS }, [Dirs]int64{8192, 32768, 32768}},
		{"bs=4k-16k", func(j *Job) any { return j.BS }, [Dirs]int64{4096, 16384, 16384}},
		{"bs=,8k,", func(j *Job) any { return j.BS }, [Dirs]int64{4096, 8192, 8192}},
		{"bs=4k,8k,16k", func(j *Job) any { return j.BS }, [Dirs]int64{4096, 8192, 16384}},
		{"bs=${BS}", func(j *Job) any { return j.BS[Read] }, int64(8192)},
		{"bs = 4k", func(j *Job) any { return j.BS[Read] }, int64(4096)},
		{"bs=4kB ; comment", func(j *Job) any { return j.BS[Read] }, int64(4096)},
		{"bs=1MiB", func(j *Job) any { return j.BS[Read] }, int64(1000000)},
		{"bs=1MiB\nkb_base=1000", func(j *Job) any { return j.BS[Read] }, int64(1 << 20)},
		{"bs=1m\nkb_base=1000", func(j *Job) any { return j.BS[Read] }, int64(1000000)},
		{"bs=0x1000", func(j *Job) any { return j.BS[Read] }, int64(4096)},
		{"bs=(4*1k)", func(j *Job) any { return j.BS[Read] }, int64(4096)},
		{"size=50%", func(j *Job) any { return j.Size }, Amount{Percent: 50}},
		{"size=2g", func(j *Job) any { return j.Size.Bytes }, int64(2 << 30)},
		{"size=2*$pagesize", func(j *Job) any { return j.Size.Bytes }, int64(2 * os.Getpagesize())},
		{"bsrange=16k-4k,1k-2k", func(j *Job) any { return [2]int64{j.MinBS[Read], j.MaxBS[Write]} }, [2]int64{4096, 2048}},
		{"bssplit=512/10:1k/5:2k/5:4k/60:8k/2:16k/4:32k/4:64k/10", func(j *Job) any { return len(j.Splits[Write]) }, 8},
		{"bssplit=4k:64k/50:1k", func(j *Job) any { return fmt.Sprint(j.Splits[Read]) }, "[{4096 25} {65536 50} {1024 25}]"},
		{"runtime=1m", func(j *Job) any { return j.Runtime }, time.Minute},
		{"runtime=5", func(j *Job) any { return j.Runtime }, 5 * time.Second},
		{"thinktime=5", func(j *Job) any { return j.ThinkTime }, 5 * time.Microsecond},
		{"thinktime=5ms", func(j *Job) any { return j.ThinkTime }, 5 * time.Millisecond},
		{"startdelay=1-3", func(j *Job) any { return j.StartDelay }, [2]time.Duration{time.Second, 3 * time.Second}},
		{"rw=randread:8", func(j *Job) any { return j.Mode }, Mode{Read: true, Random: true, Sequence: 8}},
		{"rw=read:-8k", func(j *Job) any { return j.Mode.Skip }, int64(-8192)},
		{"rw=randw", func(j *Job) any { return j.Mode.String() }, "randwrite"},
		{"rwmixwrite=30", func(j *Job) any { return j.MixRead }, 70},
		{"rate=1m,500k", func(j *Job) any { return j.Rate }, [Dirs]int64{1 << 20, 500 << 10, 500 << 10}},
		{"rate_iops=,300", func(j *Job) any { return j.RateIOPS }, [Dirs]int64{0, 300, 300}},
		{"iodepth=8", func(j *Job) any { return j.Depth }, 1},
		{"iodepth=8\nioengine=libaio", func(j *Job) any { return j.Depth }, 8},
		{"buffered=0", func(j *Job) any { return j.Direct }, true},
		{"sync=dsync", func(j *Job) any { return j.Sync }, "dsync"},
		{"norandommap", func(j *Job) any { return j.NoRandomMap }, true},
		{"norandommap=0", func(j *Job) any { return j.NoRandomMap }, false},
		{"random_distribution=zipf:0.9", func(j *Job) any { return j.Distribution.Param }, 0.9},
		{"random_distribution=zoned:50/5:30/15:20/", func(j *Job) any { return j.Distribution.Zones[Read][2] }, Zone{Access: 20, Percent: 80}},
		{"random_distribution=zipf", func(j *Job) any { return j.NoRandomMap }, true},
		{"percentile_list=50:99.99", func(j *Job) any { return fmt.Sprint(j.Percentiles, j.Precision) }, "[50 99.99] 2"},
		{"buffer_pattern=0xdeadbeef", func(j *Job) any { return string(j.BufferPattern) }, "\xde\xad\xbe\xef"},
		{"buffer_pattern=\"ab\"0x1", func(j *Job) any { return string(j.BufferPattern) }, "ab\x01"},
		{"verify_pattern=258\nverify=pattern", func(j *Job) any { return string(j.VerifyPattern) }, "\x02\x01"},
		{"cpus_allowed=0,2-3", func(j *Job) any { return fmt.Sprint(j.CPUs) }, "[0 2 3]"},
		{"cpumask=5", func(j *Job) any { return fmt.Sprint(j.CPUs) }, "[0 2]"},
		{"ss=iops:10%\nss_dur=30s", func(j *Job) any { return *j.SteadyState }, SteadyState{Metric: "iops", Limit: 10, Percent: true, Duration: 30 * time.Second}},
		{"write_bw_log", func(j *Job) any { return *j.BWLog }, ""},
		{"write_bw_log=x", func(j *Job) any { return *j.BWLog }, "x"},
		{"filename=a:b\\:c", func(j *Job) any { return strings.Join(j.Filenames, "|") }, "a|b:c"},
		{"directory=/d\nnrfiles=2", func(j *Job) any { return strings.Join(j.Filenames, "|") }, "/d/j.0.0|/d/j.0.1"},
		{"bs=4k\nbs=8k", func(j *Job) any { return j.BS[Read] }, int64(8192)},
		{"include_=1", nil, `unknown option "include_"`},
	}
	for _, tt := range tests {
		if tt.got == nil {
			if _, err := plan(t, "[j]\n"+tt.lines); err == nil || !strings.Contains(err.Error(), tt.want.(string)) {
				t.Errorf("%s: error %v, want %v", tt.lines, err, tt.want)
			}
			continue
		}
		if got := tt.got(one(t, tt.lines)); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.lines, got, tt.want)
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{"bs=4k\n[j]", "job.fio:1: option \"bs=4k\" stands before the first [section]"},
		{"[j]\n\nbss=4k", "job.fio:3: unknown option \"bss\" (did you mean bs?)"},
		{"[j]\nioengin=libaio", "did you mean ioengine?"},
		{"[j]\ndirect", "job.fio:2: option direct needs a value"},
		{"[j]\nend_fsync", "needs a value"},
		{"[j]\nbs=fast", "not a number"},
		{"[j]\nbs=4kx", "unknown unit"},
		{"[j]\nbs=${NOPE}", "job.fio:2: environment variable NOPE is not set"},
		{"[j]\ninclude nope.fio", "job.fio:2: cannot read included file"},
		{"[j]\nioengine=rdma", "refused: it does no disk I/O"},
		{"[j]\nzonemode=zbd", "zoned block devices"},
		{"[j]\nzonecapacity=1m", "zoned block devices"},
		{"[j]\nzonemode=none\nzonesize=1m", "contradicts zonemode=none"},
		{"[j]\nzonemode=strided", "needs zonesize="},
		{"[j]\nzonerange=1m", "need zonesize="},
		{"[j]\nzonesize=1m\nzonerange=2k", "less than a block"},
		{"[j]\nfile_service_type=zipf", "refused"},
		{"[j]\nrw=rand", "is not one of"},
		{"[j]\nrwmixread=101", "not between 0 and 100"},
		{"[j]\nbssplit=4k/60:8k/60", "sum up to 120"},
		{"[j]\nrate=1m\nrate_iops=5", "exclude each other"},
		{"[j]\nsize=1k", "less than the block size"},
		{"[j]\nverify=sha513", "unknown kind \"sha513\""},
		{"[j]\nverify=pattern", "needs verify_pattern"},
		{"[j]\niodepth=0", "not between 1"},
		{"[j]\nsize=(4*(1k)", "missing )"},
		{"[j]\nsize=(1/0)", "division by zero"},
		{"[global]\nbs=4k", "no jobs"},
		{"[j]\nruntime=5x", "unit of time"},
		{"[j", "not of the form [name]"},
		{"[a]\nwait_for=b", "names no earlier job"},
		{"[j]\nsize=99999999999g", "too large"},
	} {
		if _, err := plan(t, tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: error %v, want %q", tt.text, err, tt.want)
		}
	}
}

func TestSectionsAndGroups(t *testing.T) {
	t.Parallel()
	p, err := plan(t, `
[global]
bs=8k ; for all
[a]
numjobs=2
[global]
bs=16k
[b]
[b]
stonewall
[c]
new_group
`)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, j := range p.Jobs {
		got = append(got, fmt.Sprintf("%s.%d bs=%d phase=%d group=%d n=%d", j.Name, j.Clone, j.BS[0], j.Phase, j.Group, j.Number))
	}
	want := []string{"a.0 bs=8192 phase=0 group=0 n=1", "a.1 bs=8192 phase=0 group=0 n=2", "b.0 bs=16384 phase=0 group=0 n=3",
		"b.0 bs=16384 phase=1 group=1 n=4", "c.0 bs=16384 phase=1 group=2 n=5"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	var p Parser
	args := strings.Fields("--bs=8k --name=random-write --ioengine=posixaio --rw randwrite --numjobs=4 --size=4g --runtime=60 --time_based --iodepth=8 --end_fsync=1 --name=second --rw=read")
	if err := p.Args(args); err != nil {
		t.Fatal(err)
	}
	pl, err := p.Resolve(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	j := pl.Jobs[3]
	if len(pl.Jobs) != 5 || j.Name != "random-write" || j.Filenames[0] != "random-write.3.0" || !j.EndFsync || j.Depth != 8 || !j.TimeBased || j.BS[Write] != 8192 {
		t.Errorf("%d jobs, the fourth is %+v", len(pl.Jobs), j)
	}
	if got := pl.Jobs[4]; got.BS[Read] != 8192 || got.Mode.String() != "read" || got.EndFsync {
		t.Errorf("second job: %+v", got)
	}
}

func TestIncludes(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"d/job.fio":  "[j]\ninclude inc.fio\niodepth=3\n",
		"d/inc.fio":  "bs=64k # included\nioengine=libaio",
		"loop.fio":   "[j]\ninclude loop.fio",
		"nested.fio": "[j]\ninclude sect.fio",
		"sect.fio":   "[k]",
	}
	read := func(name string) ([]byte, error) {
		if s, ok := files[name]; ok {
			return []byte(s), nil
		}
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	p := Parser{ReadFile: read}
	if err := p.File("d/job.fio"); err != nil {
		t.Fatal(err)
	}
	pl, err := p.Resolve(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	if j := pl.Jobs[0]; j.BS[Read] != 65536 || j.Depth != 3 {
		t.Errorf("include was not applied: %+v", j)
	}
	for name, want := range map[string]string{"loop.fio": "includes itself", "nested.fio": "cannot begin a section", "none.fio": "cannot read"} {
		p := Parser{ReadFile: read}
		if err := p.File(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

func TestStrict(t *testing.T) {
	t.Parallel()
	p := Parser{Strict: true}
	if err := p.Bytes("j", []byte("[j]\nbs = 4k\n")); err != nil {
		t.Fatal(err)
	}
	pl, err := p.Resolve(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	if got := pl.Jobs[0].BS[Read]; got != 4 {
		t.Errorf("strict reading of %q is %d, fio's is 4", "bs = 4k", got)
	}
	p = Parser{Strict: true}
	if err := p.Bytes("j", []byte("[j]\nrw=randw\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Resolve(nil, false); err == nil {
		t.Error("strict reading takes rw=randw, fio refuses it")
	}
}

// The two job files of a block back end's review and the load levels their comments name.
func TestFieldJobs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		file string
		jobs int
		note string
	}{{"testdata/iometer.fio", 2, "20 % reads"}, {"testdata/randw.fio", 4, "short for"}} {
		p := Parser{}
		if err := p.File(tt.file); err != nil {
			t.Fatal(err)
		}
		pl, err := p.Resolve([]Setting{{Name: "load", Value: "moderate", HasValue: true}}, true)
		if err != nil {
			t.Fatal(err)
		}
		notes := fmt.Sprint(pl.Notes)
		if len(pl.Jobs) != tt.jobs || pl.Jobs[0].Depth != 64 || !strings.Contains(notes, tt.note) {
			t.Errorf("%s: %d jobs at depth %d, notes %s", tt.file, len(pl.Jobs), pl.Jobs[0].Depth, notes)
		}
	}
}

func TestTableIsWhole(t *testing.T) {
	t.Parallel()
	for name, o := range options {
		n := 0
		if o.apply != nil {
			n++
		}
		if o.note != "" {
			n++
		}
		if o.refuse != "" {
			n++
		}
		if n != 1 {
			t.Errorf("option %s has %d treatments", name, n)
		}
		if _, ok := aliases[name]; ok {
			t.Errorf("option %s is an alias too", name)
		}
	}
	for a, name := range aliases {
		if _, ok := options[name]; !ok {
			t.Errorf("alias %s points to nothing (%s)", a, name)
		}
	}
}

// FuzzParse: whatever the text, reading ends with a plan or an error that has a place.
func FuzzParse(f *testing.F) {
	// Short: a fuzzer that finds something in a long text spends its time on making it shorter.
	for _, text := range []string{
		"[j]\nbs=(1k+2)*3\n", "[j]\nbssplit=4k/10:8k/:,1/\n", "[j]\nsize=-5%\n", "[j]\nrandom_distribution=zoned:1/2:\n",
		"[global]\nnumjobs=2\n[a]\nrw=randrw\n", "[j]\nrw=randw\nrwmixread=80\n[k]\nstonewall\n", "[j]\nrate_iops=1,2\ngroup_reporting\n",
		"[j]\nfilename=/a\\:b:c\nsize=4g\n", "; a\n# b\n[j] c\niodepth=256\n", "[j]\ninclude x\nbs=${A}\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "numjobs") && len(text) > 4000 {
			return
		}
		for _, strict := range []bool{false, true} {
			p := Parser{Strict: strict, Getenv: func(string) (string, bool) { return "4k", true },
				ReadFile: func(string) ([]byte, error) { return nil, fs.ErrNotExist }}
			err := p.Bytes("f", []byte(text))
			if err == nil {
				var pl *Plan
				if pl, err = p.Resolve(nil, false); err == nil {
					checkPlan(t, pl)
					continue
				}
			}
			var pe *Error
			if !errors.As(err, &pe) && !strings.Contains(err.Error(), "no jobs") {
				t.Errorf("error without a place: %v", err)
			}
		}
	})
}

// checkPlan asserts what the engine relies on.
func checkPlan(t *testing.T, pl *Plan) {
	for _, j := range pl.Jobs {
		for d := range Dirs {
			if j.MinBS[d] < 1 || j.MaxBS[d] < j.MinBS[d] || j.MaxBS[d] > maxBlock || j.Align[d] < 1 {
				t.Fatalf("job %s: block sizes %d..%d align %d", j.Name, j.MinBS[d], j.MaxBS[d], j.Align[d])
			}
		}
		if j.Depth < 1 || j.Batch < 1 || j.BatchMax < j.BatchMin || j.DepthLow < 1 || len(j.Filenames) == 0 || j.Loops < 1 || j.Mode.Sequence < 1 {
			t.Fatalf("job %s breaks an invariant: %+v", j.Name, j)
		}
	}
}
