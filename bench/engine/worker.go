package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/bench/gen"
	"github.com/vmdisk/vmdisk/bench/hist"
	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/bench/result"
	"github.com/vmdisk/vmdisk/disk"
)

// role is what an I/O in flight is for.
type role uint8

const (
	roleIO role = iota
	roleSync
	roleEndSync // end_fsync, fsync_on_close
	roleVerify  // a read that checks an earlier write
)

// unit is one I/O in flight with its buffer. Times are nanoseconds since the run began.
type unit struct {
	vec      [1][]byte
	buf      []byte
	off, n   int64
	t        *target
	dir      uint8
	role     role
	start    int64 // chosen
	issued   int64 // Submit returned
	intended int64 // by the rate; 0 if there is none
	number   int64 // of the write
}

// worker runs one job.
type worker struct {
	run     *runState
	job     *jobfile.Job
	res     *result.Job
	targets []*target
	next    int   // target of the next I/O, round robin
	total   int64 // bytes of all regions
	limit   int64 // bytes of one pass
	bufSize int64

	memory  []byte
	units   []unit
	free    []int32
	pending []disk.Op // chosen, not yet taken by the queue
	done    []disk.Completion
	reapMax int // completions taken at once
	flight  int // in the queues, syncs included
	depth   int // allowed now; below job.Depth under latency_target

	draws  *gen.Draws
	fill   *gen.Filler
	verify *gen.Verifier
	vlog   writeLog
	rate   rater
	logs   logger
	target latencyTarget
	flow   *flow
	issued int64 // by flow's count

	begin     int64 // of the measurement: start, or end of the ramp
	ramping   bool
	rampTime  [jobfile.Dirs]time.Duration // in which directions were active while ramping
	endSync   bool                        // only end_fsync is in flight
	ending    bool                        // nothing new is to be issued
	bytes     int64
	count     int64 // I/Os issued in this pass
	unsynced  int64 // writes since the last fsync
	writeSeq  int64
	think     int64 // I/Os since the last think
	dirRun    [jobfile.Dirs]bool
	latSum    [jobfile.Dirs]uint64
	follow    []followUp
	stop      atomic.Bool     // exitall, steady state
	late      context.Context // of what is in flight: outlives the run unless a server is silent
	tooSlow   atomic.Value    // string: rate_min was missed
	steady    atomic.Pointer[result.Steady]
	live      liveCounters
	stalls    stallWatch
	clock     int64 // the last time read
	published int64 // when the sampler's view was renewed
	timer     timer
	thread0   unix.Rusage
	noClat    bool
	noLat     bool
	oneLat    bool // completion latency is the whole latency: counted once, copied at the end
	slat      bool
	plain     bool  // nothing but the queue and a rate holds the job back
	async     bool  // not one of fio's synchronous engines
	dropped   error // first error
}

// followUp is the write of a trimwrite job.
type followUp struct {
	t      *target
	off, n int64
}

// liveCounters are what the sampler reads while the worker runs; the worker
// publishes them once per batch of completions.
type liveCounters struct {
	ios, bytes, latSum [jobfile.Dirs]atomic.Uint64
	state              atomic.Int32
	active             atomic.Int64 // the last completion; 0: asleep with nothing in flight
	total              atomic.Int64 // bytes issued
	began              atomic.Int64
}

const (
	// In this order: from stateRunning on the counters are of the measurement.
	stateWaiting int32 = iota
	stateRamping
	stateRunning
	stateVerifying
	stateDone
)

func newWorker(r *runState, j *jobfile.Job) *worker {
	w := &worker{run: r, job: j, res: &result.Job{Spec: j, Merged: 1}}
	return w
}

func (w *worker) now() int64 {
	w.clock = w.run.now()
	return w.clock
}

// thread is the worker's goroutine: it prepares, reports so, and runs when ready
// is closed.
func (w *worker) thread(ctx context.Context, prepared func(), ready <-chan struct{}) {
	runtime.LockOSThread()
	// The thread may have been pinned or have a ring; it ends with the goroutine.
	defer w.run.finished(w)
	defer w.live.state.Store(stateDone)
	err := w.setup()
	prepared()
	if err == nil {
		<-ready
		err = w.perform(ctx)
	}
	if err2 := w.teardown(); err == nil {
		err = err2
	}
	w.fail(err)
}

