package engine

import (
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/bench/result"
)

const (
	// Points of the first seconds are closer, so that short jobs have a curve too.
	pointEvery = 500 * time.Millisecond
	pointFirst = 100 * time.Millisecond
	firstTime  = 10 * time.Second
	minTick    = 10 * time.Millisecond
	// stallLimit is the longest time without a completion that is no stall;
	// 100 medians are one too, but never less than stallFloor: below it the
	// scheduler's own delays would count.
	stallLimit   = time.Second
	stallFloor   = 10 * time.Millisecond
	stallMedians = 100
	// maxStalls are kept with their times; more are only counted.
	maxStalls = 10000
)

// stallWatch finds times in which I/O was in flight and nothing completed.
type stallWatch struct {
	last      int64 // completion, or start of a busy time
	threshold int64
	recompute int64
}

// busy: the first I/O after an idle time was issued.
func (s *stallWatch) busy(now int64) { s.last = now }

// completed: something completed.
func (s *stallWatch) completed(w *worker, now int64) {
	gap := now - s.last
	at := s.last
	flushing := w.flight == 0 && w.endSync
	s.last = now
	if now >= s.recompute {
		s.recompute = now + int64(time.Second)
		s.threshold = stallThreshold(w.res)
	}
	// The flush at the end of a job writes back all that was buffered: minutes are
	// nothing wrong, and they are in the bandwidth.
	if gap < s.threshold || flushing {
		return
	}
	if len(w.res.Stalls) >= maxStalls {
		w.res.StallsLost++
		return
	}
	w.res.Stalls = append(w.res.Stalls, result.Stall{At: time.Duration(at), Took: time.Duration(gap)})
}

func stallThreshold(j *result.Job) int64 {
	var median int64
	for d := range j.Dirs {
		if h := &j.Dirs[d].Clat; h.N() >= 100 {
			median = max(median, h.Percentile(50))
		}
	}
	if median == 0 {
		return int64(stallLimit)
	}
	return min(int64(stallLimit), max(stallMedians*median, int64(stallFloor)))
}

// sampler reads the workers' counters at regular intervals.
type sampler struct {
	run   *runState
	jobs  []*sampled
	tick  time.Duration
	begun int64
	next  int64 // of points
	shown int64 // progress
	ss    []*steadyWatch
	speed speedometer
}

// sampled is what the sampler remembers of one worker.
type sampled struct {
	w               *worker
	point, bw, iops mark
	minRate         mark
}

// mark is the state of the counters at one time.
type mark struct {
	at                 int64
	began              int64 // of the job
	ios, bytes, latSum [jobfile.Dirs]uint64
	state              int32
}

func (w *worker) mark(at int64) mark {
	m := mark{at: at, began: w.live.began.Load(), state: w.live.state.Load()}
	for d := range m.ios {
		m.ios[d], m.bytes[d], m.latSum[d] = w.live.ios[d].Load(), w.live.bytes[d].Load(), w.live.latSum[d].Load()
	}
	return m
}

// since returns the counts between two marks; false if the counters were reset or
// the job was not measuring.
func (m *mark) since(old *mark) (d mark, ok bool) {
	d.at = m.at - max(old.at, m.began)
	ok = (old.state == stateWaiting || old.state == stateRunning || old.state == stateVerifying) && m.state >= stateRunning
	for i := range m.ios {
		if m.ios[i] < old.ios[i] {
			return d, false
		}
		d.ios[i], d.bytes[i], d.latSum[i] = m.ios[i]-old.ios[i], m.bytes[i]-old.bytes[i], m.latSum[i]-old.latSum[i]
	}
	return d, ok && d.at > 0
}

