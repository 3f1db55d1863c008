package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/report"
)

// fixed is a contender that measures the given values in turn.
func fixed(name string, v ...float64) Contender {
	return Contender{Name: name, Run: func(_ context.Context, round int) (Sample, error) {
		return Sample{Value: v[round%len(v)], ServerCPU: time.Duration(v[round%len(v)]), ClientCPU: time.Second}, nil
	}}
}

func runCase(t *testing.T, rounds int, c Case) Result {
	t.Helper()
	r := &runner{env: Env{Dir: t.TempDir()}, rounds: rounds, progress: io.Discard}
	return r.run(t.Context(), c)
}

func caseOf(unit Unit, goals []Goal, k ...Contender) Case {
	return Case{Name: "x", Unit: unit, Goals: goals, Prepare: func(context.Context, *Env) ([]Contender, error) { return k, nil }}
}

func TestGoals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		unit   Unit
		goal   Goal
		ours   float64
		peers  []float64
		actual float64
		met    bool
	}{
		{"faster than the fastest", Rate, faster(1.3), 130, []float64{100, 50}, 1.3, true},
		{"not fast enough", Rate, faster(1.3), 120, []float64{50, 100}, 1.2, false},
		{"shorter than the shortest", Seconds, within(0.9), 0.8, []float64{1, 2}, 0.8, true},
		{"too long", Seconds, within(0.9), 1, []float64{4, 1}, 1, false},
		{"absolute", Bytes, atMost(64), 63, []float64{1}, 63, true},
		{"absolutely too much", Bytes, atMost(64), 65, []float64{1000}, 65, false},
		{"against one by name", Seconds, against("peer1", 1), 3, []float64{1, 4}, 0.75, true},
		{"CPU", Rate, cheaper(ServerCPU, 0.5), 40, []float64{100}, 0.4, true},
		{"CPU of both ends", Rate, cheaper(BothCPU, 0.5), 40, []float64{100}, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := []Contender{fixed("vmdisk", c.ours)}
			for i, v := range c.peers {
				k = append(k, fixed(fmt.Sprintf("peer%d", i), v))
			}
			res := runCase(t, 3, caseOf(c.unit, []Goal{c.goal}, k...))
			v := res.Goals[0]
			if !v.Known || v.Met != c.met || v.Actual < c.actual-1e-6 || v.Actual > c.actual+1e-6 {
				t.Errorf("got %+v, want %v and %v", v, c.actual, c.met)
			}
		})
	}
}

// TestRatioIsPaired: a machine that is slow in one round is slow for all.
func TestRatioIsPaired(t *testing.T) {
	t.Parallel()
	res := runCase(t, 3, caseOf(Rate, []Goal{faster(1.5)}, fixed("vmdisk", 150, 15, 1500), fixed("peer", 100, 10, 1000)))
	if got := res.Goals[0].Actual; got != 1.5 {
		t.Errorf("ratio %v, want 1.5", got)
	}
}

// TestInfoIsNoRival: what is only shown is not compared with.
func TestInfoIsNoRival(t *testing.T) {
	t.Parallel()
	fast := fixed("fast", 1000)
	fast.Info = true
	res := runCase(t, 1, caseOf(Rate, []Goal{faster(1)}, fixed("vmdisk", 100), fast, fixed("peer", 50)))
	if v := res.Goals[0]; v.Peer != "peer" || !v.Met {
		t.Errorf("got %+v", v)
	}
	res = runCase(t, 1, caseOf(Rate, []Goal{faster(1)}, fixed("vmdisk", 100), fast))
	if v := res.Goals[0]; v.Known || v.Met {
		t.Errorf("a goal without a peer is %+v", v)
	}
}

