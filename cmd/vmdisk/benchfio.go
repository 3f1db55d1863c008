package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// fioFlags are the switches of fio's own command line, beside those that were vmdisk's
// anyway.
type fioFlags struct {
	terseVersion   int
	appendTerse    bool
	warningsFatal  bool
	showCmd        bool
	version        bool
	cmdHelp        string
	engHelp        string
	etaNewline     string
	etaInterval    string
	bandwidthLog   bool
	triggerFile    string
	triggerTimeout string
	trigger        string
	newline        time.Duration
	interval       time.Duration
	timeout        time.Duration
}

// fioNotes are switches whose absence changes no result: they are accepted, with the reason.
var fioNotes = map[string]string{
	"status-interval": "the report comes at the end; --progress json tells the state each half second",
	"alloc-size":      "memory is taken as it is needed",
	"max-jobs":        "there is room for 4096 jobs",
	"debug":           "--dry-run tells how a job file was read, the report what was done",
	"idle-prof":       "the load of the machine's CPUs is in the HTML page and the JSON at all times",
	"aux-path":        "nothing is written but reports and logs; --log-dir says where",
	"trigger-remote":  "there are no remote servers",
}

// fioRefused are switches that ask for another program's work.
var fioRefused = map[string]string{
	"server": "there is no server of jobs; run vmdisk bench on each host", "daemonize": "there is no server of jobs; run vmdisk bench on each host",
	"client": "there is no server of jobs; run vmdisk bench on each host", "remote-config": "there is no server of jobs; run vmdisk bench on each host",
	"merge-blktrace-only": "traces are not replayed", "inflate-log": "logs are written plain",
	"cpuclock-test": "the clock is CLOCK_MONOTONIC", "crctest": "checksums are not timed",
}

func (f *fioFlags) register(fs *pflag.FlagSet) {
	fs.IntVar(&f.terseVersion, "terse-version", 3, "2, 3, 4 or 5: the version of the terse format")
	fs.BoolVar(&f.appendTerse, "append-terse", false, "print the terse format as well")
	fs.BoolVar(&f.warningsFatal, "warnings-fatal", false, "a warning about a job file is an error")
	fs.BoolVar(&f.showCmd, "showcmd", false, "print job files as a command line and run nothing")
	fs.BoolVar(&f.version, "version", false, "print the version and run nothing")
	optional(fs, &f.cmdHelp, "cmdhelp", "all", "explain this job option, or list all, and run nothing")
	optional(fs, &f.engHelp, "enghelp", "all", "explain this ioengine, or list all, and run nothing")
	fs.StringVar(&f.etaNewline, "eta-newline", "", "begin a new line of progress each time that this long has passed (seconds, or 500ms)")
	fs.StringVar(&f.etaInterval, "eta-interval", "", "renew the line of progress this often (milliseconds, 500 or more)")
	fs.BoolVar(&f.bandwidthLog, "bandwidth-log", false, "write the bandwidth of all jobs together as agg-read_bw.log and so on into --log-dir")
	fs.StringVar(&f.triggerFile, "trigger-file", "", "end all jobs and run --trigger when this file appears, which is removed")
	fs.StringVar(&f.triggerTimeout, "trigger-timeout", "", "end all jobs and run --trigger after this long (seconds, or 5m)")
	fs.StringVar(&f.trigger, "trigger", "", "shell command that a trigger runs")
	for name, why := range fioNotes {
		fs.String(name, "", "accepted for fio's sake: "+why)
		fs.Lookup(name).Hidden = true
	}
	for name, why := range fioRefused {
		optional(fs, new(string), name, "1", "refused: "+why)
		fs.Lookup(name).Hidden = true
	}
}

// optional is a flag whose value may be left out.
func optional(fs *pflag.FlagSet, p *string, name, without, usage string) {
	fs.StringVar(p, name, "", usage)
	fs.Lookup(name).NoOptDefVal = without
}

