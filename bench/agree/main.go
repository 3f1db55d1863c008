// Command agree runs a set of jobs with fio and with vmdisk bench in turn, on the
// same served disk whose operations take a fixed time, and says for each job and
// figure whether the two agree within the noise that fio shows against itself.
// I/Os and bytes of each direction must be equal to the digit, also where they are
// drawn: the draws are fio's own.
//
//	go run ./bench/agree [-rounds 5] [-delay 10ms] [-markdown] [-vmdisk PATH] [-json FILE]
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vmdisk/vmdisk/bench"
	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/bench/result"
	"github.com/vmdisk/vmdisk/bench/stat"
	"github.com/vmdisk/vmdisk/report"
)

// jobs are bound by the served disk's delay, or by their own rate, never by the
// processor: what differs is the engines' accounting.
var jobs = []struct{ name, options string }{
	{"randread qd1", "--rw=randread --bs=4k --size=1m"},
	{"randread qd4", "--rw=randread --bs=4k --size=2m --iodepth=4"},
	{"randread qd16", "--rw=randread --bs=4k --size=8m --iodepth=16"},
	{"randwrite qd4", "--rw=randwrite --bs=4k --size=2m --iodepth=4"},
	{"randrw 70/30 qd4", "--rw=randrw --rwmixread=70 --bs=4k --size=2m --iodepth=4"},
	{"bssplit qd4", "--rw=randread --bssplit=4k/60:16k/30:64k/10 --norandommap --size=8m --iodepth=4"},
	{"read 64k qd2", "--rw=read --bs=64k --size=16m --iodepth=2"},
	{"write 64k end_fsync", "--rw=write --bs=64k --size=8m --iodepth=2 --end_fsync=1"},
	{"rate_iops 200", "--rw=randread --bs=4k --rate_iops=200 --size=512k --iodepth=4"},
	{"rate 1 MiB/s", "--rw=randwrite --bs=4k --rate=1m --size=1m --iodepth=8"},
	{"zipf qd4", "--rw=randread --bs=4k --random_distribution=zipf:1.1 --size=2m --iodepth=4"},
	{"4 jobs qd2", "--rw=randread --bs=4k --size=1m --iodepth=2 --numjobs=4 --group_reporting"},
}

// tolerance is what counts as equal even where fio happens not to vary.
const tolerance = 0.02

func main() {
	rounds := flag.Int("rounds", 5, "rounds of each job")
	delay := flag.Duration("delay", 10*time.Millisecond, "time of each operation; more where the machine is busy")
	bin := flag.String("vmdisk", "", "the vmdisk to measure (default: built from the sources)")
	out := flag.String("json", "", "write all figures to this file")
	md := flag.Bool("markdown", false, "print the table of docs/benchmarking.md")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *rounds, *delay, *bin, *out, *md); err != nil {
		fmt.Fprintln(os.Stderr, "agree:", err)
		stop()
		os.Exit(1)
	}
}

// Row is one figure of one job.
type Row struct {
	Job, Dir, Metric string
	Fio, Ours        []float64
	// Noise is the largest distance of a round of fio's from their median, as a
	// share of it; Off is that of our median.
	Noise, Off float64
	P          float64 // of the Mann-Whitney test; -1: too few rounds
	Agree      bool
}

