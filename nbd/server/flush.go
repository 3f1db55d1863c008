package server

import (
	"sync"

	"github.com/vmdisk/vmdisk/nbd"
)

// flushes are those of a connection. One task serves them: those that come while it
// flushes are answered together after the next flush, which begins after they came and
// so covers whatever was complete before they were sent. Each has a slot, so there are
// not more than the connection may have tasks.
type flushes struct {
	mu      sync.Mutex
	busy    bool
	waiting []nbd.Request
	taken   []nbd.Request // by the task
}

// join leaves r to the task there is; false: the caller's is to be that task.
func (f *flushes) join(r *nbd.Request) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting = append(f.waiting, *r)
	joined := f.busy
	f.busy = true
	return joined
}

// take returns those that wait, valid until the next call. Where none do the task ends.
func (f *flushes) take() []nbd.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.taken, f.waiting = f.waiting, f.taken[:0]
	f.busy = len(f.taken) > 0
	return f.taken
}

// runFlush is FLUSH on a worker.
func (t *task) runFlush() {
	c := t.c
	for list := c.flushes.take(); len(list) > 0; list = c.flushes.take() {
		err := c.exp.Disk.Flush(c.ctx)
		b := t.scratch[:0]
		for i := range list {
			c.exp.count(&list[i])
			e, text := c.diskError(&list[i], err, 0)
			b = c.appendReply(b, &list[i], e, text)
		}
		t.owed = true
		c.out.put(b, len(list))
	}
}