// check reads the values and tells of switches that have no effect.
func (f *fioFlags) check(c *cobra.Command) error {
	var refused error
	c.Flags().Visit(func(g *pflag.Flag) {
		if why, ok := fioNotes[g.Name]; ok {
			fmt.Fprintf(c.ErrOrStderr(), "vmdisk: bench: note: --%s has no effect: %s\n", g.Name, why)
		}
		if why, ok := fioRefused[g.Name]; ok {
			refused = usagef("--%s is refused: %s", g.Name, why)
		}
	})
	if refused != nil {
		return refused
	}
	if f.terseVersion < 2 || f.terseVersion > 5 {
		return usagef("--terse-version %d: want 2, 3, 4 or 5", f.terseVersion)
	}
	for _, t := range []struct {
		name, text string
		unit       time.Duration
		to         *time.Duration
	}{{"eta-newline", f.etaNewline, time.Second, &f.newline}, {"eta-interval", f.etaInterval, time.Millisecond, &f.interval}, {"trigger-timeout", f.triggerTimeout, time.Second, &f.timeout}} {
		if t.text == "" {
			continue
		}
		d, err := jobfile.ParseTime(t.text, t.unit)
		if err != nil || d <= 0 {
			return usagef("--%s %q: want a time, as in 2s", t.name, t.text)
		}
		*t.to = d
	}
	if f.etaInterval != "" && f.interval < 500*time.Millisecond {
		return usagef("--eta-interval %s: want 500 milliseconds or more", f.etaInterval)
	}
	if f.trigger != "" && f.triggerFile == "" && f.timeout == 0 {
		return usagef("--trigger needs --trigger-file or --trigger-timeout")
	}
	return nil
}

// asked answers --version, --cmdhelp and --enghelp; false if none was given.
func (f *fioFlags) asked(w io.Writer) (bool, error) {
	switch {
	case f.version:
		_, err := fmt.Fprintln(w, "vmdisk-"+buildVersion().Version)
		return true, err
	case f.cmdHelp != "":
		text, err := jobfile.Explain(f.cmdHelp)
		if err == nil {
			_, err = io.WriteString(w, text)
			return true, err
		}
		return true, usage(err)
	case f.engHelp != "":
		text, err := jobfile.ExplainEngine(f.engHelp)
		if err == nil {
			_, err = io.WriteString(w, text)
			return true, err
		}
		return true, usage(err)
	}
	return false, nil
}

var errTriggered = errors.New("a trigger ended the jobs")

// armed returns a context that the trigger ends, and a function that waits for the
// watch and runs the command if it was pulled.
func (f *fioFlags) armed(ctx context.Context) (context.Context, func(stderr io.Writer) error) {
	if f.triggerFile == "" && f.timeout == 0 {
		return ctx, func(io.Writer) error { return nil }
	}
	run, end := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.watch(run, end)
	}()
	return run, func(stderr io.Writer) error {
		end(nil)
		<-done
		if !errors.Is(context.Cause(run), errTriggered) || f.trigger == "" {
			return nil
		}
		cmd := exec.CommandContext(ctx, "/bin/sh", "-c", f.trigger)
		cmd.Stdout, cmd.Stderr = stderr, stderr // standard output is the report's
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("trigger %q: %w", f.trigger, err)
		}
		return nil
	}
}

// watch ends the run when the time is over or the file is there.
func (f *fioFlags) watch(ctx context.Context, end context.CancelCauseFunc) {
	var late <-chan time.Time
	if f.timeout > 0 {
		t := time.NewTimer(f.timeout)
		defer t.Stop()
		late = t.C
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-late:
			end(errTriggered)
			return
		case <-tick.C:
			if f.triggerFile != "" && os.Remove(f.triggerFile) == nil {
				end(errTriggered)
				return
			}
		}
	}
}

// longForm turns fio's -name=job into --name=job. One letter, and what begins with a
// short flag of vmdisk's, is left alone.
func longForm(f *pflag.FlagSet, a string) string {
	if len(a) < 3 || a[0] != '-' || a[1] == '-' {
		return a
	}
	name, _, _ := strings.Cut(a[1:], "=")
	_, known := jobfile.Canonical(name)
	if len(name) > 1 && (known || f.Lookup(name) != nil || f.ShorthandLookup(name[:1]) == nil) {
		return "-" + a
	}
	return a
}
