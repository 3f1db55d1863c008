package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/lab"
	"github.com/vmdisk/vmdisk/report"
)

func newLab() *cobra.Command {
	c := &cobra.Command{
		Use:   "lab",
		Short: "Run experiments",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newLabList(), newLabRun(), newLabAgent())
	return c
}

func newLabList() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the experiments and their parameters",
		Args:  args(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			if asJSON {
				return writeJSON(c.OutOrStdout(), labList())
			}
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, e := range lab.Experiments() {
				fmt.Fprintf(w, "%s\t\t%s\n", e.Name, e.Summary)
				for _, p := range e.Params {
					fmt.Fprintf(w, "  %s\t%s\t%s\n", p.Name, p.Default, p.Help)
				}
			}
			return w.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
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
		x := labExperiment{Name: e.Name, Summary: e.Summary}
		for _, p := range e.Params {
			x.Params = append(x.Params, labParam(p))
		}
		list = append(list, x)
	}
	return list
}

func newLabRun() *cobra.Command {
	var out string
	var set []string
	var asJSON, quiet bool
	c := &cobra.Command{
		Use:   "run NAME",
		Short: "Run an experiment",
		Long: `Run an experiment and report it. The folder of --out receives results.json
(every number), report.html (one page that needs no network), and each chart as
SVG and PNG.`,
		Example: `  vmdisk lab run fast-zero --out out/fast-zero
  vmdisk lab run fast-zero --set write-delay=40ms --set zero-delay=5ms`,
		Args: args(1, 1, "the name of an experiment"),
		RunE: func(c *cobra.Command, names []string) error {
			e, err := lab.Find(names[0])
			if err != nil {
				return usage(err)
			}
			o := lab.Options{Out: out, Set: map[string]string{}}
			for _, s := range set {
				name, value, ok := strings.Cut(s, "=")
				if !ok {
					return usagef("--set %s: want NAME=VALUE", s)
				}
				o.Set[name] = value
			}
			if o.Out == "" {
				o.Out = filepath.Join("out", e.Name)
			}
			if !quiet {
				o.Log = c.ErrOrStderr()
			}
			doc, err := lab.Run(c.Context(), e, o)
			if set := (*lab.SetError)(nil); errors.As(err, &set) {
				return usage(err)
			}
			if err != nil {
				return err
			}
			if asJSON {
				text, err := os.ReadFile(filepath.Join(o.Out, "results.json"))
				if err == nil {
					_, err = c.OutOrStdout().Write(text)
				}
				return err
			}
			if err := report.Text(c.OutOrStdout(), doc); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "\nresults.json, report.html and charts are in %s\n", o.Out)
			return err
		},
	}
	c.Flags().StringVar(&out, "out", "", "`folder` for the results (default out/NAME)")
	c.Flags().StringArrayVar(&set, "set", nil, "change a `parameter=value`; see vmdisk lab list; repeatable")
	c.Flags().BoolVar(&asJSON, "json", false, "print results.json instead of tables")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "do not tell each step")
	return c
}
