package engine

import (
	"context"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/vmdisk/vmdisk/bench/gen"
	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/disk"
)

// issueAll keeps the queue full until the pass is over, then waits for what is in
// flight.
func (w *worker) issueAll(ctx context.Context) error {
	for w.dropped == nil {
		w.checkEnd(ctx)
		if w.ending && len(w.follow) == 0 && !w.mayFollow() {
			break
		}
		held, err := w.issueMore(ctx)
		if err != nil {
			return w.drainAfter(err)
		}
		if err := w.await(ctx, held); err != nil {
			return w.drainAfter(err)
		}
		if w.verify == nil {
			continue
		}
		if err := w.backlogDue(ctx); err != nil {
			return w.drainAfter(err)
		}
	}
	return w.drainAfter(w.dropped)
}

// mayFollow: trims in flight will still ask for their writes.
func (w *worker) mayFollow() bool { return w.job.Mode.Trim && w.job.Mode.Write && w.flight > 0 }

// drainAfter waits for what is in flight, whatever happened before.
func (w *worker) drainAfter(err error) error {
	if err2 := w.drain(); err == nil {
		err = err2
	}
	return err
}

// checkEnd sets ending when nothing new is to be issued.
func (w *worker) checkEnd(ctx context.Context) {
	switch {
	case w.ending:
	case w.stop.Load(), w.expired():
		w.ending = true
	case ended(ctx):
		w.res.Interrupted, w.ending = true, true
	case w.job.NumberIOs > 0 && w.count >= w.job.NumberIOs:
		w.ending = true
	case w.bytes >= w.limit && !w.job.TimeBased:
		w.ending = true
	}
}

// issueMore issues until the depth is reached, a batch boundary says to look for
// completions, or the job is held back until the time it returns (0: not held).
func (w *worker) issueMore(ctx context.Context) (held int64, err error) {
	for !w.full() && (!w.ending || len(w.follow) > 0) {
		held, err = w.choose()
		if err != nil || held > 0 || w.ending && len(w.follow) == 0 {
			break
		}
		if len(w.pending) >= w.job.Batch {
			if err := w.submit(); err != nil {
				return 0, err
			}
			if len(w.pending) > 0 {
				return 0, nil // the queue is busy
			}
			if w.full() {
				break
			}
			w.checkEnd(ctx)
		}
		if w.bytes >= w.limit || w.job.NumberIOs > 0 && w.count >= w.job.NumberIOs {
			w.checkEnd(ctx)
		}
	}
	if len(w.pending) == 0 {
		return held, err
	}
	if err2 := w.submit(); err == nil {
		err = err2
	}
	return held, err
}

func (w *worker) full() bool { return w.flight+len(w.pending) >= w.depth || len(w.free) == 0 }

// choose decides on the next I/O and appends it to pending. It returns a time to
// wait for instead where the job is held back.
func (w *worker) choose() (held int64, err error) {
	if len(w.follow) > 0 {
		f := w.follow[len(w.follow)-1]
		w.follow = w.follow[:len(w.follow)-1]
		w.prepare(f.t, jobfile.Write, f.off, f.n, 0)
		return 0, nil
	}
	if !w.plain {
		if held = w.thinking(); held > 0 {
			return held, nil
		}
		if w.syncDue() {
			w.prepareSync(w.targets[w.next%len(w.targets)])
			return 0, nil
		}
		if w.flow != nil && !w.flowAllows() {
			return w.clock + int64(max(w.job.FlowSleep, 50*time.Microsecond)), nil
		}
	}
	t := w.pickTarget()
	if t == nil {
		w.ending = true
		return 0, nil
	}
	dir, intended := w.draws.Dir(), int64(0)
	if w.rate.any {
		if dir, intended, held = w.rate.pick(dir, w.now()); held > 0 {
			return w.holdBack(held)
		}
	}
	off, n, ok := t.stream.Next(dir)
	if !ok {
		w.passOver(t)
		return 0, nil
	}
	if w.verify != nil && dir == jobfile.Write && w.vlog.overlaps && w.collides(t, off, n) {
		// Two writes in flight to one block would leave it undecided which one a
		// later check has to find.
		if err := w.submit(); err != nil {
			return 0, err
		}
		if err := w.drain(); err != nil {
			return 0, err
		}
	}
	w.draws.Issued(dir)
	if w.rate.any {
		w.rate.issued(dir, n)
	}
	w.prepare(t, dir, off, n, intended)
	w.bytes += n
	w.count++
	return 0, nil
}

