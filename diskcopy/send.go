package diskcopy

import (
	"errors"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
)

// sending decides which data the kernel moves by itself: from the source's file to
// the target's socket (sendfile), which takes half the CPU time of reading it,
// looking for zeros and writing it, or to the target's file (copy_file_range),
// which saves an eighth of it, and all of it on a network file system whose server
// copies. What is moved so is not looked at. Hence it is for sources whose file
// system told the holes, and as long as the data in between does not turn out to
// hold many zeros: every so often a request takes the ordinary way as a sample.
type sending struct {
	off     atomic.Bool  // the source or the target cannot
	tasks   atomic.Int64 // data tasks so far
	scanned atomic.Int64 // bytes of them that were searched for zeros
	zeros   atomic.Int64 // bytes found
}

const (
	// sampleFirst data tasks are searched, then one of every sampleEvery.
	sampleFirst = 16
	sampleEvery = 16
	// fewZeros: data with less than a 64th of zeros is sent unseen.
	fewZeros = 64
)

// found takes over the result of a search.
func (s *sending) found(n, zeros int64) {
	s.scanned.Add(n)
	s.zeros.Add(zeros)
}

// wanted reports whether the next data task may be sent.
func (s *sending) wanted(o *Options) bool {
	switch {
	case s.off.Load() || o.SparseSize > 0 && !o.sample:
		return false
	case o.SparseSize < 0:
		return true
	}
	n := s.tasks.Add(1)
	return n > sampleFirst && n%sampleEvery != 0 && s.zeros.Load()*fewZeros < s.scanned.Load()
}

// send lets the kernel copy t; false: it has to be read and written.
func (w *worker) send(t task) (bool, error) {
	e := w.e
	if !e.sending.wanted(&e.opt) {
		return false, nil
	}
	r, ok := e.src.FileRange(t.off, t.n, false)
	if !ok {
		e.sending.off.Store(true)
		return false, nil
	}
	defer r.Release()
	if r.Len < t.n {
		return false, nil
	}
	r.Len = t.n
	err := e.sendRange(r, t.off)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		e.sending.off.Store(true)
		return false, nil
	case err != nil:
		return false, targetErr(err)
	}
	w.counts.Read.add(t.n)
	w.wrote(t.off, t.n)
	return true, nil
}

// sendRange moves a range of the source's file to off of the target, or fails
// with errors.ErrUnsupported.
func (e *engine) sendRange(from disk.FileRange, off int64) error {
	to, ok := e.dst.FileRange(off, from.Len, true)
	if !ok {
		return e.dst.WriteFromFile(e.io, off, from, 0)
	}
	defer to.Release()
	if to.Len < from.Len || e.opt.NoClone || e.opt.Allocate {
		return errors.ErrUnsupported // copy_file_range may share blocks
	}
	for n := from.Len; n > 0; {
		done, err := copyInTurn(&from, &to, int(min(n, sendStep)))
		if err != nil || done <= 0 {
			return errors.ErrUnsupported // reading and writing meets and names whatever is wrong
		}
		n -= int64(done)
	}
	return nil
}

// sendStep bounds one copy_file_range into a file whose writers take turns.
const sendStep = 256 << 10

// copyInTurn is one copy_file_range.
func copyInTurn(from, to *disk.FileRange, n int) (int, error) {
	if to.Turn != nil {
		to.Turn.Lock()
		defer to.Turn.Unlock()
	}
	return unix.CopyFileRange(from.FD, &from.Off, to.FD, &to.Off, n, 0)
}
