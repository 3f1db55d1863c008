package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/vmdisk/vmdisk/lab/monitor"
	"github.com/vmdisk/vmdisk/lab/outcome"
	"github.com/vmdisk/vmdisk/lab/spec"
	"github.com/vmdisk/vmdisk/lab/store"
	"github.com/vmdisk/vmdisk/lab/vm"
	"github.com/vmdisk/vmdisk/report"
)

// matrix is one run of an experiment that is made of cells.
type matrix struct {
	o     Options
	spec  *spec.Spec
	cells []spec.Cell
	// plan is what outcome keeps; its cells are those of the spec, in order.
	plan  *outcome.Results
	store *store.Store
	kit   *vm.Kit
	accel string // of guests: kvm or tcg; "" if no guest runs
	out   *outcome.Dir
	clock estimator
}

// job is one run that is left to do.
type job struct {
	cell   spec.Cell
	repeat int // from 1
}

// runMatrix plans, preflights, runs what is left, and reports.
func runMatrix(ctx context.Context, s *spec.Spec, o Options) (doc *report.Document, err error) {
	m := &matrix{o: o, spec: s}
	if err := m.preflight(ctx); err != nil {
		return nil, err
	}
	if o.DryRun {
		return m.planDocument(), nil
	}
	if why := m.nothing(); why != "" {
		return nil, fmt.Errorf("no cell of %s can run here: %s; `vmdisk lab run %s --dry-run` lists them all", s.Name, why, s.Name)
	}
	defer func() {
		if m.out != nil {
			err = errors.Join(err, m.out.Close())
		}
	}()
	if err := m.open(ctx); err != nil {
		return nil, err
	}
	stopped := m.runAll(ctx)
	results, err := m.out.Results()
	if err != nil {
		return nil, errors.Join(stopped, err)
	}
	results.Notes = append(results.Notes, m.out.Notes()...)
	extra := extras(results)
	if err := errors.Join(writeRaw(o.Out, results), outcome.Write(o.Out, results, extra)); err != nil {
		return nil, errors.Join(stopped, err)
	}
	if stopped != nil {
		return nil, stopped
	}
	return outcome.Document(results, extra), nil
}

// open makes the folder of results ready, or finds an earlier run's there.
func (m *matrix) open(ctx context.Context) error {
	print, err := m.spec.Fingerprint()
	if err != nil {
		return err
	}
	m.out, err = outcome.Open(m.o.Out, outcome.Header{
		Name: m.spec.Name, Spec: m.spec.Text(), Started: time.Now(),
		// Another accelerator, or another program, measures something else.
		Fingerprint: fmt.Sprintf("%s %s %s", print, m.accel, m.o.Version),
	})
	if err != nil {
		return err
	}
	m.plan.Started = m.out.Header().Started
	if len(m.left()) > 0 {
		if m.plan.Environment.Before, err = m.before(ctx); err != nil {
			return err
		}
	}
	return m.out.Plan(m.plan)
}

// left are the runs that are not done, every cell once before any twice, in random
// order: what drifts on the host then hits all cells alike.
func (m *matrix) left() []job {
	var all []job
	for repeat := 1; repeat <= m.spec.Repeats; repeat++ {
		var round []job
		for i, c := range m.cells {
			if len(m.plan.Cells[i].Skipped) > 0 {
				continue
			}
			// A run that did not count is worth another try.
			if run, done := m.out.Done(c.ID, repeat); !done || run.Discarded != "" {
				round = append(round, job{c, repeat})
			}
		}
		rand.Shuffle(len(round), func(i, j int) { round[i], round[j] = round[j], round[i] })
		all = append(all, round...)
	}
	return all
}

// runAll runs what is left. The error is for what ends the experiment; a run
// that fails is kept as discarded, and the next begins.
func (m *matrix) runAll(ctx context.Context) (err error) {
	jobs := m.left()
	if len(jobs) == 0 {
		m.logf("all runs are there already")
		return nil
	}
	if m.store, err = store.Open(ctx, m.storeOptions()); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.store.Close(), m.removeWork()) }()
	if err := m.makeKit(ctx); err != nil {
		return err
	}
	m.clock = estimator{m: m}
	for i, j := range jobs {
		if err := m.one(ctx, j, i, jobs); err != nil {
			return err
		}
	}
	return nil
}

