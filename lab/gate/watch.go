package gate

import (
	"sync"
	"time"

	"github.com/vmdisk/vmdisk/lab/agent"
)

// watch calls back at the common start, each second, and at the end.
type watch struct {
	parts []*part
	o     *Options
	done  chan struct{}
	wg    sync.WaitGroup
}

func newWatch(parts []*part, o *Options) *watch {
	return &watch{parts: parts, o: o, done: make(chan struct{})}
}

// at begins at a time of the host's monotonic clock, in nanoseconds.
func (w *watch) at(start int64) {
	w.wg.Go(func() {
		select {
		case <-w.done:
			return
		case <-time.After(time.Duration(start - agent.Monotonic())):
		}
		if w.o.Started != nil {
			w.o.Started()
		}
		w.tell()
	})
}

func (w *watch) tell() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-w.done:
			return
		case <-tick.C:
			if w.o.Progress != nil {
				w.o.Progress(w.sum())
			}
		}
	}
}

// sum adds the rates of all nodes; the share is of the slowest.
func (w *watch) sum() agent.Progress {
	total := agent.Progress{Share: 1}
	for _, p := range w.parts {
		now := p.running.Progress()
		total.IOPS += now.IOPS
		total.BW += now.BW
		total.Share = min(total.Share, now.Share)
		total.Stalled = max(total.Stalled, now.Stalled)
	}
	return total
}

func (w *watch) stop() {
	close(w.done)
	w.wg.Wait()
	if w.o.Ended != nil {
		w.o.Ended()
	}
}
