package file

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
)

// Extents reports the Allocation map from SEEK_DATA and SEEK_HOLE: a hole reads
// as zeros. Space that is allocated but was never written (fallocate) is
// reported as a hole by most file systems.
//
// The kernel finds an extent's end by walking through it, page by page on tmpfs,
// so each is looked up once: the walk goes on where it ended, and a question
// about the inside of an extent that was seen lately is answered from memory,
// unless the disk has changed since.
func (f *File) Extents(ctx context.Context, m disk.MapName, off, n int64, dst []disk.Extent) ([]disk.Extent, error) {
	room := cap(dst) - len(dst)
	end, knownData := off+n, int64(-1)
	for off < end && room > 0 {
		if err := ctx.Err(); err != nil {
			return dst, err
		}
		e, err := f.extentAt(off, knownData == off)
		if err != nil {
			return dst, err
		}
		x := disk.Extent{Len: e.end - off}
		if e.hole {
			x.Flags = disk.ExtentZero | disk.ExtentHole
			knownData = e.end
		}
		dst = append(dst, x)
		off, room = e.end, room-1
	}
	return dst, nil
}

// span is one extent as the kernel told it.
type span struct {
	off, end int64
	hole     bool
}

// extentAt finds the extent that off lies in. isData says that the caller knows
// off to begin data, which saves a call.
func (f *File) extentAt(off int64, isData bool) (span, error) {
	gen := f.changes.Load() // before looking: a change in between must show
	if s, ok := f.seen.find(off, gen); ok {
		return s, nil
	}
	s, err := f.seek(off, isData)
	if err == nil && f.lent.Load() == 0 && !f.opts.ForceShare {
		f.seen.add(s, gen)
	}
	return s, err
}

func (f *File) seek(off int64, isData bool) (span, error) {
	size := f.size.Load()
	if !isData {
		data, err := f.lseek(off, unix.SEEK_DATA)
		switch {
		case err == unix.ENXIO: // a hole up to the end, or the file's end
			if now, err := f.fileSize(); err != nil || now < size {
				// The checksum of a disk whose file was cut short under its server was that of zeros.
				return span{}, errors.Join(err, errShrunk)
			}
			return span{off, size, true}, nil
		case err == unix.EINVAL || err == unix.EOPNOTSUPP:
			return span{off, size, false}, nil // nothing is known
		case err != nil:
			return span{}, err
		case data > off:
			return span{off, min(data, size), true}, nil
		}
	}
	hole, err := f.lseek(off, unix.SEEK_HOLE)
	if err != nil && err != unix.ENXIO {
		return span{}, err
	}
	if err == unix.ENXIO || hole <= off {
		// The data went away between the two calls. Calling a page of it data is
		// always right.
		hole = off + pageSize
	}
	return span{off, min(hole, size), false}, nil
}

func (f *File) lseek(off int64, whence int) (int64, error) {
	f.seen.calls.Add(1)
	return unix.Seek(f.fd, off, whence)
}

// seenExtents remembers the last few extents, for the walks of several readers.
type seenExtents struct {
	mu   sync.Mutex
	gen  uint64 // the state of the disk that they describe
	list [8]span
	next int

	calls atomic.Uint64 // of lseek: the cost of walking
}

func (s *seenExtents) find(off int64, gen uint64) (span, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gen != gen {
		return span{}, false
	}
	for _, e := range s.list {
		if e.off <= off && off < e.end {
			return e, true
		}
	}
	return span{}, false
}

func (s *seenExtents) add(e span, gen uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gen != gen {
		if s.gen > gen {
			return // what e says may be outdated
		}
		s.list, s.gen = [8]span{}, gen
	}
	s.list[s.next] = e
	s.next = (s.next + 1) % len(s.list)
}
