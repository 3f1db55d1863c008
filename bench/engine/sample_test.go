package engine

import "testing"

// TestSampleBeforeBegin: a tick whose time was taken before a job began, and which
// was then kept off the CPU, does not swallow what the job did meanwhile.
func TestSampleBeforeBegin(t *testing.T) {
	t.Parallel()
	r := &runState{}
	w := newWorker(r, planOf(t, "[j]\nrw=read\nsize=1m\n").Jobs[0])
	s := &sampler{run: r, jobs: []*sampled{{w: w, point: w.mark(0), bw: w.mark(0), iops: w.mark(0)}}}
	w.live.began.Store(2000)
	w.live.ios[0].Store(5)
	w.live.bytes[0].Store(5 * 4096)
	w.live.state.Store(stateRunning)
	s.sample(1000)
	w.live.ios[0].Store(7)
	w.live.bytes[0].Store(7 * 4096)
	w.live.state.Store(stateDone)
	s.next = 0
	s.sample(3000)
	if p := w.res.Points; len(p) != 1 || p[0].IOs[0] != 7 || p[0].Bytes[0] != 7*4096 || p[0].Took != 1000 {
		t.Errorf("points %+v, want one of 7 I/Os in 1000 ns", p)
	}
}
