package server

import (
	"bytes"
	"time"

	"golang.org/x/sync/semaphore"
)

// A connection has to wait where it has its share of tasks, or all together have
// theirs: the disk or the client may keep them for long. Meanwhile the workspace is
// left to others. What it held of requests is kept apart, and is little, since such a
// connection, which is crowded, is read from in small steps. And all that are crowded
// have a quarter of the workspaces at most, those that are new five eighths, so that the others
// need not wait for them. (When each of a thousand clients that sent
// flushes and read no reply held a workspace, the server took 441 MiB, and new clients
// waited for more than 5 s.)

// aheadCrowded is what is read ahead of a connection that had to wait lately, and of a
// new one.
const aheadCrowded = 16 << 10

// part is of which part of the workspaces the connection takes one; nil: of all.
func (c *conn) part() *semaphore.Weighted {
	switch {
	case c.waited, c.crowded && c.asked.Load() != 0:
		return c.s.mem.crowd
	case c.crowded:
		return c.s.mem.fresh
	}
	return nil
}

// parkAfter is for how long the workspace is kept while its connection waits.
const parkAfter = 5 * time.Millisecond

// awaitSlot takes a slot as soon as a task ends and its reply has left.
func (c *conn) awaitSlot(ws *workspace) error {
	return c.wait(ws, func(patience <-chan time.Time) (bool, error) {
		select {
		case c.slots <- struct{}{}:
			return true, nil
		case <-patience:
			return false, nil
		case <-c.ctx.Done():
			return false, c.ctx.Err()
		}
	})
}

// awaitWorker waits until all connections together have room for the task.
func (c *conn) awaitWorker(ws *workspace, t *task) error {
	w := &c.s.work
	if len(c.slots) > 1 {
		if t.in = &w.more; t.in.enter() {
			return nil
		}
		if entered, err := c.queue(ws, t); entered || err != nil {
			return err
		}
	}
	if t.in = &w.first; t.in.enter() {
		return nil
	}
	_, err := c.queue(ws, t)
	return err
}

// queue waits for room in the task's share. It gives up, without an error, when the
// task has become its connection's only one, for which there is another share.
func (c *conn) queue(ws *workspace, t *task) (entered bool, err error) {
	in, more := t.in.join(), t.in == &c.s.work.more
	c.queued.Store(more)
	defer c.queued.Store(false)
	err = c.wait(ws, func(patience <-chan time.Time) (bool, error) {
		for {
			if more && len(c.slots) <= 1 {
				return true, nil
			}
			select {
			case <-in:
				entered = true
				return true, nil
			case <-c.alone:
			case <-patience:
				return false, nil
			case <-c.ctx.Done():
				return false, c.ctx.Err()
			}
		}
	})
	if !entered {
		entered = t.in.quit(in)
	}
	if entered && err != nil {
		t.in.leave()
	}
	return entered, err
}

// freeSlot gives a slot back. A task that waits to be its connection's only one is told.
func (c *conn) freeSlot() {
	<-c.slots
	if c.queued.Load() && len(c.slots) <= 1 {
		select {
		case c.alone <- struct{}{}:
		default:
		}
	}
}

// wait sends the replies there are and then calls until, which returns true when it
// has got what it waits for; at first for a moment, and then for as long as it takes,
// without the workspace.
func (c *conn) wait(ws *workspace, until func(patience <-chan time.Time) (bool, error)) error {
	c.s.poll.ensureWaiter()
	c.waited = true
	if len(ws.out) > 0 {
		if err := c.out.flush(ws); err != nil {
			return err
		}
	}
	moment := time.NewTimer(parkAfter)
	defer moment.Stop()
	if got, err := until(moment.C); got || err != nil {
		return err
	}
	c.park(ws)
	moment.Reset(sendWait - parkAfter)
	got, err := until(moment.C)
	if !got && err == nil {
		c.lend()
		_, err = until(nil)
	}
	if err != nil {
		return err
	}
	return c.unpark(ws)
}

// park leaves the workspace to others, but for the requests in it. Where there is no
// memory for these, nothing is done.
func (c *conn) park(ws *workspace) {
	m, n := c.s.mem, int64(ws.w-ws.r)
	if m.slow.Add(n) > m.slowMax {
		m.slow.Add(-n)
		return
	}
	c.holds.keep(n)
	kept := bytes.Clone(ws.in[ws.r:ws.w])
	m.putSpace(&workspace{in: ws.in, out: ws.out})
	*ws = workspace{in: kept, w: len(kept), parked: true}
	c.holds.gave(m, 1, 0)
}

// unpark takes a workspace again.
func (c *conn) unpark(ws *workspace) error {
	if !ws.parked {
		return nil
	}
	full, err := c.space()
	if err != nil {
		return err // putSpace ends it
	}
	full.w = copy(full.in, ws.in[ws.r:ws.w])
	c.forget(ws)
	*ws = *full
	return nil
}

// forget gives back what a parked workspace holds.
func (c *conn) forget(ws *workspace) {
	n := int64(len(ws.in))
	c.holds.keep(-n)
	c.s.mem.slow.Add(-n)
}
