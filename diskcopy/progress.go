package diskcopy

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

// progress reports a counter, phase by phase, from a goroutine of its own.
type progress struct {
	report  func(Progress)
	every   time.Duration
	phase   string
	total   int64
	done    *atomic.Int64
	servers []waiter
	quit    chan struct{}
	wg      sync.WaitGroup
}

func startProgress(o Options, phase string, total int64, done *atomic.Int64, disks ...*disk.Disk) *progress {
	p := &progress{report: o.Progress, every: orDefault(o.ProgressEvery, 100*time.Millisecond),
		total: total, done: done, servers: waitersOf(disks)}
	p.start(phase)
	return p
}

// next begins another phase, whose name is told at once.
func (p *progress) next(phase string) {
	if p.report != nil {
		p.report(Progress{Phase: phase, Done: p.done.Load(), Total: p.total})
	}
	p.start(phase)
}

func (p *progress) start(phase string) {
	p.phase, p.quit = phase, make(chan struct{})
	if p.report == nil {
		return
	}
	p.wg.Go(func() {
		tick := time.NewTicker(p.every)
		defer tick.Stop()
		for {
			select {
			case <-p.quit:
				return
			case <-tick.C:
				p.report(p.now())
			}
		}
	})
}

func (p *progress) now() Progress {
	now := Progress{Phase: p.phase, Done: p.done.Load(), Total: p.total}
	if name, silent := longest(p.servers); silent >= toldAfter {
		now.WaitingFor, now.WaitingSeconds = name, int64(silent/time.Second)
	}
	return now
}

// end ends the goroutine.
func (p *progress) end() {
	close(p.quit)
	p.wg.Wait()
}

// stop ends the phase and reports its last state.
func (p *progress) stop() {
	p.end()
	if p.report != nil {
		p.report(Progress{Phase: p.phase, Done: p.done.Load(), Total: p.total})
	}
}