func run(ctx context.Context, rounds int, delay time.Duration, bin, out string, md bool) (err error) {
	dir, err := os.MkdirTemp("", "agree")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if bin == "" {
		bin = filepath.Join(dir, "vmdisk")
		if text, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "./cmd/vmdisk").CombinedOutput(); err != nil {
			return fmt.Errorf("build vmdisk: %w\n%s", err, text)
		}
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	uri, stop, err := serve(ctx, bin, dir, delay)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	rows, err := measure(ctx, bin, dir, uri, rounds)
	if err != nil {
		return err
	}
	if out != "" {
		b, err := json.MarshalIndent(rows, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(out, b, 0o644); err != nil {
			return err
		}
	}
	if md {
		return markdown(os.Stdout, rows, rounds, delay)
	}
	return show(rows, delay)
}

// serve starts the delayed disk.
func serve(ctx context.Context, bin, dir string, delay time.Duration) (uri string, stop func() error, err error) {
	sock := filepath.Join(dir, "sock")
	cmd := exec.CommandContext(ctx, bin, "serve", "mem:64M", "--filter", fmt.Sprintf("delay:read=%v,write=%v", delay, delay), "--nbd", "unix:"+sock)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() error {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		return cmd.Wait()
	}
	for range 200 {
		if _, err := os.Stat(sock); err == nil {
			return "nbd+unix:///?socket=" + sock, stop, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return "", nil, errors.Join(fmt.Errorf("the server does not come up: %s", stderr.String()), stop())
}

func measure(ctx context.Context, bin, dir, uri string, rounds int) ([]*Row, error) {
	var rows []*Row
	for _, j := range jobs {
		common := append([]string{"--name=j", "--ioengine=nbd", "--output-format=json"}, strings.Fields(j.options)...)
		for round := range rounds {
			order := []bool{true, false} // fio first
			if round%2 == 1 {
				slices.Reverse(order)
			}
			for _, fio := range order {
				file := filepath.Join(dir, "out.json")
				name, args := bin, append([]string{"bench", "--disk", uri, "--output=" + file, "--progress=none"}, common...)
				if fio {
					name, args = "fio", append(slices.Clone(common), "--uri="+uri, "--output="+file)
				}
				cmd := exec.CommandContext(ctx, name, args...)
				cmd.Dir = dir
				if text, err := cmd.CombinedOutput(); err != nil {
					return nil, fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, text)
				}
				cells, err := loadAll(file)
				if err != nil {
					return nil, err
				}
				rows = add(rows, j.name, cells, fio)
			}
		}
		fmt.Fprintf(os.Stderr, "%s done\n", j.name)
	}
	for _, r := range rows {
		r.judge()
	}
	return rows, nil
}

// loadAll reads the figures and the exact counts.
func loadAll(file string) ([]result.Cell, error) {
	cells, err := bench.Load(file)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	type counts struct {
		IOs   float64 `json:"total_ios"`
		Bytes float64 `json:"io_bytes"`
	}
	var r struct {
		Jobs []struct{ Read, Write counts } `json:"jobs"`
	}
	if err := json.Unmarshal(data[bytes.IndexByte(data, '{'):], &r); err != nil {
		return nil, err
	}
	var sum [2]counts
	for _, j := range r.Jobs {
		for d, c := range [...]counts{j.Read, j.Write} {
			sum[d].IOs += c.IOs
			sum[d].Bytes += c.Bytes
		}
	}
	for d, c := range sum {
		if c.IOs > 0 {
			dir := jobfile.DirNames[d]
			cells = append(cells, result.Cell{Job: "j", Dir: dir, Metric: "I/Os", Values: []float64{c.IOs}}, result.Cell{Job: "j", Dir: dir, Metric: "bytes", Values: []float64{c.Bytes}})
		}
	}
	return cells, nil
}

func add(rows []*Row, job string, cells []result.Cell, fio bool) []*Row {
	for _, c := range cells {
		i := slices.IndexFunc(rows, func(r *Row) bool { return r.Job == job && r.Dir == c.Dir && r.Metric == c.Metric })
		if i < 0 {
			i = len(rows)
			rows = append(rows, &Row{Job: job, Dir: c.Dir, Metric: c.Metric})
		}
		if fio {
			rows[i].Fio = append(rows[i].Fio, c.Values...)
		} else {
			rows[i].Ours = append(rows[i].Ours, c.Values...)
		}
	}
	return rows
}

// exact reports whether the figure is a count.
func (r *Row) exact() bool { return r.Metric == "bytes" || r.Metric == "I/Os" }

func (r *Row) judge() {
	c := stat.Compare(r.Fio, r.Ours)
	r.P = -1
	if c.Enough {
		r.P = c.P
	}
	for _, v := range r.Fio {
		r.Noise = max(r.Noise, math.Abs(v-c.A.Median)/c.A.Median)
	}
	r.Off = (c.B.Median - c.A.Median) / c.A.Median
	if r.exact() {
		r.Agree = slices.Min(r.Fio) == slices.Max(r.Fio) && slices.Equal(r.Fio, r.Ours)
		return
	}
	r.Agree = math.Abs(r.Off) <= max(r.Noise, tolerance) || c.Enough && !c.Differs
}

func show(rows []*Row, delay time.Duration) error {
	t := &report.Table{Title: "vmdisk bench against fio, operations of " + delay.String(), Columns: []report.Column{{Name: "job"}, {Name: "direction"}, {Name: "figure"}, {Name: "fio", Digits: 2}, {Name: "vmdisk", Digits: 2},
		{Name: "off", Unit: "%", Digits: 2}, {Name: "fio's noise", Unit: "%", Digits: 2}, {Name: "p", Digits: 3}, {Name: "agree"}},
		Notes: []string{fmt.Sprintf("medians; latencies in µs, bw in MiB/s; they agree if vmdisk's median is no further from fio's than a round of fio's own (or %.0f %%), or the Mann-Whitney test sees no difference; counts must be equal", tolerance*100)}}
	for _, r := range rows {
		div := 1.0
		switch {
		case r.Metric == "bw":
			div = 1 << 20
		case strings.HasPrefix(r.Metric, "lat"):
			div = 1e3
		}
		word := "NO"
		if r.Agree {
			word = "yes"
		}
		var p any
		if r.P >= 0 {
			p = r.P
		}
		t.Add(r.Job, r.Dir, r.Metric, stat.Summarize(r.Fio).Median/div, stat.Summarize(r.Ours).Median/div, r.Off*100, r.Noise*100, p, word)
	}
	if err := report.TextItem(os.Stdout, t); err != nil {
		return err
	}
	_, err := fmt.Println(verdict(rows))
	return err
}