// fail records what ended the job.
func (w *worker) fail(err error) {
	if err == nil || w.res.Err != nil {
		return
	}
	if errors.Is(err, context.Canceled) && w.res.Interrupted {
		return
	}
	w.res.Err = w.named(err)
	w.res.Errno = errnoOf(err)
}

// named says which job an error is of, and where it was written.
func (w *worker) named(err error) error {
	return fmt.Errorf("%s: job %s: %w", w.job.Pos, w.job.Name, err)
}

func errnoOf(err error) int {
	var e syscall.Errno
	var ve *gen.VerifyError
	switch {
	case errors.As(err, &e):
		return int(e)
	case errors.As(err, &ve):
		return int(syscall.EILSEQ)
	case errors.Is(err, disk.ErrReadOnly):
		return int(syscall.EROFS)
	}
	return int(syscall.EIO)
}

// setup makes buffers, queues and generators.
func (w *worker) setup() error {
	j := w.job
	if len(j.CPUs) > 0 {
		var set unix.CPUSet
		for _, c := range j.CPUs {
			set.Set(c)
		}
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return fmt.Errorf("cpus_allowed=%v: %w", j.CPUs, os.NewSyscallError("sched_setaffinity", err))
		}
	}
	if err := w.makeBuffers(); err != nil {
		return err
	}
	for _, t := range w.targets {
		q, err := w.queue(t)
		if err != nil {
			return err
		}
		t.q = q
		// Where memory cannot be pinned the queue takes the ordinary way itself.
		if err := q.Register([][]byte{w.memory}); err != nil {
			return err
		}
	}
	if err := w.timer.init(w.targets); err != nil {
		return err
	}
	w.depth = j.Depth
	w.async = !j.SyncEngine()
	w.noLat, w.noClat, w.slat = j.NoLat, j.NoClat, !j.NoSlat && w.async
	w.oneLat = !w.async && !j.NoLat && !j.NoClat
	w.plain = j.ThinkTime == 0 && j.Fsync == 0 && j.Fdatasync == 0 && w.flow == nil
	w.rate.init(j)
	if w.rate.any {
		for d := range w.res.Dirs {
			w.res.Dirs[d].Intended = new(hist.Histogram)
		}
	}
	w.logs.init(w)
	w.target.init(w)
	return w.warm()
}

// queue makes the queue of a target.
func (w *worker) queue(t *target) (disk.Queue, error) {
	if w.fake() {
		return &nothing{done: make([]disk.Completion, 0, w.job.Depth+1)}, nil
	}
	if w.job.Hipri {
		q, err := w.pollQueue(t)
		if q != nil || err != nil {
			return q, err
		}
	}
	if w.inCalls(t) {
		return t.d.NewSyncQueue(w.job.Depth + 1)
	}
	return t.d.NewQueue(w.job.Depth + 1)
}

// inCalls reports whether I/O on t is a matter of plain system calls in fio: under the
// synchronous engines it is, and so it is under libaio where a page cache is in the
// way, however deep the queue. A ring would read 16 places at a time there (44k IOPS,
// measured, where fio has 8k).
func (w *worker) inCalls(t *target) bool {
	if !w.job.SyncEngine() && w.job.Engine != "libaio" {
		return false
	}
	_, cached := t.d.FileRange(0, 1, false)
	return cached
}

