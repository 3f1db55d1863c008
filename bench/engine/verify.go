package engine

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/vmdisk/vmdisk/bench/gen"
	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// written is one write that is to be verified.
type written struct {
	off    int64
	n      int32
	t      *target
	number int64
}

// writeLog remembers the writes of a verifying job. Where a block may be written
// twice it also keeps who wrote each verify_interval last.
type writeLog struct {
	on       bool
	overlaps bool
	step     int64
	list     []written
	owner    map[ownerKey]int64
	verified int // list[:verified] was checked (verify_backlog)
}

type ownerKey struct {
	t   *target
	off int64
}

func (l *writeLog) init(j *jobfile.Job, overlaps bool) {
	l.on, l.overlaps, l.step = true, overlaps, max(j.VerifyInterval, 1)
	l.owner = map[ownerKey]int64{}
}

// newPass forgets the pass before: its blocks were verified or are overwritten.
func (l *writeLog) newPass() {
	l.list, l.verified = l.list[:0], 0
	clear(l.owner)
}

func (l *writeLog) add(u *unit) { l.note(u.t, u.off, u.n, u.number) }

func (l *writeLog) note(t *target, off, n, number int64) {
	l.list = append(l.list, written{off: off, n: int32(n), t: t, number: number})
	if !l.overlaps {
		return
	}
	for o := off; o < off+n; o += l.step {
		l.owner[ownerKey{t, o}] = number
	}
}

// pending returns the writes that nobody has verified.
func (l *writeLog) pending() []written {
	out := l.list[l.verified:]
	l.verified = len(l.list)
	return out
}

// check verifies what was read into u interval by interval.
func (l *writeLog) check(v *gen.Verifier, u *unit) error {
	if !l.overlaps {
		return v.Check(u.buf[:u.n], u.off, u.number)
	}
	for o := int64(0); o < u.n; o += l.step {
		number, ok := l.owner[ownerKey{u.t, u.off + o}]
		if !ok {
			number = -1
		}
		if err := v.Check(u.buf[o:min(o+l.step, u.n)], u.off+o, number); err != nil {
			return err
		}
	}
	return nil
}

// verifyPhase reads blocks back and checks them. It counts as reads, as in fio.
func (w *worker) verifyPhase(ctx context.Context, list []written) error {
	if len(list) == 0 {
		return nil
	}
	w.live.state.Store(stateVerifying)
	defer w.live.state.Store(stateRunning)
	started := w.now()
	for _, b := range list {
		for w.full() {
			if err := w.reap(ctx, 1); err != nil {
				return w.drainAfter(err)
			}
		}
		if w.dropped != nil || w.interrupted(ctx) || w.stop.Load() || w.expired() {
			break
		}
		w.prepare(b.t, jobfile.Read, b.off, int64(b.n), 0)
		u := &w.units[w.pending[len(w.pending)-1].Tag]
		u.role, u.number = roleVerify, b.number
		if err := w.submit(); err != nil {
			return w.drainAfter(err)
		}
	}
	err := w.drainAfter(w.dropped)
	w.dirRun = [jobfile.Dirs]bool{jobfile.Read: true}
	w.addRuntime(started)
	return err
}

// simulate records the writes of a pass without doing them (verify_only).
func (w *worker) simulate() {
	for w.bytes < w.limit {
		t := w.pickTarget()
		if t == nil {
			return
		}
		dir := w.draws.Dir()
		off, n, ok := t.stream.Next(dir)
		if !ok {
			t.ended = true
			continue
		}
		w.draws.Issued(dir)
		w.vlog.note(t, off, n, -1)
		w.bytes += n
	}
}

// backlogDue verifies what verify_backlog has collected.
func (w *worker) backlogDue(ctx context.Context) error {
	if w.job.VerifyBacklog == 0 || int64(len(w.vlog.list)-w.vlog.verified) < w.job.VerifyBacklog {
		return nil
	}
	if err := w.drain(); err != nil {
		return err
	}
	list := w.vlog.list[w.vlog.verified:]
	if n := w.job.VerifyBatch; n > 0 && n < int64(len(list)) {
		list = list[:n]
	}
	w.vlog.verified += len(list)
	running := w.dirRun
	err := w.verifyPhase(ctx, append([]written(nil), list...))
	w.dirRun = running
	return err
}

// dumpBytes of a block are shown by verify_dump.
const dumpBytes = 256

func dump(e *gen.VerifyError) string {
	b := e.Block[:min(len(e.Block), dumpBytes)]
	return fmt.Sprintf("block at %d as found (first %d bytes):\n%s", e.Off, len(b), hex.Dump(b))
}

// latencyTarget adapts the depth so that latency_percentile of the I/Os of each
// latency_window stay below latency_target.
type latencyTarget struct {
	on          bool
	w           *worker
	limit       int64
	windowEnd   int64
	total, late uint64
	low, high   int // depths known to be good and bad (0: none yet)
}

func (l *latencyTarget) init(w *worker) {
	if w.job.LatencyTarget == 0 {
		return
	}
	*l = latencyTarget{on: true, w: w, limit: int64(w.job.LatencyTarget)}
	w.depth = 1
}

func (l *latencyTarget) add(lat int64) {
	l.total++
	if lat > l.limit {
		l.late++
	}
	w := l.w
	if l.windowEnd == 0 {
		l.windowEnd = w.clock + int64(w.job.LatencyWindow)
	}
	if w.clock < l.windowEnd {
		return
	}
	good := float64(l.total-l.late)*100 >= w.job.LatencyPct*float64(l.total)
	l.total, l.late, l.windowEnd = 0, 0, w.clock+int64(w.job.LatencyWindow)
	l.judge(good)
	w.res.LatencyDepth = max(l.low, 1)
}

// judge doubles the depth until it is too much, then halves the gap. When the gap
// is closed the job ends, unless latency_run keeps it going.
func (l *latencyTarget) judge(good bool) {
	w := l.w
	if good {
		l.low = w.depth
	} else {
		l.high = w.depth
	}
	switch {
	case l.high == 0:
		w.depth = min(w.depth*2, w.job.Depth)
		if l.low == w.job.Depth {
			l.found()
		}
	case l.high-l.low <= 1:
		w.depth = max(l.low, 1)
		l.found()
	default:
		w.depth = max((l.low+l.high)/2, 1)
	}
}

func (l *latencyTarget) found() {
	if !l.w.job.LatencyRun {
		l.w.ending = true
		l.w.stop.Store(true)
		return
	}
	l.low, l.high = max(l.w.depth-1, 0), 0
}