// one does a run and keeps it.
func (m *matrix) one(ctx context.Context, j job, i int, jobs []job) error {
	m.event(Event{Step: i + 1, Steps: len(jobs), Cell: j.cell.ID, Repeat: j.repeat, Left: m.clock.left(jobs[i:])})
	began := time.Now()
	run, err := m.run(ctx, j)
	if ctx.Err() != nil {
		return fmt.Errorf("stopped after %d of %d runs, which are kept: the same command goes on with the rest: %w", i, len(jobs), ctx.Err())
	}
	if err != nil {
		run = m.failed(began, err)
	}
	run.Repeat = j.repeat
	m.clock.took(j, time.Since(began))
	if run.Discarded != "" {
		m.logf("  does not count: %s", run.Discarded)
	}
	return m.out.Save(j.cell.ID, *run)
}

// failed is the run of a cell that could not be measured.
func (m *matrix) failed(began time.Time, err error) *outcome.Run {
	run := &outcome.Run{Started: began, Discarded: err.Error()}
	if c := (*consoleError)(nil); errors.As(err, &c) {
		run.Console = c.console
	}
	return run
}

// work is the folder for disks.
func (m *matrix) work() string {
	if m.o.Work != "" {
		return m.o.Work
	}
	return filepath.Join(m.o.Out, "work")
}

// removeWork removes the folder for disks where it is the experiment's own; the
// store has emptied it.
func (m *matrix) removeWork() error {
	if m.o.Work != "" {
		return os.RemoveAll(filepath.Join(m.o.Work, kitDir))
	}
	return os.RemoveAll(m.work())
}

func (m *matrix) storeOptions() store.Options {
	d := m.spec.Disk
	return store.Options{Dir: m.work(), Size: d.Size, Data: d.Data, FileSystem: d.FileSystem, Vmdisk: m.o.Vmdisk, Log: m.o.Log}
}

// kitDir is where, below the folder for disks, the guests' initramfs is.
const kitDir = "kit"

// makeKit makes what guests boot, if any guest is to run.
func (m *matrix) makeKit(ctx context.Context) (err error) {
	if m.accel == "" || m.spec.Guest.Boot != "kernel" {
		return nil
	}
	m.kit, err = vm.NewKit(ctx, filepath.Join(m.work(), kitDir), m.o.Vmdisk, m.spec.Guest)
	return err
}

func (m *matrix) log() io.Writer {
	if m.o.Log == nil {
		return io.Discard
	}
	return m.o.Log
}

func (m *matrix) logf(format string, args ...any) {
	fmt.Fprintf(m.log(), format+"\n", args...)
}

// event tells of a run that begins.
func (m *matrix) event(e Event) {
	if m.o.Event != nil {
		m.o.Event(e)
		return
	}
	m.logf("%s", e)
}

// lookTime is how long the host is watched before the start.
const lookTime = time.Second

// before is how busy the host is with other things: what a reader must know who takes the
// figures for those of an idle host.
func (m *matrix) before(ctx context.Context) (*outcome.Before, error) {
	m.step("look at the host's load")
	watch, err := monitor.Start(ctx, monitor.Options{})
	if err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
	case <-time.After(lookTime):
	}
	h := watch.Stop()
	return &outcome.Before{Busy: h.Busy + h.Steal, Load1: h.Load[0]}, ctx.Err()
}

// step tells whoever watches what begins.
func (m *matrix) step(format string, args ...any) {
	if m.o.Progress != nil {
		m.o.Progress(Progress{Doing: fmt.Sprintf(format, args...)})
	}
}

// environment describes where the experiment runs.
func (m *matrix) environment(ctx context.Context) outcome.Environment {
	return outcome.Environment{Facts: monitor.Describe(ctx, m.o.Version, existing(m.work())), CPUs: runtime.NumCPU()}
}

// existing is the path or its nearest parent that exists.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}
