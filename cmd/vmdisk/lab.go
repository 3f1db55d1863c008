package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/lab"
	"github.com/vmdisk/vmdisk/lab/outcome"
	"github.com/vmdisk/vmdisk/lab/spec"
	"github.com/vmdisk/vmdisk/report"
)

func newLab() *cobra.Command {
	c := &cobra.Command{
		Use:   "lab",
		Short: "Run experiments",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newLabList(), newLabRun(), newLabReport(), newLabCompare(), newLabAgent())
	return c
}

func newLabList() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list [NAME|FILE.yaml]",
		Short: "List the experiments, or the parameters of one",
		Args:  args(0, 1, "one experiment at most"),
		RunE: func(c *cobra.Command, names []string) error {
			if len(names) == 1 {
				return labShow(c, names[0], asJSON)
			}
			if asJSON {
				return writeJSON(c.OutOrStdout(), labList())
			}
			table := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, e := range lab.Experiments() {
				fmt.Fprintf(table, "%s\t%s\n", e.Name, cut(e.Summary, labListWidth-20))
			}
			return table.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// labListWidth is that of the lists of experiments, in characters.
const labListWidth = 100

// cut ends a text that is too long for its line.
func cut(s string, limit int) string {
	r := []rune(s)
	if len(r) <= limit {
		return s
	}
	return strings.TrimRight(string(r[:limit-1]), " ,;") + "…"
}

// labShow prints what --set can change of an experiment.
func labShow(c *cobra.Command, name string, asJSON bool) error {
	e, err := lab.Find(name)
	if err != nil {
		return labUsage(err)
	}
	w := c.OutOrStdout()
	if asJSON {
		return writeJSON(w, labDescribe(e))
	}
	fmt.Fprintf(w, "%s\n\n", text.WrapSoft(e.Name+": "+e.Summary, labListWidth))
	width := 0
	for _, p := range e.Params {
		width = max(width, len(p.Name))
	}
	for _, p := range e.Params {
		lines := strings.Split(text.WrapSoft(strings.ReplaceAll(p.Default, ",", ", ")+"  ("+p.Help+")", labListWidth-width-4), "\n")
		for i, line := range lines {
			head := p.Name
			if i > 0 {
				head = ""
			}
			fmt.Fprintf(w, "  %-*s  %s\n", width, head, strings.TrimRight(line, " "))
		}
	}
	return nil
}

type labParam struct {
	Name    string `json:"name"`
	Default string `json:"default"`
	Help    string `json:"help"`
}

type labExperiment struct {
	Name    string     `json:"name"`
	Summary string     `json:"summary"`
	Params  []labParam `json:"parameters"`
}

func labList() []labExperiment {
	var list []labExperiment
	for _, e := range lab.Experiments() {
		list = append(list, labDescribe(e))
	}
	return list
}

func labDescribe(e lab.Experiment) labExperiment {
	x := labExperiment{Name: e.Name, Summary: e.Summary}
	for _, p := range e.Params {
		x.Params = append(x.Params, labParam(p))
	}
	return x
}

// labRun are the flags of lab run.
type labRun struct {
	out, work             string
	set                   []string
	asJSON, quiet, dryRun bool
	progress              *choice
}

func newLabRun() *cobra.Command {
	l := labRun{progress: newProgressFlag()}
	c := &cobra.Command{
		Use:   "run NAME|FILE.yaml",
		Short: "Run an experiment",
		Long: `Run an experiment and report it: a study or a built-in experiment by its name (see
vmdisk lab list), or one that a YAML file describes. The folder of --out receives
results.json (every number), report.html (one page that needs no network), and each
chart as SVG and PNG.

An experiment of cells keeps each finished run. After Ctrl-C, or when a host went
down, the same command with the same --out goes on where it was. --dry-run shows what
would run, what this host cannot run and why, and how long it takes.`,
		Example: `  vmdisk lab run fast-zero --out out/fast-zero
  vmdisk lab run fast-zero --set write-delay=40ms --set zero-delay=5ms
  vmdisk lab run falcon-backing --dry-run
  vmdisk lab run falcon-backing --set disk=2G --set size=256m --set runtime=10 \
      --set client=host --set server=qemu-nbd
  vmdisk lab run my.yaml --set repeats=5 --out out/mine`,
		Args: args(1, 1, "the name of an experiment, or its file"),
		RunE: func(c *cobra.Command, names []string) error { return l.run(c, names[0]) },
	}
	f := c.Flags()
	f.StringVar(&l.out, "out", "", "`folder` for the results (default out/NAME)")
	f.StringVar(&l.work, "work", "", "`folder` for the disks of nodes (default work in the folder of --out)")
	f.StringArrayVar(&l.set, "set", nil, "change a `parameter=value`: see vmdisk lab list NAME; for experiments of cells also any axis and any fio option; repeatable")
	f.BoolVarP(&l.dryRun, "dry-run", "n", false, "show the plan and run nothing")
	f.BoolVar(&l.asJSON, "json", false, "print results.json instead of tables")
	f.BoolVarP(&l.quiet, "quiet", "q", false, "do not tell each step")
	f.Var(l.progress, "progress", "progress of a load on stderr; json: one line for each step on stdout")
	return c
}

func (l *labRun) run(c *cobra.Command, name string) error {
	e, err := lab.Find(name)
	if err != nil {
		return labUsage(err)
	}
	o, err := l.options(c, e)
	if err != nil {
		return err
	}
	doc, err := lab.Run(c.Context(), e, o)
	if err != nil {
		return labUsage(err)
	}
	switch {
	case l.dryRun:
		return report.Text(c.OutOrStdout(), doc)
	case l.asJSON:
		results, err := os.ReadFile(filepath.Join(o.Out, "results.json"))
		if err == nil {
			_, err = c.OutOrStdout().Write(results)
		}
		return err
	}
	if err := report.Text(c.OutOrStdout(), doc); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "\nresults.json, report.html and charts are in %s\n", o.Out)
	return err
}

