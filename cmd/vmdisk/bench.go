package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vmdisk/vmdisk/bench"
	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/diskurl"
	"github.com/vmdisk/vmdisk/lab/agent"
	"github.com/vmdisk/vmdisk/report"
)

// benchFlags are the flags of bench that are no fio options.
type benchFlags struct {
	diskFlags
	fioFlags
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
	b.fioFlags.register(f)
	b.progress = newChoice("auto", "auto", "bar", "json", "none")
	f.Var(b.progress, "progress", "progress on stderr")
}

// split tells vmdisk's flags from fio's options and job files.
func (b *benchFlags) split(f *pflag.FlagSet, argv []string) (own, fio, files []string) {
	for i := 0; i < len(argv); i++ {
		a := longForm(f, argv[i])
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
	if done, err := b.asked(c.OutOrStdout()); done {
		return err
	}
	if err := b.check(c, files, fio); err != nil {
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
	if err := b.fatal(plan); err != nil {
		return err
	}
	if b.showCmd {
		text, err := bench.CommandLine(&b.request)
		if err == nil {
			_, err = fmt.Fprintf(c.OutOrStdout(), "vmdisk bench %s\n", text)
		}
		return err
	}
	if b.dryRun {
		return describeJobs(c.OutOrStdout(), plan)
	}
	return b.perform(c, plan)
}

// fatal makes the first warning an error where --warnings-fatal asks for that.
func (b *benchFlags) fatal(plan *jobfile.Plan) error {
	i := slices.IndexFunc(plan.Notes, func(n jobfile.Note) bool { return n.Warning })
	if !b.warningsFatal || i < 0 {
		return nil
	}
	return usagef("%s (--warnings-fatal)", plan.Notes[i])
}

func printNote(c *cobra.Command, n jobfile.Note) {
	kind := "note"
	if n.Warning {
		kind = "warning"
	}
	fmt.Fprintf(c.ErrOrStderr(), "vmdisk: bench: %s: %s\n", kind, n)
}

func (b *benchFlags) check(c *cobra.Command, files, fio []string) error {
	if err := b.fioFlags.check(c); err != nil {
		return err
	}
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
	if b.appendTerse && !slices.Contains(b.formats, "terse") {
		b.formats = append(b.formats, "terse")
	}
	for _, f := range b.formats {
		if !slices.Contains(benchFormats, f) {
			return usagef("--output-format %q: want one of %s", f, strings.Join(benchFormats, ", "))
		}
	}
	if slices.Contains(b.formats, "html") && len(b.formats) > 1 && b.output == "" {
		return usagef("--output-format %s: html with other formats needs --output, which then holds the page alone", strings.Join(b.formats, ","))
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
