package server

import (
	"sync"
	"sync/atomic"
)

// workers runs tasks on goroutines that are started when all are busy and kept
// for reuse, a few of them, when they are not. Each connection bounds its own
// tasks, and all together those that are not their connection's only one: so one
// export with a dead disk cannot use up the workers of the others. Those that find
// no room wait in a queue, each connection with one task at most, so that they get
// room in turn.
type workers struct {
	tasks chan *task
	idle  atomic.Int32
	wg    sync.WaitGroup
	more  share // of tasks beside another one of their connection
	first share // of the others
}

const maxIdleWorkers = 16

// What all connections may have under way: tasks beside another one of their
// connection, and other ones. A task may occupy a thread, as may whoever serves a
// connection, and at 10,000 threads the Go runtime ends the program: 157 connections
// with 64 requests each could do that where the storage hangs.
const (
	maxMore  = 1024
	maxFirst = 4096
)

func (w *workers) start() {
	w.tasks = make(chan *task)
	w.more.max, w.first.max = maxMore, maxFirst
}

// do runs t on a worker. A worker that has just answered may not be back yet
// when the client's next request comes, so new ones are started often: from a
// function that the task keeps, since a go statement with arguments allocates.
func (w *workers) do(t *task) {
	select {
	case w.tasks <- t:
	default:
		w.wg.Add(1)
		go t.onWorker()
	}
}

func (w *workers) work(t *task) {
	defer w.wg.Done()
	for {
		t.run()
		if w.idle.Add(1) > maxIdleWorkers {
			w.idle.Add(-1)
			return
		}
		next, ok := <-w.tasks
		w.idle.Add(-1)
		if !ok {
			return
		}
		t = next
	}
}

// stop ends the workers; no task may be running or come.
func (w *workers) stop() {
	close(w.tasks)
	w.wg.Wait()
}
