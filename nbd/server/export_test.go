package server

// BetweenSteps makes f run between the steps in which a goroutine of the poller
// decides whether it goes on waiting. Before any client comes.
func (s *Server) BetweenSteps(f func()) { s.poll.between = f }

// BoundFirst bounds the tasks that are their connections' only ones.
func (s *Server) BoundFirst(n int32) { s.work.first.max = n }