// TestOrderTurns: each round begins with another contender.
func TestOrderTurns(t *testing.T) {
	t.Parallel()
	var order []string
	note := func(name string) Contender {
		return Contender{Name: name, Run: func(context.Context, int) (Sample, error) {
			order = append(order, name)
			return Sample{Value: 1}, nil
		}}
	}
	runCase(t, 3, caseOf(Rate, nil, note("a"), note("b"), note("c")))
	if got := strings.Join(order, ""); got != "abcbcacab" {
		t.Errorf("order %s", got)
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	broken := func(name string) Contender {
		return Contender{Name: name, Run: func(context.Context, int) (Sample, error) { return Sample{}, errors.New("broken") }}
	}
	res := runCase(t, 2, caseOf(Rate, []Goal{faster(1)}, fixed("vmdisk", 2), broken("peer"), fixed("other", 1)))
	if res.Err != "" || res.Runs[1].Err != "broken" || res.Goals[0].Peer != "other" {
		t.Errorf("a broken peer: %+v", res)
	}
	res = runCase(t, 2, caseOf(Rate, []Goal{faster(1)}, broken("vmdisk"), fixed("other", 1)))
	if res.Err == "" || failures([]Result{res}) == nil {
		t.Errorf("our failure is not the case's: %+v", res)
	}
	res = runCase(t, 2, Case{Prepare: func(context.Context, *Env) ([]Contender, error) {
		return nil, fmt.Errorf("%w: needs root", errSkip)
	}})
	if res.Skip == "" || failures([]Result{res}) != nil {
		t.Errorf("a skipped case: %+v", res)
	}
}

func TestEnvUndoes(t *testing.T) {
	t.Parallel()
	var order []int
	dir := t.TempDir()
	r := &runner{env: Env{Dir: dir}, rounds: 1, progress: io.Discard}
	res := r.run(t.Context(), Case{Prepare: func(_ context.Context, e *Env) ([]Contender, error) {
		e.Defer(func() error { order = append(order, 1); return nil })
		e.Defer(func() error { order = append(order, 2); return nil })
		return nil, errors.New("no")
	}})
	if fmt.Sprint(order) != "[2 1]" || res.Err == "" {
		t.Errorf("undone %v, %+v", order, res)
	}
	if left, _ := filepath.Glob(dir + "/*"); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

// TestReadFio: libnbd's lines before the report are skipped, CPU is per job.
func TestReadFio(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "fio.json")
	text := "nbd: connected to NBD server\n" + `{"jobs":[{"error":0,"job_runtime":4000,"usr_cpu":10,"sys_cpu":15,
		"read":{"iops":500,"total_ios":2000},"write":{"iops":0,"total_ios":0}}]}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	st, err := readFio(path)
	if err != nil || st.rate != 500 || st.ops != 2000 || st.cpu != time.Second {
		t.Errorf("got %+v, %v", st, err)
	}
	for _, bad := range []string{"", "connected\n", `{"jobs":[]}`, strings.Replace(text, `"error":0`, `"error":5`, 1), strings.Replace(text, "2000", "0", 1)} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if st, err := readFio(path); err == nil {
			t.Errorf("%q is taken for %+v", bad, st)
		}
	}
}

func TestIOLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	image, log := filepath.Join(dir, "image"), filepath.Join(dir, "log")
	if err := scattered(image, 2, 3<<20, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := writeIOLog(image, "/dev/x", log); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	want := "fio version 2 iolog\n/dev/x add\n/dev/x open\n"
	for _, off := range []int{0, 1, 2, 4, 5, 6} {
		want += fmt.Sprintf("/dev/x write %d 1048576\n", off<<20)
	}
	if string(got) != want+"/dev/x close\n" {
		t.Errorf("got\n%s", got)
	}
}

// TestCases: names are unique and every goal of the project's aims is there.
func TestCases(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range cases() {
		if seen[c.Name] {
			t.Errorf("two cases are named %s", c.Name)
		}
		seen[c.Name] = true
		if len(c.Goals) == 0 && !strings.HasPrefix(c.Name, "harness/") {
			t.Errorf("%s has no goal", c.Name)
		}
	}
	for _, want := range []string{
		"nbd/randread-4k/qd1x1", "nbd/randwrite-4k/qd64x4", "nbd/read-1024k", "nbd/write-256k", "nbd/memory-1000-idle",
		"copy/raw-to-raw", "copy/to-nbd", "copy/from-nbd", "copy/to-nbdkit-memory", "copy/to-block-direct", "copy/empty-8T",
		"copy/scattered", "copy/xfs-reflink", "harness/",
	} {
		if !regexp.MustCompile(want).MatchString(strings.Join(names(), "\n")) {
			t.Errorf("no case %s", want)
		}
	}
	if _, err := choose(options{run: "no such case"}); err == nil {
		t.Error("an expression that matches nothing is accepted")
	}
	if _, err := choose(options{run: "("}); err == nil {
		t.Error("a broken expression is accepted")
	}
}

func names() []string {
	var list []string
	for _, c := range cases() {
		list = append(list, c.Name)
	}
	return list
}

func TestOutput(t *testing.T) {
	t.Parallel()
	res := runCase(t, 2, caseOf(Rate, []Goal{faster(1.3), atMost(1)}, fixed("vmdisk", 130), fixed("peer", 100)))
	var b bytes.Buffer
	for _, it := range []report.Item{table(res), summary([]Result{res})} {
		if err := report.TextItem(&b, it); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"130 /s", "met: value >= 1.30x of peer: 1.300x", "MISSED: value <= 1 /s", "1 of 2 goals met"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	path := filepath.Join(t.TempDir(), "out.json")
	if err := writeJSON(path, []report.Fact{{Name: "kernel", Value: "x"}}, []Result{res}); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var rec record
	if err := json.Unmarshal(raw, &rec); err != nil || len(rec.Results) != 1 || len(rec.Results[0].Runs[0].Samples) != 2 {
		t.Errorf("the record is %s (%v)", raw, err)
	}
}
