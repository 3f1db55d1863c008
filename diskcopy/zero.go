package diskcopy

import (
	"errors"
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

// zeroPlan is what is known about zeroing the target.
type zeroPlan struct {
	flags  disk.Flags // of ordinary zero requests
	native bool       // the target has a zero operation of its own
	status bool       // the target can report its zeros
	min    int64      // the target's block size
	step   int64      // bounds one zero request
	known  []span     // reads as zeros (and is allocated, if that is wanted)
	probe  bool       // fast zeroing is offered and not judged yet
	tries  int        // probes that did not prove it
	write  float64    // the best seconds per byte written alone so far, 0: none
	how    string     // overrides outcome
}

const (
	// muchCheaper: zeroing in bulk pays when it costs a quarter of writing or less,
	// since it also covers what is written later.
	muchCheaper = 4
	// maxTries bounds the holes zeroed one by one while the measurements are not clear.
	maxTries = 4
	// minProbe is the smallest hole whose zeroing time says anything.
	minProbe = 64 << 10
	// zeroStep bounds one zero request, for progress and cancellation; where
	// requests are quicker than quickZero, it grows.
	zeroStep  = 1 << 30
	quickZero = 50 * time.Millisecond
	// bulkStep bounds the first request of a bulk zero; each later one may be four
	// times as long as the one before, as long as all are fast.
	bulkStep = 4 << 30
	// quickStatus is what one status query must cover for asking on to be cheap: an
	// empty disk answers with very long extents.
	quickStatus = 256 << 20
	// statusTime bounds the queries for an empty target.
	statusTime = time.Second
)

// outcome is Stats.ZeroBy.
func (p *zeroPlan) outcome(zeroed bool) string {
	switch {
	case p.how != "":
		return p.how
	case zeroed:
		return "each hole"
	case len(p.known) > 0:
		return "target was zero"
	}
	return "none needed"
}

// knownHead is how much of [off, off+n) from off on is known to be zero, or
// else how much is not.
func (p *zeroPlan) knownHead(off, n int64) (int64, bool) {
	for _, k := range p.known {
		if off >= k.off && off < k.end() {
			return min(n, k.end()-off), true
		}
		if off < k.off {
			n = min(n, k.off-off)
		}
	}
	return n, false
}

func (p *zeroPlan) knows(off, n int64) bool {
	head, known := p.knownHead(off, n)
	return known && head == n
}

// enough reports whether a part of the target that has these flags needs no zeroing.
func (p *zeroPlan) enough(f disk.ExtentFlags) bool {
	return f&disk.ExtentZero != 0 && (p.flags&disk.MayTrim != 0 || f&disk.ExtentHole == 0)
}

// prepareZero does what the strategy asks for before the first task.
func (e *engine) prepareZero() error {
	in, p := e.dst.Info(), &e.plan
	p.native, p.min, p.status = in.Zero == disk.Native, in.Min, in.HasMap(disk.Allocation)
	p.step = zeroStep
	if !e.opt.Allocate {
		p.flags = disk.MayTrim
	}
	all := span{off: e.walk.pos, n: e.size - e.walk.pos}
	switch {
	case e.opt.Strategy == Write:
		p.how = "writes"
	case e.opt.TargetIsZero && !e.opt.Allocate:
		p.known = append(p.known, e.untouched(all))
	case e.opt.Strategy == PreZero:
		return e.zeroAll(all, 0)
	case e.opt.Strategy == NoFallback:
		return e.zeroAll(all, disk.FastOnly)
	case e.opt.Strategy != Auto:
	case in.KnownZero && !e.opt.Allocate:
		p.known = append(p.known, all)
	default:
		p.probe = in.FastZero == disk.Native
		return e.askTarget(all)
	}
	return nil
}

// untouched is the part of s that no earlier run may have written to.
func (e *engine) untouched(s span) span {
	if e.journal == nil || e.journal.sentTo <= s.off {
		return s
	}
	off := min(e.journal.sentTo, s.end())
	return span{off: off, n: s.end() - off}
}

// zeroAll zeroes the target before anything is written.
func (e *engine) zeroAll(s span, f disk.Flags) error {
	if s.n == 0 {
		return nil
	}
	err := e.dst.Zero(e.io, s.off, s.n, e.plan.flags|f)
	if f&disk.FastOnly != 0 && errors.Is(err, disk.ErrNotFast) {
		if e.dst.Info().FastZero == disk.Native {
			e.total.Refused++
		}
		return nil
	}
	if err != nil {
		return targetErr(err)
	}
	e.total.Zero.add(s.n)
	e.plan.known = append(e.plan.known, s)
	e.plan.how = "bulk"
	return nil
}

// askTarget finds out how far the target reads as zeros from the start of s on,
// for as long as the answers come cheaply.
func (e *engine) askTarget(s span) error {
	if !e.plan.status {
		return nil
	}
	off, deadline := s.off, time.Now().Add(statusTime)
	for off < s.end() && time.Now().Before(deadline) {
		ext, err := e.dst.Extents(e.io, disk.Allocation, off, s.end()-off, e.workers[0].ext[:0])
		if err != nil {
			return targetErr(err)
		}
		e.total.Counts.Status.add(0)
		from := off
		for _, x := range ext {
			if !e.plan.enough(x.Flags) {
				break
			}
			off = min(off+x.Len, s.end())
		}
		e.total.Counts.Status.Bytes += off - from
		if off-from < quickStatus {
			break
		}
	}
	if off < s.end() {
		off -= off % max(e.plan.min, 1) // the map may be finer than what can be written
	}
	if off > s.off {
		e.plan.known = append(e.plan.known, span{off: s.off, n: off - s.off})
	}
	return nil
}

// planHole deals with the head of the hole at cur: by a task, or (false) on the spot.
func (e *engine) planHole(w *worker) (task, bool, error) {
	head, known := e.plan.knownHead(e.cur.off, e.cur.n)
	switch {
	case known:
		e.skip(head)
		return task{}, false, nil
	case e.opt.Strategy == Write || !e.plan.native:
		e.plan.how = "writes"
		return e.take(taskWrite, min(head, e.opt.RequestSize-e.cur.off%e.opt.RequestSize)), true, nil
	case e.opt.Strategy == StatusFirst && e.plan.status:
		e.plan.how = "each hole, where not zero"
		return e.take(taskStatus, min(head, e.plan.step)), true, nil
	case e.plan.probe && head >= minProbe:
		return task{}, false, e.measure(w, min(head, e.plan.step))
	}
	return e.take(taskZero, min(head, e.plan.step)), true, nil
}

func (e *engine) skip(n int64) {
	e.total.Skip.add(n)
	e.consume(n)
	e.done.Add(n)
}

// measure zeroes the first n bytes of the hole at cur fast, alone, and compares
// the cost with that of the data that follows, written alone. Both are work
// that has to be done anyway, so a server that claims to zero fast and writes
// gains nothing and costs nothing. If zeroing was much cheaper, the rest of the
// target, from the next hole on, is zeroed in bulk.
//
// A bulk zero as the first request would save this one, but then a server
// that lies would already have written all the data's ranges: before the first
// zero request an honest server and a lying one behave alike.
func (e *engine) measure(w *worker, n int64) error {
	e.probing = true
	defer func() {
		e.probing = false
		e.changed.Broadcast()
	}()
	for e.busy > 0 {
		e.changed.Wait()
	}
	if e.firstErr != nil {
		return nil
	}
	took, err := e.fastZero(e.cur.off, n)
	if errors.Is(err, disk.ErrNotFast) {
		e.plan.probe = false
		e.total.Refused++
		return nil
	}
	if err != nil {
		return err
	}
	e.total.Probes++
	e.zeroed(n, took)
	if err := e.sampleWrites(w); err != nil {
		return err
	}
	if e.plan.write == 0 {
		return nil
	}
	if took.Seconds()*muchCheaper <= e.plan.write*float64(n) {
		return e.bulkZero()
	}
	e.plan.tries++
	e.plan.probe = e.plan.tries < maxTries
	return nil
}

// zeroed counts the head of cur as zeroed fast. The next request of the same hole
// may be longer if this one took no time to speak of.
func (e *engine) zeroed(n int64, took time.Duration) {
	e.total.Zero.add(n)
	e.consume(n)
	e.done.Add(n)
	if n == e.plan.step && took < quickZero {
		e.plan.step *= 4
	}
}

// fastZero is one timed request, with the lock released meanwhile.
func (e *engine) fastZero(off, n int64) (time.Duration, error) {
	e.mu.Unlock()
	defer e.mu.Lock()
	start := time.Now()
	err := e.dst.Zero(e.io, off, n, e.plan.flags|disk.FastOnly)
	return time.Since(start), targetErr(err)
}

// sampleWrites copies the next data, two requests at most and none beyond the
// next hole, one after the other.
func (e *engine) sampleWrites(w *worker) error {
	for range 2 {
		if err := e.fill(); err != nil || e.cur.n == 0 || e.cur.zero {
			return err
		}
		t := task{kind: taskCopy, off: e.cur.off, n: e.cur.n, known: e.plan.knows(e.cur.off, e.cur.n)}
		took, err := e.alone(w, t)
		if err != nil {
			return err
		}
		e.consume(t.n)
		e.done.Add(t.n)
		if cost := took.Seconds() / float64(t.n); took > 0 && (e.plan.write == 0 || cost < e.plan.write) {
			e.plan.write = cost
		}
	}
	return nil
}

// alone copies t with the lock released meanwhile.
func (e *engine) alone(w *worker, t task) (time.Duration, error) {
	e.send(t)
	e.mu.Unlock()
	defer e.mu.Lock()
	return w.timedCopy(t)
}

// bulkZero zeroes all that is not dealt with yet in as few requests as the
// target takes, for as long as that stays cheap.
func (e *engine) bulkZero() error {
	if err := e.fill(); err != nil || e.cur.n == 0 {
		return err
	}
	from, off, step := e.walk.pos-e.cur.n, e.walk.pos-e.cur.n, int64(bulkStep)
	for off < e.size && e.ctx.Err() == nil {
		n := min(step, e.size-off)
		if most := e.dst.Info().MaxZero; most > 0 {
			n = min(n, most)
		}
		took, err := e.fastZero(off, n)
		if errors.Is(err, disk.ErrNotFast) {
			break
		}
		if err != nil {
			return err
		}
		e.total.Zero.add(n)
		off, step = off+n, step*4
		if took.Seconds()*muchCheaper > e.plan.write*float64(n) {
			break
		}
	}
	e.plan.probe = false
	if off > from {
		e.plan.known = append(e.plan.known, span{off: from, n: off - from})
		e.plan.how = "bulk"
	}
	return nil
}
