package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// fioGate holds fio's jobs back when all of them are about to begin: fio needs a
// tenth of a second to start, in an emulated guest up to five, and nodes would begin
// as far apart. Each job of the first phase runs a command before it begins, which
// says so and waits for a line in a pipe.
type fioGate struct {
	jobs    int
	command string
	came    string   // path: a line for each job that waits
	pipe    *os.File // held open on both ends: what is written waits for its reader
	opened  atomic.Bool
}

// plainName is a job name that a shell takes as one word. fio puts it, as it is, into
// the command's redirection.
var plainName = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// newGate makes the gate of a run, nil where there is nothing to wait for, or fio
// cannot be held: without a shell, with names a shell would read otherwise, with jobs
// that begin later by themselves.
func (f *fioRun) newGate() (*fioGate, error) {
	if _, err := os.Stat(filepath.Join(f.root, "/bin/sh")); err != nil || f.x.gate == nil {
		return nil, nil
	}
	g := &fioGate{came: filepath.Join(f.dir, "came")}
	for _, j := range f.plan.Jobs {
		if j.Phase != 0 {
			continue
		}
		if !plainName.MatchString(j.Name) || j.StartDelay[1] > 0 || j.StartDelay[0] > 0 || j.WaitFor != "" {
			return nil, nil
		}
		g.jobs++
	}
	name := filepath.Join(f.dir, "gate")
	if err := unix.Mkfifo(name, 0o600); err != nil {
		return nil, fmt.Errorf("fio's gate: %w", os.NewSyscallError("mkfifo", err))
	}
	var err error
	if g.pipe, err = os.OpenFile(name, os.O_RDWR, 0); err != nil {
		return nil, fmt.Errorf("fio's gate: %w", err)
	}
	// No semicolon: in a job file it begins a comment.
	g.command = fmt.Sprintf("echo >> %s && read line < %s", f.inside("came"), f.inside("gate"))
	return g, nil
}

// errEnded: fio ended before its jobs began.
var errEnded = errors.New("fio ended before its jobs began")

// ready waits until all jobs wait.
func (g *fioGate) ready(ctx context.Context, ended <-chan struct{}) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := os.ReadFile(g.came)
		if err == nil && bytes.Count(text, []byte("\n")) >= g.jobs {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ended:
			return errEnded
		case <-tick.C:
		}
	}
}

// held: the jobs wait, or will.
func (g *fioGate) held() bool { return g != nil && !g.opened.Load() }

// open lets the jobs begin.
func (g *fioGate) open() {
	g.opened.Store(true)
	g.release()
}

// release ends the commands that wait.
func (g *fioGate) release() {
	// It fits into the pipe, and its reading end is open.
	_, _ = g.pipe.Write(bytes.Repeat([]byte("\n"), g.jobs))
}

func (g *fioGate) close() {
	if g != nil {
		_ = g.pipe.Close()
	}
}
