package file

import (
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

// patience decides which writes are made inside Submit. A ring hands a buffered
// write to a kernel thread where RWF_NOWAIT is refused or of no use (see
// TryWrite): 10 us and two context switches for a copy of 1 us into the page cache.
// Made at once it may instead meet the kernel's throttling of dirty pages, and
// hold up everything else on the queue; after that happened, the next writes
// take the ring.
type patience struct {
	lost int // writes that still have to take the ring
}

const (
	atOnceMax  = 256 << 10              // bytes of the largest write made inside Submit
	atOnceSlow = 500 * time.Microsecond // a write that took longer was blocked: the copy takes 50 us
	lostFor    = 1000                   // writes
)

// atOnce does s on the spot where that is the cheapest way; false leaves it to
// be done by other means.
func (q *ringQueue) atOnce(s *slot) bool {
	f := q.f
	switch {
	case s.Kind == disk.Flush:
		return f.opts.Cache == Unsafe
	case s.Kind != disk.Write || s.Len > atOnceMax || !f.cachedWrite(s.Flags):
		return false
	case q.lost > 0:
		q.lost--
		return false
	case !f.writesPlain.Load():
		if len(s.Vec) != 1 {
			return false
		}
		s.err = f.TryWrite(s.Vec[0], s.Off, s.Flags)
		return s.err != disk.ErrWouldBlock
	}
	start := time.Now()
	s.err = f.perform(&s.ctx, &s.Op)
	if time.Since(start) > atOnceSlow {
		q.lost = lostFor
	}
	return true
}
