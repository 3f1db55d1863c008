package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/diskurl"
	"github.com/vmdisk/vmdisk/report"
)

type infoResult struct {
	Disk   string `json:"disk"`
	Format string `json:"format"`
	// Probed: nobody named the format; it was told by the file's first bytes.
	Probed    bool           `json:"probed"`
	Size      int64          `json:"size"`
	Min       int64          `json:"min_io"`
	Preferred int64          `json:"preferred_io"`
	MaxIO     int64          `json:"max_io"`
	MaxZero   int64          `json:"max_zero"`
	MaxTrim   int64          `json:"max_trim"`
	TrimAlign int64          `json:"trim_align"`
	Volatile  bool           `json:"volatile"`
	MultiConn bool           `json:"multi_conn"`
	KnownZero bool           `json:"known_zero"`
	Zero      string         `json:"zero"`
	FastZero  string         `json:"fast_zero"`
	Trim      string         `json:"trim"`
	FUA       string         `json:"fua"`
	Cache     string         `json:"cache"`
	Maps      []disk.MapName `json:"maps"`
	ID        string         `json:"id"`
	Details   map[string]any `json:"details"`
	order     []string       // of Details
}

func newInfo() *cobra.Command {
	var d diskFlags
	var asJSON bool
	var probeZero string
	var list bool
	output := newOutputFlag()
	c := &cobra.Command{
		Use:   "info DISK | --list URL | --probe-zero PATH",
		Short: "Describe a disk, or how its storage zeroes",
		Long: `Describe a disk: size, limits and what it can do natively, by emulation or not at all.

This is the only command that tells an image's format by its first bytes. Of an image it opens
nothing that it names, such as a backing file, and shows the names.

--list URL shows the exports of an NBD server.

--probe-zero PATH tries each way of zeroing on the storage of PATH and shows which work and how
long each takes. It never changes content: for a file or directory it uses a new unnamed file
beside it, on a block device a range that reads as zeros already.`,
		Args: args(0, 1, "one DISK"),
		RunE: func(c *cobra.Command, a []string) error {
			if (len(a) == 1) == (probeZero != "") {
				return usagef("want either one DISK or --probe-zero PATH")
			}
			if probeZero != "" {
				return showZeroProbe(c.Context(), c.OutOrStdout(), probeZero, asJSON)
			}
			if list {
				return showExports(c.Context(), c.OutOrStdout(), a[0], d.options, asJSON)
			}
			r, err := inspect(c.Context(), a[0], d.opening(true))
			if err != nil {
				return err
			}
			if output.value != "" {
				return r.printQEMU(c.OutOrStdout(), a[0], output.value)
			}
			if asJSON {
				return writeJSON(c.OutOrStdout(), r)
			}
			return r.print(c.OutOrStdout())
		},
	}
	d.register(c)
	c.Flags().BoolVar(&list, "list", false, "show the exports of an NBD server")
	c.Flags().StringVar(&probeZero, "probe-zero", "", "show which ways of zeroing the storage of this path has")
	c.Flags().Var(output, "output", outputHelp)
	c.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return c
}

func inspect(ctx context.Context, rawURL string, o diskurl.Options) (infoResult, error) {
	r := infoResult{Format: "raw", Details: map[string]any{}}
	u, err := diskurl.Parse(rawURL)
	if err != nil {
		return r, err
	}
	if u.Local() && u.Formats == "" && o.Format == "" {
		if r.Format, err = diskurl.Probe(u.Path()); err != nil {
			return r, err
		}
		r.Probed, o.Format = true, diskurl.FormatRaw
		if diskurl.Built(r.Format) {
			o.Format = r.Format
		}
	} else if named, _, _ := strings.Cut(u.Formats, ":"); named != "" {
		r.Format = named
	} else if o.Format != "" {
		r.Format = o.Format
	}
	o.NoReferences = true
	d, err := diskurl.Open(ctx, rawURL, o)
	if err != nil {
		return r, err
	}
	r.fill(d)
	err = errors.Join(r.addDetails(ctx, d), d.Close())
	return r, err
}

func (r *infoResult) fill(d *disk.Disk) {
	in := d.Info()
	r.Disk, r.Size, r.ID = d.Name(), in.Size, in.ID
	r.Min, r.Preferred = max(in.Min, 1), in.Preferred
	r.MaxIO, r.MaxZero, r.MaxTrim, r.TrimAlign = in.MaxIO, in.MaxZero, in.MaxTrim, in.TrimAlign
	r.Volatile, r.MultiConn, r.KnownZero = in.Volatile, in.MultiConn, in.KnownZero
	r.Zero, r.FastZero, r.Trim = in.Zero.String(), in.FastZero.String(), in.Trim.String()
	r.FUA, r.Cache = in.FUA.String(), in.Cache.String()
	r.Maps = append([]disk.MapName{}, in.Maps...)
}

