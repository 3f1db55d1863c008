package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/bench"
	"github.com/vmdisk/vmdisk/bench/gen"
	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/bench/result"
)

// both runs jobs with both programs.
type both struct {
	bin, dir string
	rounds   int
}

// command is one program's arguments for a job; out is the file for its JSON.
type command func(fio bool, j *job, out string) []string

// served runs jobs on a disk in memory behind a server that delays each operation.
func (b *both) served(ctx context.Context, list []job, delay time.Duration) (rows []*Row, err error) {
	uri, stop, err := b.serve(ctx, delay)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	return b.measure(ctx, list, defaultTolerance, nil, func(fio bool, j *job, out string) []string {
		common := append([]string{"--name=j", "--ioengine=nbd", "--output-format=json", "--output=" + out}, strings.Fields(j.options)...)
		if fio {
			return append(common, "--uri="+uri)
		}
		return append([]string{"bench", "--disk", uri, "--progress=none"}, common...)
	})
}

// buffered runs jobs on one file that both programs find as the other left it, but
// for its pages in memory: dirty ones are written back before each run.
func (b *both) buffered(ctx context.Context, list []job) ([]*Row, error) {
	file := filepath.Join(b.dir, "file")
	if err := makeFile(file); err != nil {
		return nil, err
	}
	before := func(j *job) error { return settle(file, j.warm) }
	return b.measure(ctx, list, fileTolerance, before, func(fio bool, j *job, out string) []string {
		common := append([]string{"--name=j", "--filename=" + file, "--filesize=256m", "--output-format=json", "--output=" + out}, strings.Fields(j.options)...)
		if fio {
			// Jobs are threads here, and processes share no page tables of the file.
			return append(common, "--thread")
		}
		return append([]string{"bench", "--progress=none"}, common...)
	})
}

func makeFile(name string) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := make([]byte, 1<<20)
	g := gen.NewFiller(&jobfile.Job{Scramble: true}, 1)
	g.Init(buf)
	for off := int64(0); off < fileSize; off += int64(len(buf)) {
		g.Next(buf, off, off)
		if _, err := f.WriteAt(buf, off); err != nil {
			return err
		}
	}
	return f.Sync()
}

// settle writes back what the run before left, and reads the file in where the job wants it warm.
func settle(name string, warm bool) (err error) {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Sync(); err != nil {
		return err
	}
	if warm {
		_, err = io.Copy(io.Discard, struct{ io.Reader }{f})
		return err
	}
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// serve starts the delayed disk.
func (b *both) serve(ctx context.Context, delay time.Duration) (uri string, stop func() error, err error) {
	sock := filepath.Join(b.dir, "sock")
	cmd := exec.CommandContext(ctx, b.bin, "serve", "mem:64M", "--filter", fmt.Sprintf("delay:read=%v,write=%v", delay, delay), "--nbd", "unix:"+sock)
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

// measure runs each job in rounds; who is first changes from round to round.
func (b *both) measure(ctx context.Context, list []job, tolerance float64, before func(*job) error, args command) ([]*Row, error) {
	var rows []*Row
	for i := range list {
		j := &list[i]
		for round := range b.rounds {
			order := []bool{true, false} // fio first
			if round%2 == 1 {
				slices.Reverse(order)
			}
			for _, fio := range order {
				if before != nil {
					if err := before(j); err != nil {
						return nil, err
					}
				}
				cells, err := b.one(ctx, fio, j, args)
				if err != nil {
					return nil, err
				}
				rows = add(rows, j, cells, fio)
			}
		}
		fmt.Fprintf(os.Stderr, "%s done\n", j.name)
	}
	for _, r := range rows {
		r.judge(tolerance)
	}
	return rows, nil
}

func (b *both) one(ctx context.Context, fio bool, j *job, args command) ([]result.Cell, error) {
	out, name := filepath.Join(b.dir, "out.json"), b.bin
	if fio {
		name = "fio"
	}
	cmd := exec.CommandContext(ctx, name, args(fio, j, out)...)
	cmd.Dir = b.dir
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, text)
	}
	return loadAll(out)
}

// loadAll reads the figures, the longest latencies and the exact counts.
func loadAll(file string) ([]result.Cell, error) {
	cells, err := bench.Load(file)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	type figures struct {
		IOs   float64 `json:"total_ios"`
		Bytes float64 `json:"io_bytes"`
		Clat  struct {
			Max float64 `json:"max"`
		} `json:"clat_ns"`
	}
	var r struct {
		Jobs []struct{ Read, Write figures } `json:"jobs"`
	}
	if err := json.Unmarshal(data[bytes.IndexByte(data, '{'):], &r); err != nil {
		return nil, err
	}
	var sum [2]figures
	for _, j := range r.Jobs {
		for d, c := range [...]figures{j.Read, j.Write} {
			sum[d].IOs += c.IOs
			sum[d].Bytes += c.Bytes
			sum[d].Clat.Max = max(sum[d].Clat.Max, c.Clat.Max)
		}
	}
	for d, c := range sum {
		if c.IOs == 0 {
			continue
		}
		for metric, v := range map[string]float64{"I/Os": c.IOs, "bytes": c.Bytes, "lat_max": c.Clat.Max} {
			cells = append(cells, result.Cell{Job: "j", Dir: jobfile.DirNames[d], Metric: metric, Values: []float64{v}})
		}
	}
	return cells, nil
}