// holdBack returns until when a rated job that is ahead waits. Like fio it first lets
// everything in flight complete, and then waits for the whole gap there was: I/Os
// come in bursts, and that decides the latencies. io_submit_mode=offload does neither.
func (w *worker) holdBack(until int64) (int64, error) {
	if w.job.Offload || w.flight+len(w.pending) == 0 {
		return until, nil
	}
	gap := until - w.clock
	if err := w.drain(); err != nil {
		return 0, err
	}
	return w.now() + gap, nil
}

// passOver ends the use of a file, or begins the next round over it.
func (w *worker) passOver(t *target) {
	if w.job.TimeBased || w.bytes < w.limit && w.limit > w.total {
		t.stream.Restart()
		w.again(t)
		w.vlog.overlaps = w.vlog.overlaps || w.verify != nil
		return
	}
	t.ended = true
	w.draws.Drop()
}

// pickTarget chooses the file of the next I/O.
func (w *worker) pickTarget() *target {
	if len(w.targets) == 1 { // the usual case, without a division
		if t := w.targets[0]; !t.ended {
			return t
		}
		return nil
	}
	if w.job.FileService == "random" {
		return w.drawTarget()
	}
	for range w.targets {
		t := w.targets[w.next%len(w.targets)]
		if w.job.FileService != "sequential" || t.ended {
			w.next++
		}
		if !t.ended {
			return t
		}
	}
	return nil
}

// drawTarget draws until it meets a file that is not ended.
func (w *worker) drawTarget() *target {
	if !slices.ContainsFunc(w.targets, func(t *target) bool { return !t.ended }) {
		return nil
	}
	for {
		if t := w.targets[w.draws.File(len(w.targets))]; !t.ended {
			return t
		}
	}
}

// prepare fills a unit and appends its operation.
func (w *worker) prepare(t *target, dir int, off, n, intended int64) {
	i := w.free[len(w.free)-1]
	w.free = w.free[:len(w.free)-1]
	u := &w.units[i]
	u.t, u.dir, u.role, u.off, u.n, u.intended = t, uint8(dir), roleIO, off, n, intended
	op := disk.Op{Off: off, Len: n, Tag: uint64(i)}
	switch dir {
	case jobfile.Trim:
		op.Kind = disk.Trim
	case jobfile.Write:
		op.Kind = disk.Write
		if w.job.Sync != "" {
			op.Flags = disk.FUA
		}
		w.content(u)
		w.unsynced++
		u.vec[0] = u.buf[:n]
		op.Vec, op.Buf = u.vec[:], 1
	default:
		op.Kind = disk.Read
		u.vec[0] = u.buf[:n]
		op.Vec, op.Buf = u.vec[:], 1
	}
	u.start = w.startTime()
	w.pending = append(w.pending, op)
	w.dirRun[dir] = true
	w.think++
}

// startTime is the start of the I/O just chosen. Where the submission is timed of
// its own, the clock of the completion or submission before will do, unless the
// choice took long.
func (w *worker) startTime() int64 {
	if !w.async || w.job.RefillBuffers || w.verify != nil || w.rate.any {
		return w.now()
	}
	return w.clock
}

// content fills the buffer of a write.
func (w *worker) content(u *unit) {
	buf := u.buf[:u.n]
	w.fill.Next(buf, u.off, w.clock)
	if w.verify == nil {
		return
	}
	u.number = w.writeSeq
	w.writeSeq++
	at := w.run.start.Add(time.Duration(w.clock))
	w.verify.Write(buf, u.off, gen.Stamp{Seed: uint64(u.off)*0x9e3779b97f4a7c15 + uint64(u.number), Number: uint64(u.number),
		Thread: uint16(w.job.Number), Sec: uint32(at.Unix()), Nanosec: uint32(at.Nanosecond())})
}