// startSampler samples the jobs of a phase until the function it returns is called.
func (r *runState) startSampler(jobs []*worker) (stop func()) {
	s := &sampler{run: r, tick: pointFirst, begun: r.now()}
	for _, w := range jobs {
		s.tick = min(s.tick, max(w.job.BWAvg, minTick), max(w.job.IOPSAvg, minTick))
		m := w.mark(r.now())
		s.jobs = append(s.jobs, &sampled{w: w, point: m, bw: m, iops: m, minRate: m})
	}
	s.ss = steadyWatches(jobs)
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { s.loop(quit) })
	return func() {
		close(quit)
		wg.Wait()
	}
}

func (s *sampler) loop(quit <-chan struct{}) {
	t := time.NewTicker(s.tick)
	defer t.Stop()
	for {
		select {
		case <-quit:
			s.sample(s.run.now())
			return
		case <-t.C:
			s.sample(s.run.now())
		}
	}
}

func (s *sampler) sample(now int64) {
	// The ticker may fire a little early by this clock.
	const slack = int64(5 * time.Millisecond)
	points := now+slack >= s.next
	if points {
		s.next = now + int64(pointEvery)
		if now-s.begun < int64(firstTime) {
			s.next = now + int64(pointFirst)
		}
	}
	s.run.mu.Lock()
	for _, j := range s.jobs {
		m := j.w.mark(now)
		if m.began > now {
			continue // the job began after this tick's time was taken: the next one counts it
		}
		if points {
			j.addPoint(m)
		}
		j.addSamples(m, slack)
		j.checkMinimum(m)
	}
	s.run.mu.Unlock()
	for _, ss := range s.ss {
		ss.sample(now)
	}
	if s.run.cfg.Progress != nil && now-s.shown+slack >= int64(pointEvery) {
		s.shown = now
		s.run.cfg.Progress(s.status(now))
	}
}

func (j *sampled) addPoint(m mark) {
	d, ok := m.since(&j.point)
	j.point = m
	if !ok {
		return
	}
	j.w.res.Points = append(j.w.res.Points, result.Point{At: time.Duration(m.at), Took: time.Duration(d.at), IOs: d.ios, Bytes: d.bytes, LatSum: d.latSum})
}

// addSamples adds to the bandwidth and IOPS averages that fio reports as bw_min
// and so on.
func (j *sampled) addSamples(m mark, slack int64) {
	if m.at-j.bw.at+slack >= int64(j.w.job.BWAvg) {
		if d, ok := m.since(&j.bw); ok && !j.w.job.NoBW {
			for i, n := range d.bytes {
				if n > 0 {
					j.w.res.Dirs[i].BW.Add(float64(n) / 1024 * 1e9 / float64(d.at))
				}
			}
		}
		j.bw = m
	}
	if m.at-j.iops.at+slack >= int64(j.w.job.IOPSAvg) {
		if d, ok := m.since(&j.iops); ok {
			for i, n := range d.ios {
				if n > 0 {
					j.w.res.Dirs[i].IOPS.Add(float64(n) * 1e9 / float64(d.at))
				}
			}
		}
		j.iops = m
	}
}

// checkMinimum ends a job that is slower than rate_min or rate_iops_min over a
// rate_cycle.
func (j *sampled) checkMinimum(m mark) {
	job := j.w.job
	if m.at-j.minRate.at < int64(job.RateCycle) {
		return
	}
	d, ok := m.since(&j.minRate)
	j.minRate = m
	if !ok {
		return
	}
	secs := float64(d.at) / 1e9
	for i := range jobfile.Dirs {
		if !job.Mode.Has(i) {
			continue
		}
		bw, iops := float64(d.bytes[i])/secs, float64(d.ios[i])/secs
		switch {
		case bw < float64(job.RateMin[i]):
			j.w.tooSlow.Store(fmt.Sprintf("%s bandwidth of %.0f bytes/s is below rate_min=%d", jobfile.DirNames[i], bw, job.RateMin[i]))
		case iops < float64(job.RateIOPSMin[i]):
			j.w.tooSlow.Store(fmt.Sprintf("%s rate of %.0f I/Os per second is below rate_iops_min=%d", jobfile.DirNames[i], iops, job.RateIOPSMin[i]))
		default:
			continue
		}
		j.w.stop.Store(true)
	}
}

