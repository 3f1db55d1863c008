package engine

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/bench/result"
	"github.com/vmdisk/vmdisk/disk"
)

// OpenRequest says how a job wants a disk.
type OpenRequest struct {
	// Name is the file name of the job; "" is the disk that was given for all.
	Name string
	// Write: the job changes the disk. Direct: past the page cache. Pool: by a pool
	// of threads, as ioengine=posixaio does it.
	Write, Direct, Pool bool
	// Null, if not 0, asks for a disk of so many bytes that does nothing: a job of
	// ioengine=null without a disk of its own.
	Null int64
}

// Config is one run.
type Config struct {
	Plan *jobfile.Plan
	// OneDisk: every job works on the disk named "", whatever its file names say.
	OneDisk bool
	// Open opens a disk. The engine closes it when no job of the phase uses it any more.
	Open func(context.Context, OpenRequest) (*disk.Disk, error)
	// Close, if not nil, replaces the Close of disks that Open gave.
	Close func(*disk.Disk) error
	// Prepare, if not nil, is called before a phase for each job and file that is
	// about to be opened; it lays out files and checks that devices are not in use.
	// size is the bytes the job needs, 0 if it takes the file as it is.
	Prepare func(ctx context.Context, j *jobfile.Job, name string, size int64) error
	// Cleanup, if not nil, is called after the run for the files of jobs with unlink=1.
	Cleanup func(name string) error
	// Progress, if not nil, is called each half second from one goroutine.
	Progress func(Status)
	// Devices returns the kernel's names of the block devices below a file name.
	Devices func(name string) []string
	// Gate, if not nil, is called once, when the first phase is laid out and open and
	// its workers wait. The first I/O is issued when it returns; on an error none is.
	Gate func(context.Context) error
	// Strict: a job whose disk cannot be polled fails, as in fio, instead of running
	// without polling.
	Strict bool
}

// Status is the state of a run for a progress line.
type Status struct {
	Elapsed      time.Duration
	Running      int // jobs
	Waiting      int
	Done         int
	Share        float64               // 0..1 of the work
	ETA          time.Duration         // < 0: unknown
	BW, IOPS     [jobfile.Dirs]float64 // bytes and I/Os per second over the last interval
	StalledFor   time.Duration         // the longest present stall, 0 if none
	Ramping      bool
	CurrentPhase int
}

// runState is what the workers of a run share.
type runState struct {
	cfg   Config
	start time.Time
	out   *result.Run

	mu    sync.Mutex
	disks map[diskKey]*sharedDisk
	flows map[int64]*flow

	workers []*worker
	done    map[string]*doneGroup // by job name, for wait_for
	phase   atomic.Int32
	shut    bool // the gate did not open
}

// doneGroup counts the unfinished jobs of one name.
type doneGroup struct {
	left atomic.Int32
	ch   chan struct{}
}

// now is the time since the run began, in nanoseconds.
func (r *runState) now() int64 { return int64(time.Since(r.start)) }

// Run runs all jobs. The outcome has every job that ran, also after errors; a job's
// own failure is in its result, not in the error, which is for what kept the run
// from going on at all. A cancelled ctx ends the run in order: nothing new is
// issued, what is in flight is waited for, and results are marked.
func Run(ctx context.Context, cfg Config) (*result.Run, error) {
	r := &runState{cfg: cfg, start: time.Now(), disks: map[diskKey]*sharedDisk{}, flows: map[int64]*flow{}, done: map[string]*doneGroup{}}
	r.out = &result.Run{Started: r.start, Notes: slices.Clone(cfg.Plan.Notes)}
	for _, j := range cfg.Plan.Jobs {
		w := newWorker(r, j)
		r.workers = append(r.workers, w)
		r.out.Jobs = append(r.out.Jobs, w.res)
		if g := r.done[j.Name]; g != nil {
			g.left.Add(1)
		} else {
			g = &doneGroup{ch: make(chan struct{})}
			g.left.Store(1)
			r.done[j.Name] = g
		}
		if j.Flow > 0 {
			r.joinFlow(w)
		}
	}
	host := startHost(r)
	err := r.phases(ctx)
	host.stop()
	r.out.Elapsed = time.Since(r.start)
	r.cleanup()
	r.out.Bounds = bounds(r)
	return r.out, err
}

