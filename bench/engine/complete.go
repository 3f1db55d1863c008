package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/bench/gen"
	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/bench/result"
	"github.com/vmdisk/vmdisk/disk"
)

// await waits for completions as the depth settings want, or until held.
func (w *worker) await(ctx context.Context, held int64) error {
	if held > 0 {
		return w.sleep(ctx, held)
	}
	if w.flight == 0 {
		return nil
	}
	if !w.full() {
		if w.ending && !w.mayFollow() {
			return nil // drain does the rest
		}
		return w.reap(ctx, min(w.job.BatchMin, w.flight))
	}
	for {
		if err := w.reap(ctx, max(1, min(w.job.BatchMin, w.flight))); err != nil {
			return err
		}
		if w.flight <= w.job.DepthLow || w.job.DepthLow >= w.job.Depth || ended(ctx) {
			return nil
		}
	}
}

// drain waits for everything in flight. A cancelled run waits too, for as long as
// the server behind the disk gives any answer: what was submitted is in its hands.
func (w *worker) drain() error {
	for len(w.pending) > 0 || w.flight > 0 {
		if err := w.submit(); err != nil {
			return err
		}
		if w.flight == 0 {
			continue
		}
		if err := w.reap(w.late, 1); err != nil {
			return err
		}
		if ended(w.late) {
			return context.Cause(w.late)
		}
	}
	return nil
}

// reap collects at least atLeast completions.
func (w *worker) reap(ctx context.Context, atLeast int) error {
	if len(w.targets) > 1 {
		return w.reapMany(ctx, atLeast)
	}
	n, err := w.targets[0].q.Reap(ctx, atLeast, w.done[:max(atLeast, w.reapMax)])
	w.finish(w.targets[0], n)
	if err != nil && !ended(ctx) {
		return fmt.Errorf("wait for completions: %w", err)
	}
	return nil
}

// reapMany polls the queues of several files in turn; when none has anything it
// blocks on the one with the most in flight.
func (w *worker) reapMany(ctx context.Context, atLeast int) error {
	got := 0
	for {
		var busiest *target
		for _, t := range w.targets {
			if t.flight == 0 {
				continue
			}
			n, err := t.q.Reap(ctx, 0, w.done[:w.reapMax])
			w.finish(t, n)
			if err != nil && !ended(ctx) {
				return fmt.Errorf("wait for completions: %w", err)
			}
			got += n
			if t.flight > 0 && (busiest == nil || t.flight > busiest.flight) {
				busiest = t
			}
		}
		if got >= atLeast || busiest == nil || ended(ctx) {
			return nil
		}
		n, err := busiest.q.Reap(ctx, 1, w.done[:w.reapMax])
		w.finish(busiest, n)
		if got += n; err != nil && !ended(ctx) {
			return fmt.Errorf("wait for completions: %w", err)
		}
	}
}

// finish accounts n completions in w.done.
func (w *worker) finish(t *target, n int) {
	if n == 0 {
		w.now()
		return
	}
	now := w.now()
	ios := 0
	for i := range n {
		c := &w.done[i]
		if c.Tag == timerTag {
			w.timer.fired()
			continue
		}
		ios++
		w.complete(&w.units[c.Tag], now, c.Err)
		w.free = append(w.free, int32(c.Tag))
		w.units[c.Tag].n = 0
	}
	if ios == 0 {
		return
	}
	w.flight -= ios
	t.flight -= ios
	w.res.Complete[mapIndex(ios)]++
	w.res.Completes++
	w.stalls.completed(w, now)
	w.publish(now)
	if w.ramping {
		w.endRamp(now)
	}
}

// noDevice is a completion latency in nanoseconds that no device has: an I/O past the page cache that
// seems to have taken less was done when its thread got the processor back.
const noDevice = 1000

// complete accounts one I/O.
func (w *worker) complete(u *unit, now int64, err error) {
	if u.role == roleSync || u.role == roleEndSync {
		w.completeSync(u, now, err)
		return
	}
	dir := int(u.dir)
	if err == nil && dir == jobfile.Read && w.verify != nil && u.role == roleIO && !w.job.Mode.Write {
		err = w.verify.Check(u.buf[:u.n], u.off, -1)
	}
	if err != nil {
		w.ioError(u, err)
		return
	}
	d := &w.res.Dirs[dir]
	d.IOs++
	d.Bytes += uint64(u.n)
	lat := now - u.start
	if w.job.Direct && now-u.issued < noDevice {
		u.issued = u.start // it ended while its own submission was held up
	}
	if !w.noClat {
		d.Clat.Add(now - u.issued)
	}
	if !w.noLat && !w.oneLat {
		d.Lat.Add(lat)
	}
	if w.slat {
		d.Slat.Add(u.issued - u.start)
	}
	if u.intended > 0 {
		d.Intended.Add(now - u.intended)
	}
	if w.logs.on {
		w.logs.add(u, now)
	}
	if w.target.on {
		w.target.add(lat)
	}
	w.latSum[dir] += uint64(lat)
	if w.job.MaxLatency > 0 && lat > int64(w.job.MaxLatency) && w.dropped == nil {
		w.dropped = fmt.Errorf("latency of %v is above max_latency=%v", time.Duration(lat), w.job.MaxLatency)
	}
	w.afterIO(u, dir)
}

