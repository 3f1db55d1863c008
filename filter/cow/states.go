package cow

import "sync"

// state says where the content of a block is.
type state byte

const (
	below state = iota // in the disk below, unchanged
	held               // in the overlay
	zero               // nowhere: zeros
)

// pageBlocks is how many blocks a page of states covers: 4 GiB of 64 KiB blocks.
const pageBlocks = 64 << 10

// page is the states of its blocks; without states all are alike.
type page struct {
	all    state
	states *[pageBlocks]state
	count  [3]int // of each state
}

func uniform(all state) *page {
	p := &page{all: all}
	p.count[all] = pageBlocks
	return p
}

func (p *page) get(i int64) state {
	if p.states == nil {
		return p.all
	}
	return p.states[i]
}

func (p *page) set(i int64, to state) {
	if p.states == nil {
		p.states = new([pageBlocks]state)
		for j := range p.states {
			p.states[j] = p.all
		}
	}
	p.count[p.states[i]]--
	p.count[to]++
	p.states[i] = to
}

var untouched = uniform(below)

// states is the state of every block. A page that is not there is untouched.
type states struct {
	mu    sync.RWMutex
	pages map[int64]*page
}

func (s *states) page(n int64) *page {
	if p := s.pages[n/pageBlocks]; p != nil {
		return p
	}
	return untouched
}

func (s *states) get(n int64) state {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.page(n).get(n % pageBlocks)
}

func (s *states) set(n int64, to state) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.page(n)
	if p.get(n%pageBlocks) == to {
		return
	}
	if p == untouched {
		p = uniform(below)
		s.pages[n/pageBlocks] = p
	}
	p.set(n%pageBlocks, to)
}

// none reports whether no block of the page that begins with block n is in a state.
func (s *states) none(n int64, is state) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.page(n).count[is] == 0
}

// setPage changes all blocks of the page that begins with block n.
func (s *states) setPage(n int64, to state) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pages[n/pageBlocks] = uniform(to)
}

// run is how many blocks from n on, below end, are in one state.
func (s *states) run(n, end int64, is state) int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i := n; i < end; {
		p := s.page(i)
		switch {
		case p.count[is] == pageBlocks:
			i = (i/pageBlocks + 1) * pageBlocks
		case p.get(i%pageBlocks) != is:
			return i - n
		default:
			i++
		}
	}
	return end - n
}
