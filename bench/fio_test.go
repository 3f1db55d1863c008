package bench_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/bench"
	"github.com/vmdisk/vmdisk/bench/engine"
	"github.com/vmdisk/vmdisk/bench/result"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/file"
)

// openFile opens what a job names, as the command does.
func openFile(ctx context.Context, q engine.OpenRequest) (*disk.Disk, error) {
	o := file.Options{ReadOnly: !q.Write}
	if q.Direct {
		o.Cache = file.None
	}
	return file.OpenDisk(ctx, q.Name, o)
}

func fio(t *testing.T, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath("fio")
	if err != nil {
		t.Fatal("fio is not installed (apt install fio)")
	}
	var out, stderr bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Dir = t.TempDir() // for the states of verification that fio leaves
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("fio %s: %v\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return out.Bytes()
}

func run(t *testing.T, args ...string) *result.Run {
	t.Helper()
	r, err := bench.Run(t.Context(), &bench.Request{Args: args, Open: openFile, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Failed(); err != nil {
		t.Fatal(err)
	}
	return r
}

// mixedJob touches most of what outputs show.
func mixedJob(name string) []string {
	return []string{"--name=m", "--filename=" + name, "--size=4m", "--rw=randrw", "--bs=4k", "--ioengine=libaio", "--iodepth=4", "--fsync=32", "--bwavgtime=20", "--iopsavgtime=20"}
}

// keys lists the paths of all keys, leaving out what depends on the numbers.
func keys(v any, at string, into map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if strings.HasSuffix(at, "/bins") || strings.Contains(at, "/job options") || strings.Contains(at, "/vmdisk") {
				continue
			}
			into[at+"/"+k] = true
			keys(e, at+"/"+k, into)
		}
	case []any:
		for _, e := range v {
			keys(e, at+"[]", into)
		}
	}
}

// Every key of the installed fio's JSON and JSON+ is in ours.
func TestJSONKeys(t *testing.T) {
	t.Parallel()
	for _, plus := range []bool{false, true} {
		dir := t.TempDir()
		format := map[bool]string{false: "json", true: "json+"}[plus]
		theirs := fio(t, append(mixedJob(filepath.Join(dir, "f")), "--output-format="+format)...)
		var ours bytes.Buffer
		if err := run(t, mixedJob(filepath.Join(dir, "v"))...).JSON(&ours, plus); err != nil {
			t.Fatal(err)
		}
		var a, b any
		if err := json.Unmarshal(theirs[bytes.IndexByte(theirs, '{'):], &a); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(ours.Bytes(), &b); err != nil {
			t.Fatalf("our JSON: %v\n%s", err, ours.Bytes())
		}
		have, want := map[string]bool{}, map[string]bool{}
		keys(a, "", want)
		keys(b, "", have)
		for _, k := range slices.Sorted(maps.Keys(want)) {
			if !have[k] {
				t.Errorf("%s: key %s is missing", format, k)
			}
		}
		if len(want) < 150 {
			t.Errorf("%s: fio has only %d keys, is that its output?", format, len(want))
		}
	}
}

// The terse line has fio's number of fields, and its constant ones in place.
func TestTerseFields(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	theirs := strings.Split(lastLine(fio(t, append(mixedJob(filepath.Join(dir, "f")), "--output-format=terse", "--disk_util=0")...)), ";")
	var b bytes.Buffer
	r := run(t, mixedJob(filepath.Join(dir, "v"))...)
	r.Disks = nil
	if err := r.Terse(&b); err != nil {
		t.Fatal(err)
	}
	ours := strings.Split(strings.TrimSpace(b.String()), ";")
	if len(ours) != len(theirs) {
		t.Fatalf("%d fields, fio has %d", len(ours), len(theirs))
	}
	for i := range ours {
		a, _, percent := strings.Cut(ours[i], "%=")
		b, _, percent2 := strings.Cut(theirs[i], "%=")
		if percent != percent2 || percent && a != b || strings.HasSuffix(ours[i], "%") != strings.HasSuffix(theirs[i], "%") {
			t.Errorf("field %d is %q, fio's %q", i, ours[i], theirs[i])
		}
	}
}

func lastLine(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

// The human output has fio's lines in fio's order.
func TestNormalLines(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	theirs := fio(t, append(mixedJob(filepath.Join(dir, "f")), "--disk_util=0")...)
	var b bytes.Buffer
	r := run(t, mixedJob(filepath.Join(dir, "v"))...)
	r.Disks = nil
	if err := r.Normal(&b); err != nil {
		t.Fatal(err)
	}
	heads := func(text string) []string {
		var out []string
		for line := range strings.SplitSeq(text, "\n") {
			for _, h := range []string{"  read:", "  write:", "    slat (", "    clat (", "     lat (", "    clat percentiles", "    sync (", "    sync percentiles",
				"  cpu          :", "  IO depths    :", "     submit    :", "     complete  :", "     issued rwts:", "     latency   :", "Run status group 0", "   READ: bw=", "  WRITE: bw=",
				"  fsync/fdatasync/sync_file_range"} {
				if strings.HasPrefix(line, h) {
					out = append(out, h)
				}
			}
		}
		return out
	}
	if a, b := heads(string(theirs)), heads(b.String()); !slices.Equal(a, b) {
		t.Errorf("lines %q\nfio's %q", b, a)
	}
}

// What a job fixes is equal to the digit: I/Os, bytes and syncs.
func TestCountsEqualFio(t *testing.T) {
	t.Parallel()
	for _, opts := range []string{
		"--rw=read --bs=64k", "--rw=write --bs=4k --fsync=8 --end_fsync=1", "--rw=randread --bs=4k --ioengine=libaio --iodepth=16",
		"--rw=randwrite --bs=8k --loops=2", "--rw=randread --bs=4k --io_size=1m", "--rw=read --bs=4k --number_ios=100",
		"--rw=randwrite --bs=4k --verify=crc32c", "--rw=write --bs=4k --numjobs=3 --group_reporting --offset_increment=1m --size=1m",
		"--rw=read --bs=3k", "--rw=randread --bs=4k --random_generator=lfsr", "--rw=randread --bs=16k --norandommap", "--rw=write --bs=4k --fdatasync=5",
	} {
		t.Run(opts, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			args := func(name string) []string {
				a := []string{"--name=j", "--filename=" + filepath.Join(dir, name), "--filesize=4m"}
				if !strings.Contains(opts, "--size") {
					a = append(a, "--size=4m")
				}
				return append(a, strings.Fields(opts)...)
			}
			theirs, err := load(dir, fio(t, append(args("f"), "--output-format=json")...))
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if err := run(t, args("v")...).JSON(&b, false); err != nil {
				t.Fatal(err)
			}
			ours, err := load(dir, b.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(ours, theirs) {
				t.Errorf("ours %v\nfio's %v", ours, theirs)
			}
		})
	}
}

// load takes the counts out of JSON.
func load(dir string, data []byte) (map[string]uint64, error) {
	var r struct {
		Jobs []map[string]json.RawMessage `json:"jobs"`
	}
	if err := json.Unmarshal(data[bytes.IndexByte(data, '{'):], &r); err != nil {
		return nil, err
	}
	out := map[string]uint64{}
	for i, j := range r.Jobs {
		for _, d := range []string{"read", "write", "trim", "sync"} {
			var c struct {
				IOs   uint64 `json:"total_ios"`
				Bytes uint64 `json:"io_bytes"`
				Lat   struct {
					N uint64 `json:"N"`
				} `json:"lat_ns"`
			}
			if err := json.Unmarshal(j[d], &c); err != nil {
				return nil, err
			}
			if d == "sync" {
				c.IOs = c.Lat.N // fio's total_ios leaves fdatasync out
			}
			out[fmt.Sprintf("%d %s ios", i, d)], out[fmt.Sprintf("%d %s bytes", i, d)] = c.IOs, c.Bytes
		}
	}
	return out, nil
}

// A file that fio wrote with verify= verifies here, and the other way round.
func TestVerifyAcross(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"crc32c", "sha256", "md5", "xxhash"} {
		name := filepath.Join(t.TempDir(), "f")
		fio(t, "--name=w", "--filename="+name, "--size=1m", "--rw=randwrite", "--bs=4k", "--verify="+kind, "--do_verify=0")
		r := run(t, "--name=r", "--filename="+name, "--size=1m", "--rw=read", "--bs=4k", "--verify="+kind)
		if n := r.Jobs[0].Dirs[0].IOs; n != 256 {
			t.Errorf("%s: %d blocks verified, want 256", kind, n)
		}
	}
}

func TestCompareReadsBoth(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i, out := range [][]byte{
		fio(t, append(mixedJob(filepath.Join(dir, "f")), "--output-format=json")...), nil,
	} {
		if out == nil {
			var b bytes.Buffer
			if err := run(t, mixedJob(filepath.Join(dir, "v"))...).JSON(&b, false); err != nil {
				t.Fatal(err)
			}
			out = b.Bytes()
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.json", i)), out, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a, err := bench.Load(filepath.Join(dir, "0.json"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := bench.Load(filepath.Join(dir, "1.json"))
	if err != nil {
		t.Fatal(err)
	}
	list := bench.Compare(a, b)
	if len(list) != 10 {
		t.Errorf("%d cells, want 10", len(list))
	}
	for _, d := range list {
		if d.Verdict != bench.VerdictTooFew || d.A == 0 || d.B == 0 || math.IsNaN(d.Delta) {
			t.Errorf("%+v", d)
		}
	}
}

func TestCompareVerdicts(t *testing.T) {
	t.Parallel()
	cell := func(metric string, v ...float64) []result.Cell {
		return []result.Cell{{Job: "j", Dir: "read", Metric: metric, Values: v}}
	}
	for _, tt := range []struct {
		a, b []result.Cell
		want string
	}{
		{cell("iops", 100, 101, 99, 100, 102), cell("iops", 120, 121, 122, 119, 120), bench.VerdictBetter},
		{cell("lat_p99", 100, 101, 99, 100, 102), cell("lat_p99", 120, 121, 122, 119, 120), bench.VerdictWorse},
		{cell("bw", 100, 101, 99, 100, 102), cell("bw", 100, 99, 101, 102, 100), bench.VerdictSame},
		{cell("bw", 100), cell("bw", 200), bench.VerdictTooFew},
		{cell("bw", 100), cell("iops", 200), bench.VerdictMissing},
	} {
		if got := bench.Compare(tt.a, tt.b)[0].Verdict; got != tt.want {
			t.Errorf("%v, %v: %q, want %q", tt.a, tt.b, got, tt.want)
		}
	}
}