func (r *infoResult) addDetails(ctx context.Context, d *disk.Disk) error {
	i, ok := disk.As[disk.Inspector](d)
	if !ok {
		return nil
	}
	attrs, err := i.Inspect(ctx)
	for _, a := range attrs {
		r.Details[a.Name] = a.Value
		r.order = append(r.order, a.Name)
	}
	return err
}

func (r *infoResult) print(w io.Writer) error {
	var b strings.Builder
	line := func(name, format string, a ...any) {
		fmt.Fprintf(&b, "%-24s %s\n", name+":", printable(fmt.Sprintf(format, a...)))
	}
	line("disk", "%s", r.Disk)
	switch {
	case r.Probed && r.Format != diskurl.FormatRaw && diskurl.Built(r.Format):
		line("format", "%s, by the file's first bytes", r.Format)
	case r.Probed && r.Format != "raw":
		line("format", "%s, by the file's first bytes; what follows is the file itself, taken as raw", r.Format)
	default:
		line("format", "%s", r.Format)
	}
	line("size", "%s", sizeText(r.Size))
	line("traits", "%s", r.traits())
	line("I/O", "smallest %d, preferred %s, largest %s", r.Min, limit(r.Preferred, "unknown"), limit(r.MaxIO, "any"))
	line("zero", "%s, fast %s, largest %s", r.Zero, r.FastZero, limit(r.MaxZero, "any"))
	line("trim", "%s, largest %s", r.Trim, limit(r.MaxTrim, "any"))
	line("FUA", "%s", r.FUA)
	line("maps", "%s", names(r.Maps))
	for _, name := range r.order {
		line(name, "%s", detail(r.Details[name]))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// traits are what else users may count on.
func (r *infoResult) traits() string {
	var out []string
	for _, f := range []struct {
		on   bool
		text string
	}{{r.Volatile, "write cache"}, {r.MultiConn, "one flush covers all connections"}, {r.KnownZero, "known to be all zeros"}} {
		if f.on {
			out = append(out, f.text)
		}
	}
	if out == nil {
		return "none"
	}
	return strings.Join(out, ", ")
}

// detail is a value of an attribute in one line.
func detail(v any) string {
	if list, ok := v.([]string); ok {
		return strings.Join(list, ", ")
	}
	return fmt.Sprint(v)
}

func limit(n int64, none string) string {
	switch {
	case n == 0:
		return none
	case n >= 1<<60:
		return "any"
	}
	return diskurl.FormatSize(n)
}

func names(maps []disk.MapName) string {
	if len(maps) == 0 {
		return "none"
	}
	var parts []string
	for _, m := range maps {
		parts = append(parts, string(m))
	}
	return strings.Join(parts, ", ")
}

func showExports(ctx context.Context, w io.Writer, rawURL string, o diskurl.Options, asJSON bool) error {
	exports, err := diskurl.Exports(ctx, rawURL, o)
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(w, exports)
	}
	table := &report.Table{Columns: []report.Column{{Name: "export"}, {Name: "URL"}, {Name: "description"}}}
	for _, e := range exports {
		table.Add(strconv.Quote(e.Name), printable(e.URL), printable(e.Description))
	}
	return report.TextItem(w, table)
}

func showZeroProbe(ctx context.Context, w io.Writer, path string, asJSON bool) error {
	p, err := diskurl.ProbeZero(ctx, path)
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(w, p)
	}
	t := &report.Table{
		Title:   fmt.Sprintf("zeroing %s on %s (%s)", diskurl.FormatSize(p.Length), p.Path, p.Storage),
		Columns: []report.Column{{Name: "way"}, {Name: "result"}, {Name: "time", Unit: "us", Digits: 1}, {Name: "allocated after"}},
	}
	for _, r := range p.Rungs {
		row := []any{r.Rung, "works", r.Microseconds, nil}
		if !r.Works {
			row[1] = strings.TrimSpace(r.Errno + " " + r.Error)
		}
		if r.Allocated != nil {
			row[3] = *r.Allocated
		}
		t.Add(row...)
	}
	return report.TextItem(w, t)
}
