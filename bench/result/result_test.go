package result

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// sample is a run of two jobs of a group that reports together and one that failed.
func sample(t *testing.T) *Run {
	t.Helper()
	p := jobfile.Parser{}
	if err := p.Bytes("j.fio", []byte("[a]\nrw=randrw\nnumjobs=2\ngroup_reporting\nrate_iops=100\n[b]\nstonewall\nrw=write\n")); err != nil {
		t.Fatal(err)
	}
	pl, err := p.Resolve(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	r := &Run{Version: "v", Target: "mem:1G", Started: time.Unix(1e9, 0), Elapsed: 3 * time.Second, JobFiles: []JobText{{"j.fio", "[a] <b> & \"c\""}},
		Bounds: []Bound{{0, "rate", "it was asked for"}}, Host: []HostPoint{{At: time.Second, Busy: 0.5}}}
	for _, spec := range pl.Jobs {
		j := &Job{Spec: spec, Merged: 1, Started: r.Started, Elapsed: 2 * time.Second}
		for d := range j.Dirs {
			if !spec.Mode.Has(d) {
				continue
			}
			for i := range 100 {
				j.Dirs[d].Clat.Add(int64(1000 * (i + 1)))
				j.Dirs[d].Lat.Add(int64(1100 * (i + 1)))
			}
			j.Dirs[d].IOs, j.Dirs[d].Bytes, j.Dirs[d].Runtime = 100, 409600, 2*time.Second
			j.Dirs[d].BW.Add(100)
			j.Dirs[d].BW.Add(300)
		}
		j.Points = []Point{{At: time.Second, Took: time.Second, IOs: [3]uint64{50, 50}, Bytes: [3]uint64{204800, 204800}}}
		j.Stalls = []Stall{{time.Second, 1500 * time.Millisecond}}
		r.Jobs = append(r.Jobs, j)
	}
	r.Jobs[2].Err, r.Jobs[2].Errno = errors.New("write failed; <script>"), 5
	return r
}

func TestGroups(t *testing.T) {
	t.Parallel()
	r := sample(t)
	g := r.Groups()
	if len(g) != 2 || g[0].Merged != 2 || g[0].Dirs[0].IOs != 200 || g[0].Dirs[0].Clat.N() != 200 || g[0].Dirs[0].Runtime != 2*time.Second {
		t.Errorf("%d groups: %d jobs, %d I/Os", len(g), g[0].Merged, g[0].Dirs[0].IOs)
	}
	if bw := g[0].Dirs[0].BWBytes(); bw != 409600 {
		t.Errorf("bandwidth of two jobs is %v", bw)
	}
	if m := g[0].Dirs[0].BW.Mean(); m != 400 || g[0].Dirs[0].BW.Min != 200 {
		t.Errorf("the samples' mean is %v, minimum %v: those of jobs side by side add up", m, g[0].Dirs[0].BW.Min)
	}
	if p := g[0].Points; len(p) != 1 || p[0].IOs[0] != 100 {
		t.Errorf("points: %+v", p)
	}
	if r.Jobs[0].Dirs[0].IOs != 100 {
		t.Error("grouping changed a job")
	}
}

func TestNormalMarksTrouble(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := sample(t).Normal(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"err= 5 (write failed; <script>)", "PARTIAL", "stalls       : 2 times", "the longest 1.5s, 1s after the start", "BOUND: rate: it was asked for", "jobs=2"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in\n%s", want, b.String())
		}
	}
}

// The page needs nothing from elsewhere and executes nothing from its data.
func TestHTMLIsSelfContained(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := sample(t).HTML(&b); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	if m := regexp.MustCompile(`(?i)(src|href)\s*=\s*["']?(https?:)?//|@import|<link[^>]+href=.[^d]`).FindString(page); m != "" {
		t.Errorf("the page loads something: %q", m)
	}
	if strings.Contains(page, "failed; <script>") {
		t.Error("an error text is not escaped")
	}
	for _, want := range []string{"Bandwidth", "I/O rate", "Latency percentiles", "Load of the machine", "j.fio", "mem:1G", "stalled"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is missing", want)
		}
	}
}

// number writes what fio writes.
func TestNumber(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		n       uint64
		figures int
		binary  bool
		unit    string
		want    string
	}{
		{4096, 4, true, "B", "4096B"}, {65536, 4, true, "B", "64.0KiB"}, {8339000, 4, true, "B/s", "8144KiB/s"}, {8339000, 4, false, "B/s", "8339kB/s"},
		{25794969, 4, true, "B/s", "24.6MiB/s"}, {2035, 4, false, "", "2035"}, {58300, 4, false, "", "58.3k"}, {0, 4, true, "B", "0B"}, {1733328, 6, false, "", "1733.3k"},
	} {
		if got := number(tt.n, tt.figures, tt.binary, tt.unit); got != tt.want {
			t.Errorf("number(%d): %q, want %q", tt.n, got, tt.want)
		}
	}
}

func TestSamples(t *testing.T) {
	t.Parallel()
	var s Samples
	for _, v := range []float64{1, 2, 3, 4} {
		s.Add(v)
	}
	if s.Mean() != 2.5 || s.Min != 1 || s.Max != 4 || math.Abs(s.variance()-5.0/3) > 1e-9 {
		t.Errorf("%+v", s)
	}
	var empty Samples
	empty.Merge(&s)
	if empty != s {
		t.Error("merging into nothing is not a copy")
	}
}

func TestPlots(t *testing.T) {
	t.Parallel()
	names, err := sample(t).WritePlots(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, "/a-bw.png") }) || len(names) != 16 {
		t.Errorf("%d plots: %v", len(names), names)
	}
}

// TestUnified: the figures of all directions together take the place of each direction's, or
// stand behind them, in JSON and terse output as in fio's.
func TestUnified(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		how        string
		keys, gone []string
		blocks     int
	}{
		{"none", []string{"read", "write", "trim"}, []string{"mixed"}, 2},
		{"mixed", []string{"mixed"}, []string{"read", "write", "trim"}, 1},
		{"both", []string{"read", "write", "trim", "mixed"}, nil, 3},
	} {
		r := sample(t)
		for _, j := range r.Jobs {
			j.Spec.UnifiedRW = c.how
			j.Spec.LatencyTarget = 2 * time.Millisecond
		}
		var text, terse bytes.Buffer
		if err := errors.Join(r.JSON(&text, false), r.Terse(&terse)); err != nil {
			t.Fatal(err)
		}
		var doc struct{ Jobs []map[string]json.RawMessage }
		if err := json.Unmarshal(text.Bytes(), &doc); err != nil {
			t.Fatal(err)
		}
		for _, k := range c.keys {
			if doc.Jobs[0][k] == nil {
				t.Errorf("%s: no %q", c.how, k)
			}
		}
		for _, k := range c.gone {
			if doc.Jobs[0][k] != nil {
				t.Errorf("%s: %q is there", c.how, k)
			}
		}
		if got := string(doc.Jobs[0]["latency_target"]); got != "2000000" {
			t.Errorf("latency_target is %s, want nanoseconds", got)
		}
		line, _, _ := strings.Cut(terse.String(), "\n")
		// A block has 41 fields, 20 of them percentiles; the latency classes have none.
		if got := strings.Count(line, "99.000000%="); got != c.blocks {
			t.Errorf("%s: %d blocks in terse output, want %d", c.how, got, c.blocks)
		}
		if mixed := doc.Jobs[0]["mixed"]; c.how != "none" && !strings.Contains(string(mixed), `"total_ios" : 400`) {
			t.Errorf("%s: mixed is %.200s", c.how, mixed)
		}
	}
}
