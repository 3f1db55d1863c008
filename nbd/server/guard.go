package server

import (
	"sync/atomic"
	"time"
)

// guardTick is how often the guard looks; a connection is unheard for two ticks at most.
const guardTick = 25 * time.Millisecond

// guardRest is for how many quiet ticks it goes on looking.
const guardRest = 40

// guard notices that nobody has waited for the idle connections for a while: the
// goroutine that served last is blocked where nothing should block for long. It
// sleeps while somebody waits and costs nothing then.
type guard struct {
	times  atomic.Int64 // how often waiting fell to 0
	asleep atomic.Bool
	kick   chan struct{}
	end    chan struct{} // closed at the end of the server
}

// alone is called when nobody is waiting any more.
func (g *guard) alone() {
	g.times.Add(1)
	if g.asleep.Load() && g.asleep.CompareAndSwap(true, false) {
		g.kick <- struct{}{} // there is room: one for each time it fell asleep
	}
}

// watch is the guard's goroutine.
func (p *poller) watch() {
	defer p.wg.Done()
	g, tick := &p.guard, time.NewTicker(guardTick)
	defer tick.Stop()
	for seen, quiet := int64(0), 0; ; quiet++ {
		if quiet >= guardRest {
			tick.Stop()
			if !p.sleep() {
				return
			}
			tick.Reset(guardTick)
			quiet = 0
		}
		select {
		case <-g.end:
			return
		case <-tick.C:
		}
		switch now := g.times.Load(); {
		case now != seen: // it goes on
			seen, quiet = now, 0
		case p.waiting.Load() == 0:
			p.ensureWaiter()
		}
	}
}

// sleep returns when nobody waits any more, or false at the end.
func (p *poller) sleep() bool {
	g := &p.guard
	g.asleep.Store(true)
	// Whoever was last to wait either sees that the guard sleeps or is seen here.
	if p.waiting.Load() == 0 && g.asleep.CompareAndSwap(true, false) {
		return true
	}
	select {
	case <-g.kick:
		return true
	case <-g.end:
		return false
	}
}