func (l *labRun) options(c *cobra.Command, e lab.Experiment) (lab.Options, error) {
	o := lab.Options{Out: l.out, Work: l.work, DryRun: l.dryRun, Set: map[string]string{}, Version: buildVersion().Version}
	for _, s := range l.set {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			return o, usagef("--set %s: want NAME=VALUE", s)
		}
		o.Set[name] = value
	}
	if o.Out == "" {
		o.Out = filepath.Join("out", e.Name)
	}
	if !l.quiet {
		o.Log = c.ErrOrStderr()
	}
	l.tell(c, &o)
	return o, nil
}

// tell sets up the progress of an experiment of cells.
func (l *labRun) tell(c *cobra.Command, o *lab.Options) {
	switch mode := l.progress.value; {
	case mode == "json":
		w := json.NewEncoder(c.OutOrStdout())
		o.Event = func(e lab.Event) { _ = w.Encode(e) } // a closed pipe shows at the result
		o.Progress = func(p lab.Progress) { _ = w.Encode(p) }
	case mode == "bar" || mode == "auto" && !l.quiet && isTerminal(c.ErrOrStderr()):
		o.Progress = func(p lab.Progress) {
			line := "  " + p.Doing
			if p.Doing == "" {
				line = fmt.Sprintf("  %3.0f %%, %.0f IOPS, %.1f MiB/s", p.Share*100, p.IOPS, p.BW/(1<<20))
			}
			if p.Stalled > time.Second {
				line += fmt.Sprintf(", STALLED for %.0f s", p.Stalled.Seconds())
			}
			fmt.Fprintf(c.ErrOrStderr(), "\r%-70s\r", line)
		}
	}
}

// labUsage tells mistakes of whoever wrote an experiment or a --set from failures.
func labUsage(err error) error {
	var set *lab.SetError
	var written *spec.Error
	if errors.As(err, &set) || errors.As(err, &written) {
		return usage(err)
	}
	return err
}

func newLabReport() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "report DIR",
		Short: "Report the results of an experiment again",
		Long: `Make the report of an experiment of cells from its folder, finished or not: the page,
the charts and the tables are written anew from the runs that are there.`,
		Args: args(1, 1, "the folder of an experiment's results"),
		RunE: func(c *cobra.Command, dirs []string) error {
			doc, err := lab.Report(dirs[0])
			if err != nil {
				return err
			}
			if asJSON {
				return report.JSON(c.OutOrStdout(), doc)
			}
			return report.Text(c.OutOrStdout(), doc)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func newLabCompare() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "compare A B",
		Short: "Say which cells of two runs differ by more than chance",
		Long: `Compare the results in two folders cell by cell with the Mann-Whitney U test, such as
those before and after an upgrade. Exit status 1 if a cell of B is significantly worse.`,
		Args: args(2, 2, "two folders of results"),
		RunE: func(c *cobra.Command, dirs []string) error {
			doc, list, err := lab.Compare(dirs[0], dirs[1])
			if err != nil {
				return err
			}
			if asJSON {
				err = writeJSON(c.OutOrStdout(), list)
			} else {
				err = report.Text(c.OutOrStdout(), doc)
			}
			if err == nil && outcome.Worse(list) {
				err = fmt.Errorf("%s is significantly worse than %s", dirs[1], dirs[0])
			}
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
