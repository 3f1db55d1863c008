package disk

import "context"

// inlineQueue runs every operation inside Submit: for drivers whose methods
// never block, where handing over to another thread would cost more than the
// operation.
type inlineQueue struct {
	d       *Disk
	ready   []Completion // cap is the depth
	next    int          // ready[:next] has been reaped
	watched chan Completion
	watcher *watcher
}

func newInlineQueue(d *Disk, depth int) *inlineQueue {
	return &inlineQueue{d: d, ready: make([]Completion, 0, depth), watched: make(chan Completion)}
}

func (q *inlineQueue) Register([][]byte) error { return nil }

func (q *inlineQueue) WatchFD(fd int, tag uint64) (err error) {
	if q.watcher == nil {
		if q.watcher, err = newWatcher(q.watched); err != nil {
			return q.d.wrap("queue", -1, 0, err)
		}
	}
	return q.watcher.watch(fd, tag)
}

func (q *inlineQueue) Submit(ops []Op) (int, error) {
	if q.next > 0 && len(q.ready)+len(ops) > cap(q.ready) {
		q.ready = q.ready[:copy(q.ready, q.ready[q.next:])]
		q.next = 0
	}
	for i := range ops {
		if len(q.ready) == cap(q.ready) {
			return i, nil
		}
		q.ready = append(q.ready, Completion{Tag: ops[i].Tag, Err: q.d.run(context.Background(), &ops[i])})
	}
	return len(ops), nil
}

func (q *inlineQueue) Reap(ctx context.Context, min int, dst []Completion) (int, error) {
	n := copy(dst, q.ready[q.next:])
	if q.next += n; q.next == len(q.ready) {
		q.ready, q.next = q.ready[:0], 0
	}
	for q.watcher != nil && n < len(dst) {
		if n >= min {
			select {
			case dst[n] = <-q.watched:
				n++
				continue
			default:
				return n, nil
			}
		}
		select {
		case dst[n] = <-q.watched:
			n++
		case <-ctx.Done():
			return n, ctx.Err()
		}
	}
	return n, nil
}

// Cancel has nothing to do: operations end inside Submit.
func (q *inlineQueue) Cancel(uint64) {}

func (q *inlineQueue) Close() error {
	if q.watcher != nil {
		q.watcher.close()
	}
	return nil
}
