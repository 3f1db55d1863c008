package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vmdisk/vmdisk/bench"
	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/bench/result"
	"github.com/vmdisk/vmdisk/diskurl"
	"github.com/vmdisk/vmdisk/lab/agent"
	"github.com/vmdisk/vmdisk/report"
)

// benchFlags are the flags of bench that are no fio options.
type benchFlags struct {
	diskFlags
	request  bench.Request
	disk     string
	output   string
	formats  []string
	dryRun   bool
	minimal  bool
	eta      string
	plots    string
	logDir   string
	progress *choice
}

var benchFormats = []string{"normal", "json", "json+", "terse", "html"}

func newBench() *cobra.Command {
	var b benchFlags
	c := &cobra.Command{
		Use:   "bench [JOBFILE...] [--OPTION[=VALUE]...]",
		Short: "Run fio job files against a disk and report like fio",
		Long: `Run fio job files against a disk and report like fio, and better.

Job files are fio's, and so is the command line: --name=JOB begins a job, and any
fio option may follow, such as --rw=randread --bs=4k --iodepth=32. Flags listed
below are vmdisk's own. With --disk all jobs work on that disk, whatever file names
they have; without it they work on the files and devices they name.

A job that writes to a device which is mounted or otherwise in use is refused.`,
		Example: `  vmdisk bench iometer.fio --disk nbd://localhost/disk --set load=light
  vmdisk bench --disk null:100G --name=n --rw=randread --bs=4k --iodepth=32
  vmdisk bench job.fio --repeat 6 --output-format json --output a.json
  vmdisk bench compare a.json b.json`,
		// fio's options are not known to the flag parser; split tells them apart.
		DisableFlagParsing: true,
		RunE: func(c *cobra.Command, argv []string) error {
			return b.run(c, argv)
		},
	}
	b.register(c)
	c.AddCommand(newBenchCompare())
	return c
}

func (b *benchFlags) register(c *cobra.Command) {
	b.diskFlags.registerBut(c, "server-timeout") // fio's --timeout is the runtime
	f := c.Flags()
	f.StringVar(&b.disk, "disk", "", "run all jobs on the disk at this URL")
	f.StringArrayVar(&b.request.Set, "set", nil, "OPTION=VALUE that wins over the jobs' own; load=linear|very-light|light|moderate|heavy sets IOMeter's depths; repeatable")
	f.StringArrayVar(&b.request.Sections, "section", nil, "run the jobs of this name only; repeatable")
	f.BoolVar(&b.request.Strict, "strict-fio", false, "read job files exactly as fio does, traps included")
	f.BoolVar(&b.request.Force, "force", false, "write to devices that are in use")
	f.BoolVar(&b.request.ReadOnly, "readonly", false, "refuse jobs that write")
	f.IntVar(&b.request.Repeat, "repeat", 1, "run everything N times, job files in random order, and report medians")
	f.StringVar(&b.output, "output", "", "write the report to this file")
	f.StringSliceVar(&b.formats, "output-format", []string{"normal"}, "normal, json, json+, terse or html; several by commas")
	f.BoolVar(&b.minimal, "minimal", false, "the same as --output-format terse")
	f.StringVar(&b.plots, "plots", "", "draw bandwidth, IOPS and latency as PNG and SVG into this folder")
	f.StringVar(&b.logDir, "log-dir", ".", "write logs that have no absolute name into this folder")
	f.BoolVar(&b.dryRun, "dry-run", false, "print the resolved jobs and run nothing")
	f.BoolVar(&b.dryRun, "parse-only", false, "the same, as fio calls it")
	f.StringVar(&b.eta, "eta", "auto", "auto, always or never: fio's name for --progress auto, bar and none")
	b.progress = newChoice("auto", "auto", "bar", "json", "none")
	f.Var(b.progress, "progress", "progress on stderr")
}

// split tells vmdisk's flags from fio's options and job files.
func (b *benchFlags) split(f *pflag.FlagSet, argv []string) (own, fio, files []string) {
	for i := 0; i < len(argv); i++ {
		a := argv[i]
		takes := func(wants bool) bool {
			return wants && !strings.Contains(a, "=") && i+1 < len(argv) && !strings.HasPrefix(argv[i+1], "--")
		}
		list := &fio
		var wants bool
		switch name, _, _ := strings.Cut(strings.TrimPrefix(a, "--"), "="); {
		case a == "--":
			files = append(files, argv[i+1:]...)
			return own, fio, files
		case !strings.HasPrefix(a, "-") || a == "-":
			files = append(files, a)
			continue
		case !strings.HasPrefix(a, "--"):
			list, wants = &own, len(a) == 2 && !isSwitch(f.ShorthandLookup(a[1:]))
		case f.Lookup(name) != nil:
			list, wants = &own, !isSwitch(f.Lookup(name))
		default:
			wants = jobfile.TakesValue(name)
		}
		*list = append(*list, a)
		if takes(wants) {
			i++
			*list = append(*list, argv[i])
		}
	}
	return own, fio, files
}

func isSwitch(f *pflag.Flag) bool { return f == nil || f.NoOptDefVal != "" }

