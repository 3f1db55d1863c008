package qcow2

import (
	"slices"
	"sync"
	"sync/atomic"
)

// spans keeps what maps guest clusters anew apart from what else writes to them.
// Whoever writes into clusters that are there holds them shared. A span is held while
// one piece of one request is done, so there are as many as requests in flight.
type spans struct {
	mu      sync.Mutex
	free    sync.Cond // L is &mu; set by init
	held    []span
	waiting int
}

type span struct {
	first, last int64
	exclusive   bool
}

func (s *spans) init() { s.free.L = &s.mu }

func (s *spans) lock(first, last int64, exclusive bool) span {
	x := span{first, last, exclusive}
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.blocked(x) {
		s.waiting++
		s.free.Wait()
		s.waiting--
	}
	s.held = append(s.held, x)
	return x
}

func (s *spans) blocked(x span) bool {
	return slices.ContainsFunc(s.held, func(o span) bool {
		return o.first <= x.last && x.first <= o.last && (o.exclusive || x.exclusive)
	})
}

func (s *spans) unlock(x span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.held, x)
	last := len(s.held) - 1
	s.held[i] = s.held[last]
	s.held = s.held[:last]
	if s.waiting > 0 {
		s.free.Broadcast()
	}
}

// epochs tell when whoever may still use a cluster that was unmapped has ended: those
// that began before. An operation counts under the epoch in which it began; an epoch
// ends when the one before it has nobody left, so two counters do.
type epochs struct {
	now    atomic.Uint64
	active [2]atomic.Int64
}

func (e *epochs) enter() uint64 {
	for {
		now := e.now.Load()
		e.active[now&1].Add(1)
		if e.now.Load() == now {
			return now
		}
		e.active[now&1].Add(-1)
	}
}

func (e *epochs) leave(epoch uint64) { e.active[epoch&1].Add(-1) }

// advance begins a new epoch if nobody is left of the one before this. It reports the
// first epoch that may still have somebody. One goroutine at a time calls it.
func (e *epochs) advance() (oldest uint64) {
	now := e.now.Load()
	if e.active[(now+1)&1].Load() != 0 {
		return max(now, 1) - 1
	}
	e.now.Store(now + 1)
	return now
}
