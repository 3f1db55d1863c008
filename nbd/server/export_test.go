package server

// BetweenSteps makes f run between the steps in which a goroutine of the poller
// decides whether it goes on waiting. Before any client comes.
func (s *Server) BetweenSteps(f func()) { s.poll.between = f }
