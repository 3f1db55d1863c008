package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// fio runs the job file by fio, laid out before the gate opens.
func (x *execution) fio(ctx context.Context) (_ *Result, err error) {
	root := x.disk.image.path()
	dir, err := os.MkdirTemp(filepath.Join(root, os.TempDir()), "vmdisk-fio-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	f := &fioRun{x: x, root: root, dir: dir}
	defer func() { f.gate.close() }()
	if err := f.prepare(); err != nil {
		return nil, err
	}
	if err := f.layOut(ctx); err != nil {
		return nil, err
	}
	return f.perform(ctx)
}

// fioRun is one run by fio.
type fioRun struct {
	x         *execution
	root, dir string // dir lies in root
	plan      *jobfile.Plan
	gate      *fioGate // nil: fio is started when the agent's gate opens
}

// inside is a path as fio sees it.
func (f *fioRun) inside(name string) string {
	return strings.TrimPrefix(filepath.Join(f.dir, name), f.root)
}

// interval of the logs in milliseconds.
func (f *fioRun) interval() int64 {
	if f.x.run.IntervalMS > 0 {
		return f.x.run.IntervalMS
	}
	return 500
}

// prepare writes the job files.
func (f *fioRun) prepare() (err error) {
	if f.plan, err = f.x.plan(); err != nil {
		return err
	}
	disk, err := f.x.disk.forFio()
	if err != nil {
		return err
	}
	if f.gate, err = f.newGate(); err != nil {
		return err
	}
	logs := []string{
		"write_bw_log=" + f.inside("log"), "write_iops_log=" + f.inside("log"), fmt.Sprintf("log_avg_msec=%d", f.interval()),
		"log_unix_epoch=1", "per_job_logs=1",
		// As processes jobs make sessions of their own, and outlive fio if it is killed.
		"thread=1",
	}
	run := func(phase int) []string {
		if f.gate != nil && phase == 0 {
			return append(slices.Clone(logs), "exec_prerun="+f.gate.command)
		}
		return logs
	}
	for name, more := range map[string]func(int) []string{"job.fio": run, "layout.fio": func(int) []string { return []string{"create_only=1"} }} {
		text, err := rewrite(f.x.run.JobFile, f.plan, f.x.run.Options, disk, more)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// forFio are the options that make fio use the disk.
func (d *testDisk) forFio() ([]string, error) {
	o := d.opener.Options
	switch {
	case d.mount != "":
		return []string{"directory=" + d.mount}, nil
	case d.path == "":
		return nil, fmt.Errorf("fio is given a file or device of its own host, and %s is none: use engine=vmdisk", d.opener.URL)
	case len(o.Filters) > 0:
		return nil, fmt.Errorf("fio knows no filters such as %s: use engine=vmdisk", o.Filters[0])
	}
	list := []string{"filename=" + strings.ReplaceAll(d.path, ":", `\:`)}
	switch o.Cache {
	case "none":
		list = append(list, "direct=1")
	case "directsync":
		list = append(list, "direct=1", "sync=1")
	case "writethrough":
		list = append(list, "sync=1")
	}
	return list, nil
}

// layOut makes the files of the jobs without I/O.
func (f *fioRun) layOut(ctx context.Context) error {
	if f.x.disk.mount == "" {
		return nil
	}
	if f.root != "" {
		if err := f.x.disk.image.share(f.x.disk.mount); err != nil {
			return err
		}
	}
	out, err := f.command(ctx, f.inside("layout.fio"))
	if err != nil {
		return fmt.Errorf("fio lays out its files: %w: %s", err, lastLine(out))
	}
	return nil
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// command runs fio and returns what it printed. When ctx ends fio ends its jobs in
// order and reports what they did. When this process dies it dies too, since nobody
// else would end it.
func (f *fioRun) command(ctx context.Context, args ...string) ([]byte, error) {
	cmd, err := fioCommand(ctx, f.root, args...)
	if err != nil {
		return nil, err
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	// The signal comes when the thread that forked ends, not the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if f.root == "" {
		cmd.Dir = f.dir // fio leaves files
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Cancel = func() error {
		if f.gate.held() {
			// fio cannot end jobs that run a command.
			err := cmd.Process.Kill()
			f.gate.release()
			return err
		}
		return cmd.Process.Signal(syscall.SIGINT)
	}
	cmd.WaitDelay = stopTime * 8 / 10 // the lab waits for stopTime
	err = cmd.Run()
	reapOrphans()
	return out.Bytes(), err
}

// outcome is what is left of a run of fio.
type outcome struct {
	printed []byte
	err     error
	endedNS int64
}

// perform runs the jobs and reads what fio wrote.
func (f *fioRun) perform(ctx context.Context) (*Result, error) {
	o, err := f.gated(ctx)
	if err != nil {
		return nil, err
	}
	if exit := (*exec.ExitError)(nil); o.err != nil && !errors.As(o.err, &exit) && ctx.Err() == nil {
		return nil, fmt.Errorf("fio: %w", o.err)
	}
	text, err := os.ReadFile(filepath.Join(f.dir, "out"))
	if err != nil {
		return nil, fmt.Errorf("fio left no result: %s", lastLine(o.printed))
	}
	res, err := f.parse(text)
	if err != nil {
		return nil, fmt.Errorf("fio's result: %w: %s", err, lastLine(o.printed))
	}
	res.EndNS = o.endedNS
	f.usage(res)
	res.Notes = append(res.Notes, "by "+fioVersion(f.root)+": stalls are gaps in its logs, and latencies are of the whole run, not by interval")
	for _, n := range f.plan.Notes {
		res.Notes = append(res.Notes, n.Text)
	}
	switch {
	case ctx.Err() != nil:
		res.Err = stopped
	case o.err != nil:
		res.Err = fmt.Sprintf("fio: %v: %s", o.err, lastLine(o.printed))
	}
	return res, nil
}

// usage fills in the CPU time. That of fio's jobs is in its report; the kernel's count
// has what fio took to start as well.
func (f *fioRun) usage(res *Result) {
	user, system := res.UserNS, res.SystemNS
	f.x.before.since(res, f.x.disk.guest)
	res.UserNS, res.SystemNS = user, system
	if span := res.EndNS - res.StartNS; !f.x.disk.guest && span > 0 {
		res.CPUBusy = float64(user+system) / float64(span)
	}
}

// gated runs fio such that its first I/O comes when the gate opens.
func (f *fioRun) gated(ctx context.Context) (o outcome, err error) {
	if f.gate == nil {
		if err := f.x.enter(ctx); err != nil {
			return o, err
		}
		stop := f.watch()
		defer stop()
		return f.start(ctx), nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(ended)
		o = f.start(ctx)
	})
	err = f.gate.ready(ctx, ended)
	if err == nil {
		err = f.x.enter(ctx)
	}
	if err != nil {
		cancel()
	} else {
		f.gate.open()
		stop := f.watch()
		defer stop()
	}
	wg.Wait()
	if errors.Is(err, errEnded) {
		return o, fmt.Errorf("fio: %w: %s", o.err, lastLine(o.printed))
	}
	return o, err
}

func (f *fioRun) start(ctx context.Context) outcome {
	printed, err := f.command(ctx, "--output-format=json+,normal", "--output="+f.inside("out"), "--eta=never", f.inside("job.fio"))
	return outcome{printed: printed, err: err, endedNS: Monotonic()}
}

// watch tells each second how far the run is, until the function it returns is
// called: by time, since fio tells of its jobs only at their end.
func (f *fioRun) watch() (stop func()) {
	planned := f.planned()
	last, known := theSys.stat(f.x.disk.prepared.Device)
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		begun := time.Now()
		tick := time.NewTicker(beat)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			var p Progress
			if planned > 0 {
				p.Share = min(1, float64(time.Since(begun))/float64(planned))
			}
			if now, ok := theSys.stat(f.x.disk.prepared.Device); ok && known {
				p.IOPS, p.BW = now.since(last)
				last = now
			}
			f.x.progress(p)
		}
	})
	return func() {
		close(quit)
		wg.Wait()
	}
}

// planned is how long the jobs take, 0 if that goes by size.
func (f *fioRun) planned() time.Duration {
	var sum, phase time.Duration
	number := 0
	for _, j := range f.plan.Jobs {
		if j.Runtime == 0 {
			return 0
		}
		if j.Phase != number {
			sum, phase, number = sum+phase, 0, j.Phase
		}
		phase = max(phase, j.StartDelay[1]+j.RampTime+j.Runtime)
	}
	return sum + phase
}
