package diskcopy

import (
	"sync"
	"sync/atomic"

	"github.com/vmdisk/vmdisk/disk/behind"
)

// writeBehind has a local target written out, and taken out of the page cache, while the
// copy goes on. The page cache then holds about behindAhead + 2 steps and behind.Keep of a
// copy.
type writeBehind struct {
	written atomic.Int64
	steps   chan struct{} // nil: there is nothing to do
}

// behindAhead is how many steps a copy may be ahead of its storage. What is ahead is only
// memory: the flush at the end would wait as long.
const behindAhead = 4

// wrote counts n bytes that the target acknowledged. It blocks while the storage
// is behind.
func (b *writeBehind) wrote(n int64) {
	if b.steps == nil {
		return
	}
	if now := b.written.Add(n); now/behind.Step != (now-n)/behind.Step {
		b.steps <- struct{}{}
	}
}

// startBehind writes out what is below the frontier, from a goroutine, until the
// returned function is called, after the workers have ended. False: the target has
// nothing to write out.
func (e *engine) startBehind() (stop func(), ok bool) {
	if e.opt.NoFlush {
		return nil, false // all the memory there is was asked for
	}
	w, begun := behind.NewWriter(e.dst), e.frontier() // before a worker moves it
	if w == nil {
		return nil, false
	}
	b := &e.behind
	b.steps = make(chan struct{}, behindAhead)
	var wg sync.WaitGroup
	wg.Go(func() {
		counted := int64(0)
		for range b.steps {
			end, written := e.frontier(), b.written.Load()
			if w.Broken || end <= begun {
				continue
			}
			w.Begin(begun, end-begun, written-counted)
			if begun, counted = end, written; w.Broken {
				e.lostWrite()
			}
		}
	})
	return func() { close(b.steps); wg.Wait() }, true
}

// lostWrite ends the copy early if a flush finds the target broken.
func (e *engine) lostWrite() {
	if err := e.dst.Flush(e.io); err != nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.setErr(targetErr(err))
	}
}
