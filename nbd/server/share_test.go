package server

import "testing"

// Who waits for a share gets it in turn, before who comes later.
func TestShareIsGivenInTurn(t *testing.T) {
	s := share{max: 1}
	if !s.enter() || s.enter() {
		t.Fatal("a share of one is not one")
	}
	a, b, c := s.join(), s.join(), s.join()
	if s.quit(b) {
		t.Error("one that quits had got in")
	}
	for i, in := range []chan struct{}{a, c} {
		s.leave()
		select {
		case <-in:
		default:
			t.Errorf("number %d of the queue waits", i)
		}
		if s.enter() {
			t.Error("one that came later got in first")
		}
	}
	if !s.quit(c) {
		t.Error("one that quits too late did not get in")
	}
	s.leave()
	if !s.enter() || s.waiting.Load() != 0 {
		t.Error("nobody waits and nothing is free")
	}
}