// steadyWatch ends jobs when ss= is met. Jobs of a group that reports together are
// judged together.
type steadyWatch struct {
	spec    *jobfile.SteadyState
	workers []*worker
	last    mark
	values  []float64
	bw      []float64
	iops    []float64
	begun   int64
	done    bool
}

func steadyWatches(jobs []*worker) []*steadyWatch {
	groups := map[int]*steadyWatch{}
	var out []*steadyWatch
	for _, w := range jobs {
		spec := w.job.SteadyState
		if spec == nil || spec.Duration < 2*time.Second {
			continue
		}
		s := groups[w.job.Group]
		if s == nil || !w.job.GroupReporting {
			s = &steadyWatch{spec: spec}
			groups[w.job.Group] = s
			out = append(out, s)
		}
		s.workers = append(s.workers, w)
	}
	return out
}

func (s *steadyWatch) sample(now int64) {
	if s.done {
		return
	}
	m := mark{at: now, state: stateRunning}
	for _, w := range s.workers {
		p := w.mark(now)
		if p.state != stateRunning {
			s.last, s.begun = mark{}, 0
			return
		}
		for d := range p.ios {
			m.ios[d] += p.ios[d]
			m.bytes[d] += p.bytes[d]
			m.latSum[d] += p.latSum[d]
		}
	}
	if s.begun == 0 {
		s.begun, s.last = now, m
		return
	}
	if now-s.begun < int64(s.spec.Ramp) {
		s.last = m
		return
	}
	if now-s.last.at < int64(time.Second) {
		return
	}
	d, ok := m.since(&s.last)
	s.last = m
	if ok {
		s.add(d, now)
	}
}

func (s *steadyWatch) add(d mark, now int64) {
	secs := float64(d.at) / 1e9
	var ios, bytes, lat float64
	for i := range d.ios {
		ios, bytes, lat = ios+float64(d.ios[i]), bytes+float64(d.bytes[i]), lat+float64(d.latSum[i])
	}
	v := map[string]float64{"iops": ios / secs, "bw": bytes / secs, "lat": lat / max(ios, 1)}[s.spec.Metric]
	n := int(s.spec.Duration / time.Second)
	s.values = lastN(append(s.values, v), n)
	s.bw = lastN(append(s.bw, bytes/secs), n)
	s.iops = lastN(append(s.iops, ios/secs), n)
	if len(s.values) < n {
		return
	}
	mean, deviation, slope := window(s.values)
	got := deviation
	if s.spec.Slope {
		got = math.Abs(slope)
	}
	if s.spec.Percent {
		got = got * 100 / max(mean, 1e-9)
	}
	s.done = got < s.spec.Limit
	for _, w := range s.workers {
		w.steady.Store(&result.Steady{Attained: s.done, At: time.Duration(now), Deviation: deviation, Slope: slope,
			BW: append([]float64(nil), s.bw...), IOPS: append([]float64(nil), s.iops...)})
		if s.done {
			w.stop.Store(true)
		}
	}
}

func lastN(v []float64, n int) []float64 {
	if len(v) > n {
		return v[len(v)-n:]
	}
	return v
}

// window returns the mean, the largest distance from it and the slope of the
// least-squares line per sample.
func window(v []float64) (mean, deviation, slope float64) {
	n := float64(len(v))
	var sx, sxx, sxy float64
	for i, y := range v {
		x := float64(i)
		mean += y / n
		sx, sxx, sxy = sx+x, sxx+x*x, sxy+x*y
	}
	for _, y := range v {
		deviation = max(deviation, math.Abs(y-mean))
	}
	return mean, deviation, (sxy - sx*mean) / (sxx - sx*sx/n)
}