// phases runs one phase after the other. After a failed one the next still runs,
// as in fio, unless the run was interrupted.
func (r *runState) phases(ctx context.Context) error {
	last := r.workers[len(r.workers)-1].job.Phase
	for phase := 0; phase <= last; phase++ {
		r.phase.Store(int32(phase))
		var jobs []*worker
		for _, w := range r.workers {
			if w.job.Phase == phase {
				jobs = append(jobs, w)
			}
		}
		if err := r.runPhase(ctx, jobs); err != nil {
			return err
		}
		if ended(ctx) || r.shut {
			r.markRest(phase)
			break
		}
	}
	return nil
}

// ended reports whether the run was interrupted, which is no error of its own.
func ended(ctx context.Context) bool { return ctx.Err() != nil }

func (r *runState) markRest(phase int) {
	for _, w := range r.workers {
		if w.job.Phase > phase {
			w.res.Interrupted = true
		}
	}
}

// runPhase opens what the jobs need, starts them together and waits for all.
func (r *runState) runPhase(ctx context.Context, jobs []*worker) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var errs []error
	for _, w := range jobs {
		if err := w.open(ctx); err != nil {
			errs = append(errs, w.named(err))
			break
		}
	}
	if len(errs) == 0 {
		r.startAll(ctx, jobs)
	}
	for _, w := range jobs {
		if err := w.closeFiles(); err != nil {
			errs = append(errs, w.named(err))
		}
	}
	return errors.Join(errs...)
}

func (r *runState) startAll(ctx context.Context, jobs []*worker) {
	var wg sync.WaitGroup
	ready := make(chan struct{})
	var prepared sync.WaitGroup
	prepared.Add(len(jobs))
	for _, w := range jobs {
		wg.Go(func() { w.thread(ctx, prepared.Done, ready) })
	}
	prepared.Wait()
	if err := r.gate(ctx); err != nil {
		r.shut = true
		for _, w := range jobs {
			w.stop.Store(true)
			w.res.Interrupted = true
		}
	}
	stop := r.startSampler(jobs)
	close(ready)
	wg.Wait()
	stop()
}

// gate waits until the first phase may begin. An error of it ends the run before
// any I/O, as an interruption does.
func (r *runState) gate(ctx context.Context) error {
	if r.phase.Load() > 0 {
		return nil
	}
	var err error
	if r.cfg.Gate != nil {
		err = r.cfg.Gate(ctx)
	}
	r.out.Opened = time.Since(r.start)
	return err
}

// finished tells those who wait for the job, and ends others where the job file
// says so.
func (r *runState) finished(w *worker) {
	if g := r.done[w.job.Name]; g.left.Add(-1) == 0 {
		close(g.ch)
	}
	ends := w.job.ExitAll || w.job.ExitAllOnError && w.res.Err != nil
	if !ends {
		return
	}
	for _, o := range r.workers {
		same := o.job.Group == w.job.Group
		if w.job.ExitWhat == "stonewall" {
			same = o.job.Phase == w.job.Phase
		}
		if same || w.job.ExitWhat == "all" {
			o.stop.Store(true)
		}
	}
}

func (r *runState) cleanup() {
	if r.cfg.Cleanup == nil {
		return
	}
	for _, w := range r.workers {
		if !w.job.Unlink || r.cfg.OneDisk {
			continue
		}
		for _, name := range w.job.Filenames {
			if err := r.cfg.Cleanup(name); err != nil && w.res.Err == nil {
				w.res.Err = err
			}
		}
	}
}

// flow keeps the jobs of a flow_id in proportion.
type flow struct {
	total  atomic.Int64
	weight int64
}

func (r *runState) joinFlow(w *worker) {
	f := r.flows[w.job.FlowID]
	if f == nil {
		f = &flow{}
		r.flows[w.job.FlowID] = f
	}
	f.weight += w.job.Flow
	w.flow = f
}
