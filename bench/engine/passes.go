package engine

import (
	"context"
	"math"
	"time"
)

// loops runs the job's passes: write phase and verification, loops times. A job that
// does less than its files hold goes on where it was instead, as in fio, and begins
// anew where the files end.
func (w *worker) loops(ctx context.Context) error {
	partial, left := w.limit < w.total && w.job.NumberIOs == 0, w.limit
	if partial {
		left = multiplied(w.limit, w.job.Loops)
	}
	for i := 0; partial && left > 0 || !partial && i < w.job.Loops; i++ {
		if i > 0 {
			w.advise() // fio opens its files anew
		}
		if partial {
			w.limit = min(left, w.total)
		}
		if err := w.pass(ctx); err != nil {
			return err
		}
		if left -= w.bytes; w.bytes == 0 {
			left = 0
		}
		if w.interrupted(ctx) || w.stop.Load() {
			return nil
		}
		if w.verify != nil && w.job.Mode.Write && w.job.DoVerify && !w.expired() {
			if err := w.verifyPhase(ctx, w.vlog.pending()); err != nil {
				return err
			}
		}
		if w.expired() {
			return nil
		}
	}
	return nil
}

// multiplied is n times loops, or all that there is.
func multiplied(n int64, loops int) int64 {
	if n > math.MaxInt64/int64(loops) {
		return math.MaxInt64
	}
	return n * int64(loops)
}

// interrupted notes that the run was ended from outside.
func (w *worker) interrupted(ctx context.Context) bool {
	if ended(ctx) {
		w.res.Interrupted = true
		return true
	}
	return false
}

// expired reports whether the job's runtime is over.
func (w *worker) expired() bool {
	return w.job.Runtime > 0 && !w.ramping && w.clock-w.begin >= int64(w.job.Runtime)
}

// pass does the job's I/O once over.
func (w *worker) pass(ctx context.Context) error {
	w.bytes, w.count, w.ending = 0, 0, false
	w.draws.Restart()
	for _, t := range w.targets {
		t.ended = false
		t.stream.Restart()
	}
	w.vlog.newPass()
	started := w.now()
	if w.job.VerifyOnly {
		w.simulate()
		return nil
	}
	err := w.issueAll(ctx)
	if err == nil && w.job.EndFsync && w.job.Mode.Write && !w.res.Interrupted {
		err = w.syncAll()
	}
	w.addRuntime(started)
	if err == nil && w.job.FsyncOnClose && w.job.Mode.Write {
		err = w.syncAll()
	}
	return err
}

// addRuntime adds the time since started to the directions that were active. The
// ramp is kept apart: it counts only where nothing comes after it.
func (w *worker) addRuntime(started int64) {
	now := w.now()
	if w.begin > started {
		started = w.begin
	}
	for d, on := range w.dirRun {
		switch {
		case on && w.ramping:
			w.rampTime[d] += time.Duration(now - started)
		case on:
			w.res.Dirs[d].Runtime += time.Duration(now - started)
		}
		w.dirRun[d] = false
	}
}
