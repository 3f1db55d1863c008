package engine

import (
	"time"

	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// speedometer turns the sum of all counters into rates.
type speedometer struct {
	at         int64
	ios, bytes [jobfile.Dirs]uint64
}

// status sums up the run for a progress line.
func (s *sampler) status(now int64) Status {
	st := Status{Elapsed: time.Duration(now), ETA: -1, CurrentPhase: int(s.run.phase.Load()) + 1}
	var sum speedometer
	sum.at = now
	var eta time.Duration
	known := true
	for _, j := range s.jobs {
		for d := range sum.ios {
			sum.ios[d] += j.point.ios[d]
			sum.bytes[d] += j.point.bytes[d]
		}
		switch j.point.state {
		case stateDone:
			st.Done++
			st.Share++
			continue
		case stateWaiting:
			st.Waiting++
		case stateRamping:
			st.Ramping = true
			fallthrough
		default:
			st.Running++
		}
		share, left, ok := j.w.progress(now)
		st.Share += share
		eta = max(eta, left)
		known = known && ok
		if since := j.w.live.active.Load(); since > 0 && now-since > int64(stallLimit) {
			st.StalledFor = max(st.StalledFor, time.Duration(now-since))
		}
	}
	st.Share /= float64(len(s.jobs))
	if known {
		st.ETA = eta + s.run.later()
	}
	s.speed.rates(&sum, &st)
	s.speed = sum
	return st
}

func (s *speedometer) rates(sum *speedometer, st *Status) {
	secs := float64(sum.at-s.at) / 1e9
	for d := range sum.ios {
		if sum.ios[d] >= s.ios[d] && secs > 0 {
			st.IOPS[d] = float64(sum.ios[d]-s.ios[d]) / secs
			st.BW[d] = float64(sum.bytes[d]-s.bytes[d]) / secs
		}
	}
}

// progress estimates how far the job is and how long it still needs.
func (w *worker) progress(now int64) (share float64, left time.Duration, known bool) {
	j := w.job
	elapsed := time.Duration(now) - time.Duration(w.live.began.Load())
	planned := j.RampTime + j.Runtime + j.StartDelay[1]
	switch {
	case w.live.state.Load() == stateWaiting && j.Runtime > 0:
		return 0, planned, true
	case w.live.state.Load() == stateWaiting:
		return 0, 0, false
	}
	byTime := 0.0
	if j.Runtime > 0 {
		byTime = min(1, float64(elapsed)/float64(j.RampTime+j.Runtime))
	}
	byBytes := 0.0
	if limit := w.limit * int64(j.Loops); !j.TimeBased && limit > 0 {
		byBytes = min(1, float64(w.live.total.Load())/float64(limit))
	}
	if share = max(byTime, byBytes); share < 0.001 {
		return share, 0, false
	}
	return share, time.Duration(float64(elapsed) * (1 - share) / share), true
}

// later is the planned time of the phases to come, as far as it is known.
func (r *runState) later() time.Duration {
	byPhase := map[int]time.Duration{}
	for _, w := range r.workers {
		if p := w.job.Phase; p > int(r.phase.Load()) {
			byPhase[p] = max(byPhase[p], w.job.RampTime+w.job.Runtime+w.job.StartDelay[1])
		}
	}
	var sum time.Duration
	for _, t := range byPhase {
		sum += t
	}
	return sum
}
