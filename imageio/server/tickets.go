package server

import (
	"fmt"
	"sync"
	"time"
)

// Tickets is the store that the three services share, keyed by the tickets'
// own uuids. Safe for concurrent use.
type Tickets struct {
	disks      *disks
	clock      func() time.Duration
	inactivity int64 // seconds, for tickets that name none

	mu  sync.RWMutex
	all map[string]*Ticket
}

func newTickets(open Opener, inactivity int) *Tickets {
	return &Tickets{disks: newDisks(open), clock: monotonic, inactivity: int64(inactivity), all: map[string]*Ticket{}}
}

// Add installs the ticket described by text, JSON as PUT /tickets/ID takes it,
// in place of an earlier one with the same uuid.
func (s *Tickets) Add(text []byte) (*Ticket, error) {
	spec, err := parseTicket(text, s.inactivity)
	if err != nil {
		return nil, err
	}
	t, err := newTicket(spec, s.disks, s.clock)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[spec.UUID] = t
	return t, nil
}

// get returns the ticket, or nil.
func (s *Tickets) get(id string) *Ticket {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.all[id]
}

// authorize returns the ticket if it allows op now, else an authError.
func (s *Tickets) authorize(id, op string) (*Ticket, error) {
	t := s.get(id)
	if t == nil {
		return nil, &authError{fmt.Sprintf("No such ticket %s", id)}
	}
	return t, t.authorize(op)
}

// remove cancels the ticket and forgets it once nothing uses it.
func (s *Tickets) remove(id string, timeout time.Duration) error {
	t := s.get(id)
	if t == nil {
		return nil
	}
	unused, err := t.cancel(timeout)
	if unused {
		s.mu.Lock()
		if s.all[id] == t {
			delete(s.all, id)
		}
		s.mu.Unlock()
	}
	return err
}

// clear forgets all tickets; what runs goes on to its end.
func (s *Tickets) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.all)
}

func (s *Tickets) count() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.all)
}
