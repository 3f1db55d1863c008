package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/vmdisk/vmdisk/interop/peer"
	"github.com/vmdisk/vmdisk/report"
)

type options struct {
	run, dir, json, bin string
	rounds              int
	short, list         bool
	runtime             time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.run, "run", "", "only the cases whose name matches this regular expression")
	flag.StringVar(&o.dir, "dir", os.TempDir(), "folder for images and sockets; its file system is what is measured")
	flag.StringVar(&o.json, "json", "", "write all samples to this file")
	flag.StringVar(&o.bin, "bin", "", "the vmdisk to measure (default: built from the sources)")
	flag.IntVar(&o.rounds, "rounds", 0, "rounds of each case (default 5, with -short 3)")
	flag.BoolVar(&o.short, "short", false, "the short form: the main cases, a few minutes")
	flag.BoolVar(&o.list, "list", false, "list the cases and end")
	flag.DurationVar(&o.runtime, "runtime", 2*time.Second, "length of one run of a load")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "versus: unexpected argument %q; see -help\n", flag.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := compare(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "versus:", err)
		stop()
		os.Exit(1)
	}
}

func compare(ctx context.Context, o options) (err error) {
	chosen, err := choose(o)
	if err != nil {
		return err
	}
	if o.list {
		for _, c := range chosen {
			fmt.Printf("%-28s %s\n", c.Name, c.What)
		}
		return nil
	}
	if err := peer.Need("fio", "nbdkit", "qemu-nbd", "qemu-img", "nbdcopy"); err != nil {
		return err
	}
	r, done, err := newRunner(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	facts := machine(o)
	for _, f := range facts {
		fmt.Printf("%-10s %s\n", f.Name, f.Value)
	}
	fmt.Println()
	var results []Result
	for _, c := range chosen {
		res := r.run(ctx, c)
		if ctx.Err() != nil {
			break
		}
		results = append(results, res)
		showItem(os.Stdout, table(res))
	}
	showItem(os.Stdout, summary(results))
	if o.json != "" {
		err = writeJSON(o.json, facts, results)
	}
	return errors.Join(err, ctx.Err(), failures(results))
}

func choose(o options) ([]Case, error) {
	re, err := regexp.Compile(o.run)
	if err != nil {
		return nil, fmt.Errorf("-run: %w", err)
	}
	var chosen []Case
	for _, c := range cases() {
		if re.MatchString(c.Name) && (c.Short || !o.short) {
			chosen = append(chosen, c)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("no case matches %q; -list shows them", o.run)
	}
	return chosen, nil
}

func newRunner(ctx context.Context, o options) (*runner, func() error, error) {
	dir, err := os.MkdirTemp(o.dir, "versus")
	if err != nil {
		return nil, nil, err
	}
	done := func() error { return os.RemoveAll(dir) }
	r := &runner{env: Env{Dir: dir, Bin: o.bin, Short: o.short, Runtime: o.runtime}, rounds: o.rounds, progress: os.Stderr}
	if st, err := os.Stderr.Stat(); err != nil || st.Mode()&os.ModeCharDevice == 0 {
		r.progress = discard{}
	}
	if r.rounds == 0 {
		r.rounds = 5
		if o.short {
			r.rounds = 3
		}
	}
	if r.env.Bin == "" {
		if r.env.Bin, err = peer.Build(ctx, "./cmd/vmdisk", dir); err != nil {
			return nil, nil, errors.Join(err, done())
		}
	}
	return r, done, nil
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// failures is an error if a case did not run.
func failures(results []Result) error {
	var failed []string
	for _, res := range results {
		if res.Err != "" {
			failed = append(failed, res.Case)
		}
	}
	if failed == nil {
		return nil
	}
	return fmt.Errorf("%d cases failed: %s", len(failed), strings.Join(failed, " "))
}

// machine describes what the figures were made on.
func machine(o options) []report.Fact {
	facts := []report.Fact{
		{Name: "machine", Value: fmt.Sprintf("%d CPUs, %s, %s", runtime.NumCPU(), cpuModel(), runtime.GOARCH)},
		{Name: "kernel", Value: firstLine("uname", "-r")},
		{Name: "files on", Value: fmt.Sprintf("%s (%s)", o.dir, firstLine("stat", "-f", "-c", "%T", o.dir))},
	}
	for _, p := range [][]string{{"fio", "--version"}, {"nbdkit", "--version"}, {"qemu-img", "--version"}, {"nbdcopy", "--version"}} {
		facts = append(facts, report.Fact{Name: p[0], Value: firstLine(p...)})
	}
	return facts
}

func firstLine(argv ...string) string {
	out, err := exec.Command(argv[0], argv[1:]...).Output()
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}

func cpuModel() string {
	info, err := os.ReadFile(filepath.Join("/proc", "cpuinfo"))
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
