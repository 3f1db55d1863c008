package diskcopy

import (
	"sync"
	"sync/atomic"
)

// flushStep is how much may be written before the target is told to bring it to
// stable storage. The kernel by itself begins when a tenth of the memory is dirty, so
// that the flush at the end of a copy found all of it still to be written: as
// long again as the copy itself.
const flushStep = 64 << 20

// flusher flushes the target while the copy goes on, so that little is left for the
// flush at the end. One flush is under way at a time, and what was written
// meanwhile waits for the next.
type flusher struct {
	written atomic.Int64 // since the last flush began
	wake    chan struct{}
}

// wrote counts n bytes that the target acknowledged.
func (f *flusher) wrote(n int64) {
	if f.wake == nil || f.written.Add(n) < flushStep {
		return
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// startFlusher flushes from a goroutine until the returned function is called,
// where a flush will follow anyway.
func (e *engine) startFlusher() (stop func()) {
	if !e.dst.Info().Volatile || e.opt.NoFlush || e.journal != nil {
		return func() {} // a journal has its checkpoints
	}
	f, quit := &e.flusher, make(chan struct{})
	f.wake = make(chan struct{}, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-quit:
				return
			case <-f.wake:
			}
			f.written.Store(0)
			if err := e.dst.Flush(e.io); err != nil {
				e.mu.Lock()
				e.setErr(targetErr(err))
				e.mu.Unlock()
				return
			}
		}
	})
	return func() { close(quit); wg.Wait() }
}
