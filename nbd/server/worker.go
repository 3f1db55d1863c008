package server

import (
	"sync"
	"sync/atomic"
)

// workers runs tasks on goroutines that are started when all are busy and kept
// for reuse, a few of them, when they are not. It bounds nothing itself: each
// connection bounds its own tasks, so one export with a dead disk cannot use up
// the workers of the others.
type workers struct {
	tasks chan *task
	idle  atomic.Int32
	wg    sync.WaitGroup
}

const maxIdleWorkers = 16

func (w *workers) start() { w.tasks = make(chan *task) }

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
