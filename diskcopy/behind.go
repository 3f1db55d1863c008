package diskcopy

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/vmdisk/vmdisk/disk"
)

// behind has a local target write out what was copied while the copy goes on, and
// give the memory back that cached it. By itself the kernel begins when a tenth of
// the memory is dirty, and what a copy leaves in the page cache has pushed out what
// the host's guests had there. New pages are not free either: a machine whose
// own host gives it memory at the first touch took 2.8 s for 1.2 GiB in new pages
// and 0.65 s in the same few ones again.
//
// The page cache then holds about behindAhead + behindKeep + 2 steps of a copy.
type behind struct {
	to      disk.WriteBehinder
	written atomic.Int64
	steps   chan struct{} // nil: there is nothing to do
}

const (
	// behindStep is how much is written out at a time: a few requests of the largest
	// kind for any device, yet little memory.
	behindStep = 8 << 20
	// behindKeep steps stay under way while the one before them is waited for.
	behindKeep = 4
	// behindAhead is how many steps a copy may be ahead of its storage. What is ahead
	// is only memory: the flush at the end would wait as long.
	behindAhead = 4
)

// wrote counts n bytes that the target acknowledged. It blocks while the storage
// is behind.
func (b *behind) wrote(n int64) {
	if b.steps == nil {
		return
	}
	if now := b.written.Add(n); now/behindStep != (now-n)/behindStep {
		b.steps <- struct{}{}
	}
}

// startBehind writes out from a goroutine until the returned function is called,
// after the workers have ended. False: the target has nothing to write out.
func (e *engine) startBehind() (stop func(), ok bool) {
	b := &e.behind
	if e.opt.NoFlush {
		return nil, false // all the memory there is was asked for
	}
	if b.to, ok = disk.As[disk.WriteBehinder](e.dst); !ok || b.to.WriteBehind(0, 0, false) != nil {
		return nil, false
	}
	b.steps = make(chan struct{}, behindAhead)
	start := e.frontier() // before a worker moves it
	var wg sync.WaitGroup
	wg.Go(func() { e.writeBehind(start) })
	return func() { close(b.steps); wg.Wait() }, true
}

// writeBehind takes what is below the frontier to the storage, from start on, step
// by step. A step is larger where a slow request held the frontier up.
func (e *engine) writeBehind(start int64) {
	type step struct{ end, written int64 }
	var under []step // way: begun, not waited for
	b, begun, dropped := &e.behind, start, start
	broken := false
	for range b.steps {
		now := step{e.frontier(), b.written.Load()}
		if broken || now.end <= begun {
			continue
		}
		err := b.to.WriteBehind(begun, now.end-begun, false)
		begun, under = now.end, append(under, now)
		for err == nil && now.written-under[0].written >= behindKeep*behindStep {
			err = b.to.WriteBehind(dropped, under[0].end-dropped, true)
			dropped = under[0].end
			under = append(under[:0], under[1:]...)
		}
		if err != nil {
			broken = true
			e.lostWrite(err)
		}
	}
}

// lostWrite ends the copy early if a flush finds the target broken.
func (e *engine) lostWrite(err error) {
	if errors.Is(err, errors.ErrUnsupported) {
		return
	}
	if err := e.dst.Flush(e.io); err != nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.setErr(targetErr(err))
	}
}
