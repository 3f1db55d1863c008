// Command agree runs a set of jobs with fio and with vmdisk bench in turn, and says
// for each job and figure whether the two agree within the noise that fio shows
// against itself. The served jobs run on a served disk whose operations take a fixed
// time, the buffered ones through the page cache of one file. I/Os and bytes of each
// direction must be equal to the digit where the clock does not end the job, also
// where they are drawn: the draws are fio's own.
//
//	go run ./bench/agree [-on served|file|both] [-rounds 5] [-run TEXT] [-delay 10ms] [-dir DIR] [-markdown] [-vmdisk PATH] [-json FILE]
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

type settings struct {
	on, run, vmdisk, dir, json string
	rounds                     int
	delay                      time.Duration
	markdown                   bool
}

func main() {
	var s settings
	flag.StringVar(&s.on, "on", "both", "served (a disk of fixed delay), file (the page cache of one file) or both")
	flag.StringVar(&s.run, "run", "", "only the jobs whose names have this text in them")
	flag.IntVar(&s.rounds, "rounds", 5, "rounds of each job")
	flag.DurationVar(&s.delay, "delay", 10*time.Millisecond, "time of each operation of the served disk; more where the machine is busy")
	flag.StringVar(&s.vmdisk, "vmdisk", "", "the vmdisk to measure (default: built from the sources)")
	flag.StringVar(&s.dir, "dir", "", "folder for the file of the buffered jobs, which wants 256 MiB of a real disk (default: that of temporary files)")
	flag.StringVar(&s.json, "json", "", "write all figures to this file")
	flag.BoolVar(&s.markdown, "markdown", false, "print the tables of docs/benchmarking.md")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := s.perform(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "agree:", err)
		stop()
		os.Exit(1)
	}
}

func (s *settings) perform(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp(s.dir, "agree")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &both{bin: s.vmdisk, dir: dir, rounds: s.rounds}
	if b.bin == "" {
		b.bin = filepath.Join(dir, "vmdisk")
		if text, err := exec.CommandContext(ctx, "go", "build", "-o", b.bin, "./cmd/vmdisk").CombinedOutput(); err != nil {
			return fmt.Errorf("build vmdisk: %w\n%s", err, text)
		}
	}
	if b.bin, err = filepath.Abs(b.bin); err != nil {
		return err
	}
	var all []*Row
	for _, set := range []struct {
		name, title string
		run         func(context.Context) ([]*Row, error)
	}{
		{"served", fmt.Sprintf("operations of %v", s.delay), func(ctx context.Context) ([]*Row, error) { return b.served(ctx, chosen(served, s.run), s.delay) }},
		{"file", "one file, through the page cache", func(ctx context.Context) ([]*Row, error) { return b.buffered(ctx, chosen(buffered, s.run)) }},
	} {
		if s.on != "both" && s.on != set.name {
			continue
		}
		rows, err := set.run(ctx)
		if err != nil {
			return err
		}
		all = append(all, rows...)
		if err := s.print(rows, set.title); err != nil {
			return err
		}
	}
	return s.save(all)
}

func (s *settings) print(rows []*Row, title string) error {
	if s.markdown {
		return markdown(os.Stdout, rows, s.rounds, title)
	}
	return show(rows, title)
}

func (s *settings) save(rows []*Row) error {
	if s.json == "" {
		return nil
	}
	b, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(s.json, b, 0o644)
}

// chosen are the jobs with text in their names.
func chosen(list []job, text string) (out []job) {
	for _, j := range list {
		if strings.Contains(j.name, text) {
			out = append(out, j)
		}
	}
	return out
}
