package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/bench"
	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/bench/result"
	"github.com/vmdisk/vmdisk/report"
)

func (b *benchFlags) perform(c *cobra.Command, plan *jobfile.Plan) error {
	// What cannot be written is better known before the run than after it.
	if err := b.checkOutputs(plan); err != nil {
		return err
	}
	toScreen := b.output == "" || slices.Contains(b.formats, "html")
	if slices.Contains(b.formats, "normal") && toScreen {
		if err := result.Header(c.OutOrStdout(), b.request.Version, plan.Jobs); err != nil {
			return err
		}
	}
	p := newBenchProgress(c.ErrOrStderr(), b.progress.value, plan)
	p.newline, p.interval = b.newline, b.interval
	b.request.Progress = p.show
	ctx, pulled := b.armed(c.Context())
	r, err := bench.Run(ctx, &b.request)
	p.end()
	err = errors.Join(err, pulled(c.ErrOrStderr()))
	if r == nil {
		return err
	}
	for _, n := range r.Notes {
		if n.Found {
			printNote(c, n)
		}
	}
	failed := r.Failed()
	if (err != nil || failed != nil) && idle(r) {
		return errors.Join(err, failed) // nothing was done that a report could be of
	}
	err = errors.Join(err, b.report(c, r), failed)
	switch {
	case err == nil && c.Context().Err() != nil:
		err = fmt.Errorf("the report covers what was done until then: %w", context.Canceled)
	case errors.Is(context.Cause(ctx), errTriggered):
		fmt.Fprintln(c.ErrOrStderr(), "vmdisk: bench: note: a trigger ended the jobs; the report covers what was done until then")
	}
	return err
}

// idle reports whether no job did any I/O.
func idle(r *result.Run) bool {
	return !slices.ContainsFunc(r.Jobs, func(j *result.Job) bool { return j.Dirs[0].IOs+j.Dirs[1].IOs+j.Dirs[2].IOs > 0 })
}

// checkOutputs makes the folders of logs and plots, and opens every file that will be
// written without changing it: a report of last week stays until there is a new one.
func (b *benchFlags) checkOutputs(plan *jobfile.Plan) error {
	for _, dir := range []string{b.logDir, b.plots} {
		if dir == "" {
			continue
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	var names []string
	if b.output != "" {
		names = append(names, b.output)
	}
	for _, j := range plan.Jobs {
		names = append(names, result.LogNames(b.logDir, j)...)
	}
	if b.bandwidthLog {
		for d := range jobfile.Dirs {
			names = append(names, result.BandwidthLog(b.logDir, d))
		}
	}
	for _, name := range names {
		if err := writable(name); err != nil {
			return err
		}
	}
	return nil
}

// writable opens a file for writing and leaves it as it was, or removes what it had to make.
func writable(name string) error {
	_, err := os.Lstat(name)
	fresh := errors.Is(err, os.ErrNotExist)
	if st, err := os.Stat(name); err == nil && !st.Mode().IsRegular() && !st.IsDir() {
		return nil // a pipe or a terminal: to open it would be to use it
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	err = f.Close()
	if fresh {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// report writes the formats. A page of HTML has its file for itself: nothing can
// stand behind its end, so what else was asked for goes to standard output.
func (b *benchFlags) report(c *cobra.Command, r *result.Run) error {
	var file, screen bytes.Buffer
	page := slices.Contains(b.formats, "html")
	for _, format := range b.formats {
		w := &file
		if b.output == "" || page && format != "html" {
			w = &screen
		}
		if err := b.write(w, format, r); err != nil {
			return err
		}
	}
	if b.output != "" {
		if err := os.WriteFile(b.output, file.Bytes(), 0o644); err != nil {
			return err
		}
	}
	if _, err := c.OutOrStdout().Write(screen.Bytes()); err != nil {
		return err
	}
	return b.logs(r)
}

func (b *benchFlags) logs(r *result.Run) error {
	if _, err := r.WriteLogs(b.logDir); err != nil {
		return err
	}
	if b.bandwidthLog {
		if err := r.WriteBandwidth(b.logDir); err != nil {
			return err
		}
	}
	if b.plots == "" {
		return nil
	}
	_, err := r.WritePlots(b.plots)
	return err
}

func (b *benchFlags) write(w io.Writer, format string, r *result.Run) error {
	switch format {
	case "json", "json+":
		return r.JSON(w, format == "json+")
	case "terse":
		return r.TerseVersion(w, b.terseVersion)
	case "html":
		return r.HTML(w)
	}
	if err := r.Normal(w); err != nil || len(r.Samples) == 0 {
		return err
	}
	return report.TextItem(w, result.SampleTable(r.Samples))
}
