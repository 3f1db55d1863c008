package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
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
	if err := f.plan(); err != nil {
		return nil, err
	}
	if x.disk.mount != "" {
		if root != "" {
			if err := x.disk.image.share(x.disk.mount); err != nil {
				return nil, err
			}
		}
		if err := f.layOut(ctx); err != nil {
			return nil, err
		}
	}
	if err := x.enter(ctx); err != nil {
		return nil, err
	}
	return f.perform(ctx)
}

// fioRun is one run by fio.
type fioRun struct {
	x         *execution
	root, dir string // dir lies in root
	sections  []string
	text      string
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

// plan rewrites the job file: what wins goes into every section, since fio lets a
// section win over everything that is said elsewhere.
func (f *fioRun) plan() error {
	if _, err := resolve(f.x.run.JobFile, f.x.run.Options); err != nil {
		return err
	}
	win := slices.Clone(f.x.run.Options)
	switch d := f.x.disk; {
	case d.mount != "":
		win = append(win, "directory="+d.mount)
	case d.path == "":
		return fmt.Errorf("fio is given a file or device of its own host: %s is none; use engine=vmdisk", d.opener.URL)
	default:
		win = append(win, "filename="+strings.ReplaceAll(d.path, ":", `\:`))
	}
	f.text, f.sections = rewrite(f.x.run.JobFile, func(i int) []string {
		log := f.inside(fmt.Sprintf("log%d", i))
		return append(slices.Clone(win), "write_bw_log="+log, "write_iops_log="+log, fmt.Sprintf("log_avg_msec=%d", f.interval()))
	})
	return os.WriteFile(filepath.Join(f.dir, "job.fio"), []byte(f.text), 0o600)
}

// rewrite puts the options that win(i) gives into the i-th section that is a job, in
// place of its own, and returns the names of these sections.
func rewrite(text string, win func(i int) []string) (string, []string) {
	var out strings.Builder
	var sections []string
	var names []string // of options that the present section has from win
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		trimmed := strings.TrimSpace(line)
		if name, ok := sectionName(trimmed); ok {
			fmt.Fprintln(&out, line)
			names = nil
			if strings.HasPrefix(name, "global") {
				continue
			}
			for _, o := range win(len(sections)) {
				fmt.Fprintln(&out, o)
				key, _, _ := strings.Cut(o, "=")
				names = append(names, key)
			}
			sections = append(sections, name)
			continue
		}
		key, _, _ := strings.Cut(trimmed, "=")
		if !slices.Contains(names, strings.TrimSpace(key)) {
			fmt.Fprintln(&out, line)
		}
	}
	return out.String(), sections
}

func sectionName(line string) (string, bool) {
	if !strings.HasPrefix(line, "[") {
		return "", false
	}
	name, _, ok := strings.Cut(line[1:], "]")
	return name, ok
}

// layOut makes the files of the jobs without I/O.
func (f *fioRun) layOut(ctx context.Context) error {
	text, _ := rewrite(f.text, func(int) []string { return []string{"create_only=1"} })
	if err := os.WriteFile(filepath.Join(f.dir, "layout.fio"), []byte(text), 0o600); err != nil {
		return err
	}
	cmd, err := fioCommand(ctx, f.root, f.inside("layout.fio"))
	if err != nil {
		return err
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopTime
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("fio lays out its files: %w: %s", err, lastLine(out))
	}
	return nil
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// perform runs the jobs and reads what fio wrote.
func (f *fioRun) perform(ctx context.Context) (*Result, error) {
	cmd, err := fioCommand(ctx, f.root, "--output-format=json+", "--output="+f.inside("out.json"), "--eta=never", f.inside("job.fio"))
	if err != nil {
		return nil, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopTime
	runErr := cmd.Run()
	ended := Monotonic()
	if exit := (*exec.ExitError)(nil); runErr != nil && !errors.As(runErr, &exit) && ctx.Err() == nil {
		return nil, fmt.Errorf("fio: %w", runErr)
	}
	text, err := os.ReadFile(filepath.Join(f.dir, "out.json"))
	if err != nil {
		return nil, fmt.Errorf("fio left no result: %s", lastLine(stderr.Bytes()))
	}
	res, err := f.parse(text)
	if err != nil {
		return nil, fmt.Errorf("fio's result: %w: %s", err, lastLine(stderr.Bytes()))
	}
	f.x.before.since(res, f.x.disk.guest)
	res.StartNS, res.EndNS = f.x.began, ended
	res.Notes = append(res.Notes, "by "+fioVersion(f.root)+": stalls are gaps in its logs; its start includes that of the program")
	switch {
	case ctx.Err() != nil:
		res.Err = "the run was stopped before its end"
	case runErr != nil:
		res.Err = fmt.Sprintf("fio: %v: %s", runErr, lastLine(stderr.Bytes()))
	}
	return res, nil
}

// stallGap is the shortest gap in fio's logs that counts as a stall.
const stallGap = time.Second