func (b *benchFlags) run(c *cobra.Command, argv []string) error {
	own, fio, files := b.split(c.Flags(), argv)
	if err := c.Flags().Parse(own); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return c.Help()
		}
		return usage(err)
	}
	if help, _ := c.Flags().GetBool("help"); help {
		return c.Help()
	}
	if err := b.check(files, fio); err != nil {
		return err
	}
	b.request.Files, b.request.Args, b.request.Stdin = files, fio, c.InOrStdin()
	plan, err := bench.Plan(&b.request)
	if err != nil {
		return usage(err)
	}
	for _, n := range plan.Notes {
		printNote(c, n)
	}
	if b.dryRun {
		return describeJobs(c.OutOrStdout(), plan)
	}
	return b.perform(c, plan)
}

func printNote(c *cobra.Command, n jobfile.Note) {
	kind := "note"
	if n.Warning {
		kind = "warning"
	}
	fmt.Fprintf(c.ErrOrStderr(), "vmdisk: bench: %s: %s\n", kind, n)
}

func (b *benchFlags) check(files, fio []string) error {
	if len(files)+len(fio) == 0 {
		return usagef("want a JOBFILE or --name=JOB with options; see `vmdisk bench --help`")
	}
	switch b.eta {
	case "auto":
	case "always":
		b.progress.value = "bar"
	case "never":
		b.progress.value = "none"
	default:
		return usagef("--eta %q: want auto, always or never", b.eta)
	}
	if b.minimal {
		b.formats = []string{"terse"}
	}
	for _, f := range b.formats {
		if !slices.Contains(benchFormats, f) {
			return usagef("--output-format %q: want one of %s", f, strings.Join(benchFormats, ", "))
		}
	}
	if b.request.Repeat < 1 {
		return usagef("--repeat %d: want 1 or more", b.request.Repeat)
	}
	b.request.Target = b.disk
	b.request.Version = "vmdisk-" + buildVersion().Version
	b.request.Open = agent.Opener{URL: b.disk, Options: b.opening(false)}.Open
	if b.disk == "" {
		return nil
	}
	u, err := diskurl.Parse(b.disk)
	if err != nil {
		return usage(err)
	}
	b.request.Local, b.request.LocalPath = u.Local(), u.Path()
	return nil
}

func (b *benchFlags) perform(c *cobra.Command, plan *jobfile.Plan) (err error) {
	// What cannot be written is better known before the run than after it.
	w, closeOutput, err := b.outputs(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeOutput()) }()
	if slices.Contains(b.formats, "normal") && b.output == "" {
		if err := result.Header(w, b.request.Version, plan.Jobs); err != nil {
			return err
		}
	}
	p := newBenchProgress(c.ErrOrStderr(), b.progress.value, plan)
	b.request.Progress = p.show
	r, err := bench.Run(c.Context(), &b.request)
	p.end()
	if r == nil {
		return err
	}
	for _, n := range r.Notes {
		if n.Found {
			printNote(c, n)
		}
	}
	err = errors.Join(err, b.report(w, r), r.Failed())
	if err == nil && c.Context().Err() != nil {
		err = fmt.Errorf("the report covers what was done until then: %w", context.Canceled)
	}
	return err
}

// outputs opens the report's file and makes the folders of logs and plots.
func (b *benchFlags) outputs(c *cobra.Command) (io.Writer, func() error, error) {
	for _, dir := range []string{b.logDir, b.plots} {
		if dir == "" {
			continue
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, nil, err
		}
	}
	if b.output == "" {
		return c.OutOrStdout(), func() error { return nil }, nil
	}
	f, err := os.Create(b.output)
	if err != nil {
		return nil, nil, err
	}
	return f, f.Close, nil
}

func (b *benchFlags) report(w io.Writer, r *result.Run) error {
	for _, format := range b.formats {
		if err := write(w, format, r); err != nil {
			return err
		}
	}
	if _, err := r.WriteLogs(b.logDir); err != nil || b.plots == "" {
		return err
	}
	_, err := r.WritePlots(b.plots)
	return err
}

func write(w io.Writer, format string, r *result.Run) error {
	switch format {
	case "json", "json+":
		return r.JSON(w, format == "json+")
	case "terse":
		return r.Terse(w)
	case "html":
		return r.HTML(w)
	}
	if err := r.Normal(w); err != nil || len(r.Samples) == 0 {
		return err
	}
	return report.TextItem(w, result.SampleTable(r.Samples))
}

// describeJobs prints the resolved jobs.
func describeJobs(w io.Writer, plan *jobfile.Plan) error {
	for _, j := range plan.Jobs {
		if _, err := fmt.Fprintf(w, "[%s] clone %d, job %d of %d (%s)\n", j.Name, j.Clone, j.Number, len(plan.Jobs), j.Pos); err != nil {
			return err
		}
		for _, kv := range j.Describe() {
			if _, err := fmt.Fprintf(w, "  %s=%s\n", kv.Key, kv.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

func newBenchCompare() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "compare A.json B.json",
		Short: "Say which figures of two benchmarks differ by more than chance",
		Long: `Compare two benchmarks cell by cell (job, direction, figure) with the Mann-Whitney
U test. A and B are JSON outputs of vmdisk bench or of fio; several runs of one side
are a run with --repeat, files joined by commas, or a folder of *.json.`,
		Args: args(2, 2, "A.json and B.json"),
		RunE: func(c *cobra.Command, a []string) error {
			first, err := bench.Load(a[0])
			if err != nil {
				return err
			}
			second, err := bench.Load(a[1])
			if err != nil {
				return err
			}
			list := bench.Compare(first, second)
			if asJSON {
				return writeJSON(c.OutOrStdout(), list)
			}
			return report.TextItem(c.OutOrStdout(), bench.CompareTable(list))
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
