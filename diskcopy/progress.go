package diskcopy

import (
	"sync"
	"sync/atomic"
	"time"
)

// progress reports a counter from a goroutine of its own until stop.
type progress struct {
	report func(Progress)
	phase  string
	total  int64
	done   *atomic.Int64
	quit   chan struct{}
	wg     sync.WaitGroup
}

func startProgress(o Options, phase string, total int64, done *atomic.Int64) *progress {
	p := &progress{report: o.Progress, phase: phase, total: total, done: done, quit: make(chan struct{})}
	if p.report == nil {
		return p
	}
	every := orDefault(o.ProgressEvery, 100*time.Millisecond)
	p.wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-p.quit:
				return
			case <-tick.C:
				p.report(Progress{p.phase, p.done.Load(), p.total})
			}
		}
	})
	return p
}

// stop ends the goroutine and reports the last state.
func (p *progress) stop() {
	close(p.quit)
	p.wg.Wait()
	p.announce(p.phase)
}

// announce reports the current state under the name of a phase; not while the
// goroutine runs.
func (p *progress) announce(phase string) {
	if p.report != nil {
		p.report(Progress{phase, p.done.Load(), p.total})
	}
}