// syncDue reports whether fsync= or fdatasync= wants a flush now.
func (w *worker) syncDue() bool {
	n := w.job.Fsync
	if n == 0 {
		n = w.job.Fdatasync
	}
	return n > 0 && w.unsynced >= n
}

func (w *worker) prepareSync(t *target) {
	i := w.free[len(w.free)-1]
	w.free = w.free[:len(w.free)-1]
	u := &w.units[i]
	u.t, u.role, u.off, u.n = t, roleSync, 0, 0
	u.start = w.now()
	w.pending = append(w.pending, disk.Op{Kind: disk.Flush, Tag: uint64(i)})
	w.unsynced = 0
}

// syncAll flushes every file of the job and waits. As in fio these flushes are
// part of the runtime, but not of the sync figures.
func (w *worker) syncAll() error {
	w.endSync = true
	// Nothing is to be done but this: a long flush at the end is no stall.
	w.live.active.Store(0)
	defer func() { w.endSync = false }()
	for _, t := range w.targets {
		w.prepareSync(t)
		w.units[w.pending[len(w.pending)-1].Tag].role = roleEndSync
		if err := w.submit(); err != nil {
			return err
		}
		if err := w.drain(); err != nil {
			return err
		}
	}
	return w.dropped
}

// submit hands pending operations to their queues.
func (w *worker) submit() error {
	for len(w.pending) > 0 {
		t := w.units[w.pending[0].Tag].t
		n := 1
		for n < len(w.pending) && w.units[w.pending[n].Tag].t == t {
			n++
		}
		took, err := t.q.Submit(w.pending[:n])
		now := w.clock
		if w.async {
			now = w.now()
		}
		for i := range took {
			u := &w.units[w.pending[i].Tag]
			u.issued = now
			if !w.async {
				// The submission of a synchronous engine is the I/O.
				u.issued = u.start
			}
			if w.flight == 0 {
				w.stalls.busy(now)
			}
			w.flight++
			t.flight++
			w.countDepth()
		}
		w.res.Submit[mapIndex(took)]++
		w.res.Submits++
		w.res.Issued += uint64(took)
		if took == len(w.pending) {
			w.pending = w.pending[:0]
		} else {
			w.pending = w.pending[:copy(w.pending, w.pending[took:])]
		}
		if err != nil {
			return fmt.Errorf("submit: %w", err)
		}
		if took < n {
			return nil
		}
	}
	return nil
}

// countDepth and mapIndex use fio's classes of depth and batch.
func (w *worker) countDepth() {
	w.res.Depth[min(bits.Len(uint(w.flight))-1, 6)]++
}

func mapIndex(n int) int {
	switch {
	case n == 0:
		return 0
	case n <= 4:
		return 1
	case n <= 8:
		return 2
	case n <= 16:
		return 3
	case n <= 32:
		return 4
	case n <= 64:
		return 5
	}
	return 6
}

// thinking returns until when thinktime holds the job back.
func (w *worker) thinking() int64 {
	if w.job.ThinkTime == 0 || w.think < w.job.ThinkBlocks {
		return 0
	}
	if !w.job.ThinkIssue && w.flight+len(w.pending) > 0 {
		return w.clock + int64(time.Hour) // a completion comes first
	}
	w.think = 0
	from := w.now()
	for spin := from + int64(w.job.ThinkSpin); w.clock < spin; {
		w.now()
	}
	if w.job.RateIgnoresThink {
		w.rate.shift(int64(w.job.ThinkTime))
	}
	w.timer.until = from + int64(w.job.ThinkTime)
	return w.timer.until
}

// flowAllows reports whether the job is within its share of the flow, and counts
// one more if so.
func (w *worker) flowAllows() bool {
	total := w.flow.total.Load()
	if w.issued*w.flow.weight > total*w.job.Flow {
		return false
	}
	w.issued++
	w.flow.total.Add(1)
	return true
}

// collides reports whether a write is in flight in [off, off+n).
func (w *worker) collides(t *target, off, n int64) bool {
	if w.flight+len(w.pending) == 0 {
		return false
	}
	for i := range w.units {
		u := &w.units[i]
		if u.t == t && u.n > 0 && u.off < off+n && off < u.off+u.n {
			return true
		}
	}
	return false
}
