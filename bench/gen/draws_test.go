package gen

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// fioTrace returns what fio does for a job on files that need not exist, one
// "FILE DIRECTION OFFSET LENGTH" for each I/O.
func fioTrace(t *testing.T, opts ...string) []string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "trace")
	args := append([]string{"--name=j", "--ioengine=null", "--write_iolog=" + name, "--output=/dev/null"}, opts...)
	cmd := exec.Command("fio", args...)
	cmd.Dir = t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("fio %s (apt install fio): %v\n%s", strings.Join(args, " "), err, out)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var trace []string
	for line := range strings.Lines(string(data)) { // the head is "fio version 3 iolog"
		f := strings.Fields(line)
		if len(f) == 5 {
			f = f[1:] // version 3 begins with a time
		}
		if len(f) == 4 && f[0] != "fio" {
			trace = append(trace, strings.Join(f, " "))
		}
	}
	return trace
}

// ourTrace is the same of this package.
func ourTrace(j *jobfile.Job, file, size int64, n int) []string {
	var trace []string
	d := NewDraws(j, 1)
	s := NewStream(j, 0, size, d, j.Filenames[file])
	for len(trace) < n {
		dir := d.Dir()
		off, length, ok := s.Next(dir)
		if !ok {
			break
		}
		d.Issued(dir)
		trace = append(trace, fmt.Sprintf("%s %s %d %d", j.Filenames[file], jobfile.DirNames[dir], off, length))
	}
	return trace
}

// A job does here what it does in fio, I/O for I/O.
func TestDrawsAreFio(t *testing.T) {
	t.Parallel()
	for _, opts := range []string{
		"rw=randread bs=4k",
		"rw=randread bs=4k norandommap",
		"rw=randwrite bs=4k randseed=77",
		"rw=randrw bs=4k randseed=77 randrepeat=0",
		"rw=randread bs=4k randseed=77 random_distribution=zipf:1.1",
		"rw=randrw bs=4k rwmixread=70",
		"rw=randrw bs=4k rwmixwrite=5 norandommap",
		"rw=rw bs=8k rwmixread=30",
		"rw=randrw bs=4k,8k rwmixread=50 norandommap",
		"rw=randread bssplit=512/10:1k/5:2k/5:4k/60:8k/2:16k/4:32k/4:64k/10 norandommap",
		"rw=randrw bssplit=4k/60:16k/30:64k/10 rwmixread=80",
		"rw=randwrite bssplit=4k/40:16k:64k",
		"rw=randread bsrange=4k-64k norandommap",
		"rw=randwrite bsrange=1k-17k bs_unaligned norandommap",
		"rw=read bsrange=4k-64k",
		"rw=randread bs=64k ba=4k norandommap",
		"rw=randread:8 bs=4k norandommap",
		"rw=randread bs=4k percentage_random=30 norandommap",
		"rw=randrw bsrange=4k-16k,32k-64k bs_is_seq_rand=1 percentage_random=50 norandommap",
		"rw=randread bs=4k random_generator=tausworthe64",
		"rw=randwrite bssplit=4k/50:8k/50 random_generator=tausworthe64 norandommap",
		"rw=randread bs=4k random_distribution=zipf:1.2",
		"rw=randrw bs=4k random_distribution=zipf:0.8",
		"rw=randwrite bs=4k random_distribution=pareto:0.2",
		"rw=randread bs=4k random_distribution=normal:10",
		"rw=randread bs=4k random_distribution=zoned:50/5:30/15:20/",
		"rw=randwrite bs=4k random_distribution=zoned_abs:60/1m:30/2m:10/5m",
		"rw=randread bs=4k filename=a_name_longer_than_twelve_bytes random_distribution=zipf:1.1",
	} {
		t.Run(opts, func(t *testing.T) {
			t.Parallel()
			const size = 8 << 20
			words := strings.Fields(opts + " size=8m")
			for i := range words {
				words[i] = "--" + words[i]
			}
			theirs := fioTrace(t, words...)
			j := job(t, opts+" size=8m")
			ours := ourTrace(j, 0, size, len(theirs))
			if len(theirs) < 100 {
				t.Fatalf("fio's trace has only %d I/Os", len(theirs))
			}
			for i := range theirs {
				if i >= len(ours) || ours[i] != theirs[i] {
					t.Fatalf("I/O %d of %d is %q, fio's %q", i, len(theirs), append(ours, "none")[i], theirs[i])
				}
			}
		})
	}
}

// Clones and passes differ as fio's do.
func TestDrawsOfClones(t *testing.T) {
	t.Parallel()
	theirs := fioTrace(t, "--rw=randrw", "--bs=4k", "--size=1m", "--numjobs=3", "--filename=f")
	p := jobfile.Parser{}
	if err := p.Args([]string{"--name=j", "--rw=randrw", "--bs=4k", "--size=1m", "--numjobs=3", "--filename=f"}); err != nil {
		t.Fatal(err)
	}
	plan, err := p.Resolve(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	// fio's processes write into one trace, in any order.
	var ours []string
	first := map[string]bool{}
	for _, j := range plan.Jobs {
		trace := ourTrace(j, 0, 1<<20, 256)
		first[trace[0]] = true
		ours = append(ours, trace...)
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	if !slices.Equal(ours, theirs) || len(first) != 3 {
		t.Errorf("our %d I/Os are not fio's %d, or clones are alike (%d beginnings)", len(ours), len(theirs), len(first))
	}
}

// The second pass is the first one again. (Under randseed= fio draws on, from one
// draw further than was used; that is not followed.)
func TestDrawsOfPasses(t *testing.T) {
	t.Parallel()
	for _, opts := range []string{"rw=randrw bs=4k", "rw=randwrite bssplit=4k/50:8k/50"} {
		j := job(t, opts+" size=1m loops=2")
		theirs := fioTrace(t, strings.Fields("--"+strings.ReplaceAll(opts, " ", " --")+" --size=1m --loops=2")...)
		d := NewDraws(j, 1)
		s := NewStream(j, 0, 1<<20, d, j.Filenames[0])
		var ours []string
		for range 2 {
			d.Restart()
			s.Restart()
			for left := int64(1 << 20); left > 0; {
				dir := d.Dir()
				off, n, _ := s.Next(dir)
				d.Issued(dir)
				left -= n
				ours = append(ours, fmt.Sprintf("%s %s %d %d", j.Filenames[0], jobfile.DirNames[dir], off, n))
			}
		}
		if !slices.Equal(ours, theirs) {
			t.Errorf("%s: the %d I/Os of two passes are not fio's %d", opts, len(ours), len(theirs))
		}
	}
}
