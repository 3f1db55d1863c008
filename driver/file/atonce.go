package file

import (
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

// patience decides which writes are made inside Submit. A ring hands a buffered
// write to a kernel thread where the file system knows no RWF_NOWAIT writes
// (ext4): 10 us and two context switches for a copy of 1 us into the page cache.
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
	case s.Kind != disk.Write || s.Len > atOnceMax || f.opts.Cache.direct() || f.opts.Cache.sync() || f.rwf(s.Flags) != 0:
		return false
	case q.lost > 0:
		q.lost--
		return false
	case !f.writesPlain.Load():
		return !f.noWaitWrites.Load() && len(s.Vec) == 1 && q.probe(s)
	}
	start := time.Now()
	s.err = f.perform(&s.ctx, &s.Op)
	if time.Since(start) > atOnceSlow {
		q.lost = lostFor
	}
	return true
}

// probe makes the first write of a file by TryWrite, which learns how writes are
// best made.
func (q *ringQueue) probe(s *slot) bool {
	err := q.f.TryWrite(s.Vec[0], s.Off, s.Flags)
	if !q.f.writesPlain.Load() {
		q.f.noWaitWrites.Store(true)
	}
	s.err = err
	return err != disk.ErrWouldBlock
}
