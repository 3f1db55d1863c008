package gen

// zones are those of zonemode=strided: I/O stays in a window of the file, which moves
// on each time that enough was done in it, and round at the end of the file.
type zones struct {
	amount int64 // bytes of I/O in each window; 0: no zones
	span   int64 // size of a window
	step   int64 // from one window to the next
	end    int64 // of the file, from start
	done   int64 // in the present window
}

// Stride makes a stream that was made for one window go over all of a file with end
// bytes. It does nothing for jobs without zones.
func (s *Stream) Stride(end int64) {
	j := s.job
	if j.ZoneMode != "strided" {
		return
	}
	s.zones = zones{amount: j.ZoneSize, span: s.size, step: s.size + j.ZoneSkip, end: end - s.start}
}

// enter moves the window where that is due. As in fio all places of a window are free
// again each time that as much was done as it has bytes.
func (s *Stream) enter() {
	z := &s.zones
	if z.done >= z.amount {
		z.done = 0
		s.window += z.step
		left := z.end - s.window
		if s.size = min(z.span, left); left < s.unit || left < z.span && s.job.Mode.Random {
			// What is left of the file holds no random place that is drawn from a whole window.
			s.window, s.size = 0, z.span
		}
	}
	if z.done%z.span == 0 {
		s.reset()
	}
	for d := range s.pos {
		if s.pos[d] < 0 || s.pos[d] >= s.size {
			s.pos[d] = s.begin(d)
		}
	}
}
