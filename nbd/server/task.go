package server

import (
	"runtime"
	"sync"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/nbd"
)

// pieceHead is the room before the data of a piece: for a reply's header, and a
// page, so that the data stays aligned for direct I/O.
const pieceHead = 4096

// task is a request that a worker serves.
type task struct {
	c        *conn
	r        nbd.Request
	piece    *[]byte // a WRITE's payload lies in it
	data     []byte
	group    *group // of which this is a piece
	endGroup bool   // no data: only answers for the group
	ids      []int  // BLOCK_STATUS: the contexts asked for, by index
	in       *share // of the workers, that it was counted in
	owed     bool   // its slot is given back when its reply has left
	scratch  []byte
	extents  [16]disk.Extent
	onWorker func() // runs the task on a new worker
}

var tasks sync.Pool // of *task

func (c *conn) newTask(r *nbd.Request) *task {
	t, ok := tasks.Get().(*task)
	if !ok {
		t = &task{scratch: make([]byte, 0, replyMax)}
		t.onWorker = func() { t.c.s.work.work(t) }
	}
	t.c, t.r = c, *r
	return t
}

// drop ends a task.
func (t *task) drop() {
	t.putPiece()
	*t = task{scratch: t.scratch[:0], ids: t.ids[:0], onWorker: t.onWorker}
	tasks.Put(t)
}

// takePiece gives the task room for n bytes of payload. Replies leave first
// where that may take time.
func (t *task) takePiece(ws *workspace, n int) (err error) {
	if len(ws.out) > 0 && n > inlineMax {
		if err := t.c.out.flush(ws); err != nil {
			return err
		}
	}
	if t.piece, err = t.c.takePiece(n); err != nil {
		return err
	}
	t.data = (*t.piece)[pieceHead : pieceHead+n]
	return nil
}

func (t *task) putPiece() {
	if t.piece != nil {
		t.c.putPiece(t.piece)
		t.piece, t.data = nil, nil
	}
}

// start gives a task to a worker. Where the connection has its share of tasks
// already, or all together have theirs, it waits for one to end.
func (c *conn) start(ws *workspace, t *task) error {
	select {
	case c.slots <- struct{}{}:
	default:
		if err := c.awaitSlot(ws); err != nil {
			t.drop()
			return err
		}
	}
	if t.r.Command == nbd.CmdFlush && c.flushes.join(&t.r) {
		t.drop()
		return nil
	}
	if err := c.awaitWorker(ws, t); err != nil {
		t.drop()
		c.freeSlot()
		return err
	}
	c.refs.Add(1)
	c.dispatched = true
	c.s.work.do(t)
	return nil
}

// run serves the task and ends it.
func (t *task) run() {
	c := t.c
	switch t.r.Command {
	case nbd.CmdRead:
		t.runRead()
	case nbd.CmdWrite:
		t.runWrite()
	case nbd.CmdBlockStatus:
		t.runBlockStatus()
	case nbd.CmdFlush:
		t.runFlush()
	default:
		t.runOther()
	}
	owed, in := t.owed, t.in
	t.drop()
	in.leave()
	if !owed {
		c.freeSlot()
	}
	c.unref()
}

func (t *task) runOther() {
	c, f := t.c, diskFlags(&t.r)
	d, off, n := c.exp.Disk, int64(t.r.Offset), int64(t.r.Length)
	var err error
	switch t.r.Command {
	case nbd.CmdTrim:
		c.exp.changed.Store(true)
		err = d.Trim(c.ctx, off, n, f)
	case nbd.CmdWriteZeroes:
		c.exp.changed.Store(true)
		err = d.Zero(c.ctx, off, n, f)
	case nbd.CmdCache:
		err = d.Cache(c.ctx, off, n)
	}
	c.exp.count(&t.r)
	t.answer(err, f)
}

// answer sends the reply for the outcome of a disk operation, without data.
func (t *task) answer(err error, f disk.Flags) {
	e, text := t.c.diskError(&t.r, err, f)
	t.reply(e, text)
}

// fail counts and answers a request that came to nothing.
func (t *task) fail(err error) {
	t.c.exp.count(&t.r)
	t.answer(err, 0)
}

func (t *task) reply(e nbd.Errno, text string) {
	t.scratch = t.c.appendReply(t.scratch[:0], &t.r, e, text)
	t.owed = true
	t.c.out.put(t.scratch, 1)
}

// yieldEvery is well below the 10 ms after which the Go scheduler takes the
// processor from a goroutine that does not yield. It does that to a thread that
// it cannot interrupt, since it mostly waits in the kernel, and then looks
// every 20 us for more to take.
const yieldEvery = 5 * time.Millisecond

// yield lets workers that were just woken run before the reader's thread waits
// in the kernel, which the scheduler learns late.
func (c *conn) yield() {
	if c.dispatched || c.now.Sub(c.yielded) > yieldEvery {
		c.dispatched = false
		c.yielded = c.now
		runtime.Gosched()
	}
}
