package server

import (
	"sync"
	"sync/atomic"
)

// share is a number of tasks that may run. Who finds none waits in a queue.
type share struct {
	max     int32
	taken   atomic.Int32
	waiting atomic.Int32
	mu      sync.Mutex
	queue   []chan struct{} // closed when its task may run; nil: it no longer waits
}

// enter takes one, unless there is none or others wait already.
func (s *share) enter() bool {
	return s.waiting.Load() == 0 && s.take()
}

func (s *share) take() bool {
	if s.taken.Add(1) <= s.max {
		return true
	}
	s.taken.Add(-1)
	return false
}

func (s *share) leave() {
	s.taken.Add(-1)
	if s.waiting.Load() > 0 {
		s.admit()
	}
}

// admit lets in those that wait, in turn. Where somebody else is about it, that one
// sees to it: thousands of tasks that waited for a lock here kept the processors busy.
func (s *share) admit() {
	for s.waiting.Load() > 0 && s.taken.Load() < s.max && s.mu.TryLock() {
		s.admitLocked()
		s.mu.Unlock()
	}
}

func (s *share) admitLocked() {
	for len(s.queue) > 0 && s.take() {
		close(s.queue[0])
		s.queue[0] = nil
		s.queue = s.queue[1:]
		s.waiting.Add(-1)
	}
}

// join waits in the queue: the channel is closed when one was taken.
func (s *share) join() chan struct{} {
	in := make(chan struct{})
	s.mu.Lock()
	s.queue = append(s.queue, in)
	s.waiting.Add(1)
	s.mu.Unlock()
	s.admit() // one may have left just before
	return in
}

// quit ends waiting, and reports whether it was too late: one was taken.
func (s *share) quit(in chan struct{}) (taken bool) {
	s.mu.Lock()
	defer s.admit()
	defer s.mu.Unlock()
	select {
	case <-in:
		return true
	default:
	}
	for i, o := range s.queue {
		if o == in {
			s.queue = append(s.queue[:i], s.queue[i+1:]...)
			s.waiting.Add(-1)
			break
		}
	}
	return false
}