// afterIO does what follows from a completed I/O.
func (w *worker) afterIO(u *unit, dir int) {
	switch {
	case u.role == roleVerify:
		w.checkRead(u)
	case dir == jobfile.Write && w.verify != nil:
		w.vlog.add(u)
	case dir == jobfile.Trim && w.job.Mode.Write:
		w.follow = append(w.follow, followUp{u.t, u.off, u.n})
	}
}

func (w *worker) completeSync(u *unit, now int64, err error) {
	if err != nil {
		w.ioError(u, err)
		return
	}
	if u.role == roleSync {
		w.res.Syncs++
		w.res.Sync.Add(now - u.start)
	}
}

// ioError ends the job, unless continue_on_error or ignore_error let it go on.
func (w *worker) ioError(u *unit, err error) {
	kind := 1
	var ve *gen.VerifyError
	switch {
	case errors.As(err, &ve):
		kind = 2
	case u.role != roleSync && u.role != roleEndSync && u.dir == jobfile.Read:
		kind = 0
	}
	name := [3]string{"read", "write", "verify"}[kind]
	errno := errnoOf(err)
	ignored := slices.ContainsFunc(w.job.IgnoreError[kind], func(n string) bool {
		return strings.EqualFold(n, unix.ErrnoName(syscall.Errno(errno)))
	})
	fatal := kind != 2 || w.job.VerifyFatal
	if (w.job.ContinueOn[name] || ignored) && (fatal && kind != 2 || kind == 2 && !w.job.VerifyFatal) {
		w.res.Errors++
		if w.res.FirstErrno == 0 {
			w.res.FirstErrno = errno
		}
		return
	}
	if w.dropped == nil {
		w.dropped = err
	}
}

// publishEvery is how old the sampler's view may be: storing a dozen atomics
// costs as much as a whole I/O of a RAM disk.
const publishEvery = int64(time.Millisecond)

// publish lets the sampler see the counters.
func (w *worker) publish(now int64) {
	if now-w.published < publishEvery {
		return
	}
	w.published = now
	for d := range w.res.Dirs {
		w.live.ios[d].Store(w.res.Dirs[d].IOs)
		w.live.bytes[d].Store(w.res.Dirs[d].Bytes)
		w.live.latSum[d].Store(w.latSum[d])
	}
	w.live.total.Store(w.bytes)
	w.live.active.Store(now)
}

// endRamp throws away what was measured while the job warmed up.
func (w *worker) endRamp(now int64) {
	if now-w.begin < int64(w.job.RampTime) {
		return
	}
	old := w.res
	fresh := result.Job{Spec: old.Spec, Merged: 1, Started: time.Now(), Begin: time.Duration(now), Stalls: old.Stalls}
	for d := range fresh.Dirs {
		fresh.Dirs[d].Intended = old.Dirs[d].Intended
		if h := fresh.Dirs[d].Intended; h != nil {
			h.Reset()
		}
	}
	w.run.mu.Lock()
	fresh.Points = old.Points
	*old = fresh
	w.run.mu.Unlock()
	w.latSum = [jobfile.Dirs]uint64{}
	w.logs.reset()
	w.begin, w.ramping = now, false
	w.live.state.Store(stateRunning)
	w.published = 0
	w.publish(now)
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &w.thread0)
}

// sleep waits until the run's clock is at `until`, reaping meanwhile.
func (w *worker) sleep(ctx context.Context, until int64) error {
	w.timer.until = until
	for {
		now := w.now()
		left := until - now
		if end := w.begin + int64(w.job.Runtime); w.job.Runtime > 0 && !w.ramping {
			left = min(left, end-now)
		}
		if left <= 0 || ended(ctx) || w.stop.Load() {
			return nil
		}
		left = min(left, int64(100*time.Millisecond))
		if w.flight == 0 {
			w.live.active.Store(0)
			ts := unix.NsecToTimespec(left)
			_ = unix.Nanosleep(&ts, nil) // an early return goes round again
			w.live.active.Store(w.now())
			continue
		}
		if err := w.timer.arm(left); err != nil {
			return err
		}
		before := w.flight
		if err := w.reapTimed(ctx, left); err != nil {
			return err
		}
		if w.flight < before {
			return nil // room for new I/O; the caller decides
		}
	}
}

// reapTimed reaps what comes before the timer.
func (w *worker) reapTimed(ctx context.Context, left int64) error {
	if len(w.targets) == 1 {
		return w.reap(ctx, 1)
	}
	before := w.flight
	for end := w.now() + left; w.clock < end && w.flight == before; {
		for _, t := range w.targets {
			if t.flight == 0 {
				continue
			}
			n, err := t.q.Reap(ctx, 0, w.done)
			if w.finish(t, n); err != nil && !ended(ctx) {
				return err
			}
		}
		ts := unix.NsecToTimespec(int64(50 * time.Microsecond))
		_ = unix.Nanosleep(&ts, nil)
		w.now()
	}
	return nil
}

// checkRead compares a block that the verify phase read.
func (w *worker) checkRead(u *unit) {
	err := w.vlog.check(w.verify, u)
	if err == nil {
		return
	}
	var ve *gen.VerifyError
	if w.job.VerifyDump && errors.As(err, &ve) {
		err = fmt.Errorf("%w\n%s", err, dump(ve))
	}
	w.ioError(u, &disk.Error{Op: "verify", Disk: u.t.d.Name(), Off: u.off, Len: u.n, Err: err})
}
