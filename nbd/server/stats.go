package server

import "sync/atomic"

// stats count what concerns no export.
type stats struct {
	accepted atomic.Int64
	refused  atomic.Int64
	yielded  atomic.Int64
	dropped  atomic.Int64 // lines of the log
}

// Stats is the state of a server's connections at one time.
type Stats struct {
	// Negotiating and Sessions are the connections there are; Busy are the sessions
	// with requests.
	Negotiating, Sessions, Busy int
	// HandshakeMemory is what the negotiations are taken to hold, in bytes.
	HandshakeMemory int64
	// Accepted connections so far, those Refused because there was no place for
	// them, and those that Yielded their place to others.
	Accepted, Refused, Yielded int64
	// LogDropped are the lines of the log that were too many.
	LogDropped int64
}

// Stats returns the state of the server's connections.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{
		Negotiating: len(s.door.haggling), Sessions: len(s.conns), HandshakeMemory: s.door.memory,
		Accepted: s.stats.accepted.Load(), Refused: s.stats.refused.Load(), Yielded: s.stats.yielded.Load(),
		LogDropped: s.stats.dropped.Load(),
	}
	for c := range s.conns {
		if c.busy.Load() || c.refs.Load() > 1 {
			st.Busy++
		}
	}
	return st
}