func (w *worker) makeBuffers() error {
	j := w.job
	mem, err := unix.Mmap(-1, 0, int(w.bufSize)*j.Depth, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("buffers of %d bytes: %w", w.bufSize*int64(j.Depth), os.NewSyscallError("mmap", err))
	}
	w.memory = mem
	w.fill = gen.NewFiller(j, w.seed(1<<32))
	if j.Verify != "" {
		w.verify = gen.NewVerifier(j)
		w.vlog.init(j, w.limit > w.total || j.NoRandomMap && j.Mode.Random)
	}
	w.units = make([]unit, j.Depth)
	for i := range w.units {
		u := &w.units[i]
		u.buf = mem[int64(i)*w.bufSize : int64(i+1)*w.bufSize]
		w.fill.Init(u.buf)
		w.free = append(w.free, int32(j.Depth-1-i))
	}
	w.pending = make([]disk.Op, 0, j.Depth+1)
	w.done = make([]disk.Completion, j.Depth+8)
	// fio takes as many completions at once as it waits for at least; it is one of
	// the things that decide what latency is reported, so it is kept.
	if w.reapMax = min(j.BatchMax, j.Depth); w.reapMax == 0 {
		w.reapMax = j.Depth
	}
	return nil
}

func (w *worker) teardown() error {
	var errs []error
	for _, t := range w.targets {
		if t.q != nil {
			errs = append(errs, t.q.Close())
		}
	}
	w.timer.close()
	if w.memory != nil {
		errs = append(errs, os.NewSyscallError("munmap", unix.Munmap(w.memory)))
		w.memory, w.units = nil, nil
	}
	return errors.Join(errs...)
}

// perform waits for the job's turn and runs it.
func (w *worker) perform(ctx context.Context) error {
	if !w.waitTurn(ctx) || w.job.CreateOnly {
		return nil
	}
	w.res.Started = time.Now()
	w.begin = w.now()
	w.res.Begin = time.Duration(w.begin)
	w.ramping = w.job.RampTime > 0
	w.live.began.Store(w.begin)
	w.live.active.Store(w.begin)
	w.live.state.Store(b2state(w.ramping))
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &w.thread0)
	started := w.begin
	late, release := disk.WithGrace(ctx, math.MaxInt64, w.disks()...)
	defer release()
	w.late = late
	w.rate.start(w.begin)
	err := w.loops(ctx)
	if w.ramping { // the job was over before its ramp: what it did is reported
		for d, t := range w.rampTime {
			w.res.Dirs[d].Runtime += t
		}
	}
	if w.oneLat {
		for d := range w.res.Dirs {
			w.res.Dirs[d].Lat = w.res.Dirs[d].Clat
		}
	}
	w.res.Elapsed = time.Duration(w.now() - started)
	w.published = 0
	w.publish(w.clock)
	w.account()
	w.logs.flush(w.clock)
	w.res.Steady = w.steady.Load()
	if why, ok := w.tooSlow.Load().(string); ok && err == nil {
		err = errors.New(why)
	}
	return err
}

func b2state(ramping bool) int32 {
	if ramping {
		return stateRamping
	}
	return stateRunning
}

// waitTurn honours startdelay and wait_for; false if the run ended meanwhile.
func (w *worker) waitTurn(ctx context.Context) bool {
	var wait <-chan struct{}
	if w.job.WaitFor != "" {
		wait = w.run.done[w.job.WaitFor].ch
		select {
		case <-wait:
		case <-ctx.Done():
			w.res.Interrupted = true
			return false
		}
	}
	delay := w.job.StartDelay[0]
	if span := w.job.StartDelay[1] - delay; span > 0 {
		delay += time.Duration(gen.NewRandom(w.seed(1 << 33)).Below(uint64(span)))
	}
	if delay == 0 {
		return true
	}
	t := time.NewTimer(delay)
	defer t.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-t.C:
			return true
		case <-tick.C:
			if w.stop.Load() {
				return false
			}
		case <-ctx.Done():
			w.res.Interrupted = true
			return false
		}
	}
}

// account takes the thread's CPU time and faults.
func (w *worker) account() {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &u) != nil {
		return
	}
	w.res.User = time.Duration(u.Utime.Nano() - w.thread0.Utime.Nano())
	w.res.System = time.Duration(u.Stime.Nano() - w.thread0.Stime.Nano())
	w.res.Switches = uint64(u.Nvcsw + u.Nivcsw - w.thread0.Nvcsw - w.thread0.Nivcsw)
	w.res.Major = uint64(u.Majflt - w.thread0.Majflt)
	w.res.Minor = uint64(u.Minflt - w.thread0.Minflt)
}
